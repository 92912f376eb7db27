"""Runs of the retrain flow in children of one process: Prefect, MLflow and LightGBM are imported once, then forked.

    python -m tests.stack.flow_crew run HOME             once
    python -m tests.stack.flow_crew killed HOME          a copy of HOME per step: killed after it, then run again
    python -m tests.stack.flow_crew paused HOME STEP     writes a line after STEP, and goes on when it reads one

One JSON line per run: the loop's champion and the states of its versions. MLflow is away in all of them.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import mlflow  # noqa: F401 (takes seconds: once, before the children)

from infra.clock import MICROS
from infra.database import open_database, reading
from infra.leases import lease
from infra.settings import Settings, load_settings
from pipelines import learning
from pipelines.flows import retrain as module
from pipelines.flows.shape import as_task
from reward_models import registry

LOOP = "subjects"
STEPS = ("dataset", "fit", "calibrate", "evaluate", "register", "gate", "promote")


def main() -> None:
    """One of the three."""
    what, home, *rest = sys.argv[1:]
    learning.lease = partial(lease, length=2 * MICROS)  # type: ignore[attr-defined]  # a dead holder is waited for
    if what == "killed":
        for step in STEPS:
            copy = Path(f"{home}-{step}")
            shutil.copytree(home, copy)
            ended = in_a_child(copy, partial(flow_with, after(step, die)))
            dead = state_of(copy)
            healed = in_a_child(copy, lambda: learning.retrain(learning.open_bench(load_settings()), LOOP))
            say(step=step, killed=os.WIFSIGNALED(ended), dead=dead, healed=healed == 0, alive=state_of(copy))
    else:
        hook = after(rest[0], wait_for_a_line) if what == "paused" else as_task
        ended = in_a_child(Path(home), partial(flow_with, hook))
        say(ended=ended, alive=state_of(Path(home)))


def flow_with(run: Callable[..., Any]) -> None:
    """The flow, its steps called by ``run``."""
    vars(module)["as_task"] = run
    module.retrain(LOOP)


def after(step: str, then: Callable[[], None]) -> Callable[..., Any]:
    """Tasks as ever; after the named one something happens."""

    def run(function: Callable[..., Any], *args: Any) -> Any:
        result = as_task(function, *args)
        if function.__name__ == step:
            then()
        return result

    return run


def die() -> None:
    """As the kernel ends a process."""
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for_a_line() -> None:
    """Tell that the step is done, and wait."""
    sys.stdout.write("paused\n")
    sys.stdout.flush()
    sys.stdin.readline()


def in_a_child(home: Path, run: Callable[[], Any]) -> int:
    """How the child ended."""
    child = os.fork()
    if child == 0:
        os.environ["REWARDLOOP_HOME"] = str(home)
        try:
            run()
        except BaseException as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def state_of(home: Path) -> dict[str, Any]:
    """The champion, the state of each version, and whether the champion's files are what was judged."""
    engine = open_database(Settings(home=home).database)
    with reading(engine) as connection:
        champion = registry.champion(connection, LOOP)
        versions = {one.version: one.state for one in registry.versions(connection, LOOP)}
    engine.dispose()
    whole = None
    if champion is not None:
        folder = registry.path_of(home / "models", LOOP, champion.version)
        whole = bool(registry.load_verified(folder, champion.digest))
    return {"champion": champion.version if champion else None, "versions": versions, "whole": whole}


def say(**told: Any) -> None:
    """One line."""
    sys.stdout.write(f"{json.dumps(told)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
