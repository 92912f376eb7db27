"""Prompt optimisers of others take our reward model as their metric, and improve a prompt in the simulator."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.stack


@pytest.mark.parametrize("optimiser", ["dspy", "mlflow"])
def test_an_optimiser_improves_a_prompt_by_our_metric(optimiser: str, tmp_path: Path) -> None:
    """It asks the stub language model, judges by the reward model alone, and what it finds earns more from simulated customers."""
    pytest.importorskip("dspy" if optimiser == "dspy" else "gepa")
    quiet = {
        "OMP_NUM_THREADS": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
        "MLFLOW_ENABLE_ASYNC_TRACE_LOGGING": "false",
    }
    run = subprocess.run(
        [sys.executable, "-m", "tests.stack.optimisers", optimiser, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        env=os.environ | quiet,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3_000:]
    found = json.loads(run.stdout.strip().splitlines()[-1])

    assert found["calls"] > 5
    assert found["after"] > 1.1 * found["before"], found
