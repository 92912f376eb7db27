"""Metrics and health of a process that is no web server."""

import httpx2
import pytest

from infra.errors import Misconfigured
from infra.metrics_server import serving_metrics
from infra.telemetry import worker_partitions


def test_metrics_and_health() -> None:
    """Metrics are Prometheus text, health is 200 while there is no fault and 503 with the reason when there is."""
    faults = [None, "no poll for 200 seconds"]
    worker_partitions.set(3)
    with serving_metrics("127.0.0.1", 0, lambda: faults.pop(0), "REWARDLOOP_WORKER_PORT") as port:
        metrics = httpx2.get(f"http://127.0.0.1:{port}/metrics")
        well, ill = (httpx2.get(f"http://127.0.0.1:{port}/healthz") for _ in range(2))
        faults.append(None)
        elsewhere = httpx2.get(f"http://127.0.0.1:{port}/")

    assert "rewardloop_worker_partitions 3.0" in metrics.text
    assert (well.status_code, well.text) == (200, "ok")
    assert (ill.status_code, ill.text) == (503, "no poll for 200 seconds")
    assert elsewhere.status_code == 404


def test_a_port_that_is_taken() -> None:
    """The setting that moves the port is named."""
    with (
        serving_metrics("127.0.0.1", 0, lambda: None, "REWARDLOOP_WORKER_PORT") as port,
        pytest.raises(Misconfigured, match=f"REWARDLOOP_WORKER_PORT={port}.*0 for a free one"),
        serving_metrics("127.0.0.1", port, lambda: None, "REWARDLOOP_WORKER_PORT"),
    ):
        pass
