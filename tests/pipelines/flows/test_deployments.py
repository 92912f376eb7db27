"""The table of deployments, `prefect.yaml`, and what the page shows of each flow."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.events import DeploymentEventTrigger
from prefect.exceptions import ParameterTypeError

from infra.errors import BadInput
from pipelines.flows.deployments import DEPLOYMENTS, POOL, Deployment, named, trigger_of

ROOT = Path(__file__).parents[3]

BY_NAME = pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda one: one.name)


def test_prefect_yaml_says_the_same_as_the_table() -> None:
    """Whoever deploys with Prefect's own command gets the same deployments, schedules and pool."""
    document: dict[str, Any] = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    written = [
        Deployment(
            one["name"],
            one["entrypoint"],
            one["description"],
            "".join(schedule["cron"] for schedule in one.get("schedules", ())),
            "".join(expected for trigger in one.get("triggers", ()) for expected in trigger["expect"]),
        )
        for one in document["deployments"]
    ]

    assert tuple(written) == DEPLOYMENTS
    assert len({one.name for one in DEPLOYMENTS}) == len(DEPLOYMENTS)
    assert {one["work_pool"]["name"] for one in document["deployments"]} == {POOL}


def test_prefect_yaml_has_the_same_triggers() -> None:
    """Prefect makes the same automation of the file as of the table: one run per event, for the loop it names."""
    document: dict[str, Any] = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    written = {
        one["name"]: [DeploymentEventTrigger.model_validate(trigger) for trigger in one["triggers"]]
        for one in document["deployments"]
        if "triggers" in one
    }

    assert written == {one.name: [trigger_of(one)] for one in DEPLOYMENTS if one.event}
    assert written.keys() == {"retrain-when-due"}


def test_names_are_looked_up_and_wrong_ones_are_told() -> None:
    """No name is every flow; an unknown one is an error that lists what there is."""
    assert named([]) == list(DEPLOYMENTS)
    assert [one.name for one in named(["watch", "retrain"])] == ["watch", "retrain"]
    with pytest.raises(BadInput, match=r"'wach'.*watch"):
        named(["wach"])


@BY_NAME
def test_every_parameter_is_described_and_typed(deployment: Deployment) -> None:
    """The page shows for each flow what it does, and for each parameter what it means and may be."""
    flow = deployment.load()

    assert flow.name == deployment.name
    assert flow.description
    assert "Args:" not in flow.description
    for name, field in flow.parameters.properties.items():
        assert field.get("description"), f"{deployment.name}: {name} is not described"
        assert {"type", "anyOf", "$ref", "allOf"} & set(field), f"{deployment.name}: {name} has no type"


@BY_NAME
def test_every_flow_ends_some_time_and_tells_why_it_failed(deployment: Deployment) -> None:
    """A flow has a time-out, and the hooks that write a sentence into its log."""
    flow = deployment.load()

    assert flow.timeout_seconds
    assert [hook.__name__ for hook in flow.on_failure_hooks] == ["explain"]
    assert [hook.__name__ for hook in flow.on_crashed_hooks] == ["explain"]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("retrain", {"loop_id": "no loop/at all"}),
        ("evaluate", {"loop_id": "a", "policy": {"kind": "best"}}),
        ("watch", {"days": 0}),
        ("backfill", {"definition": {"loop": "a"}}),
    ],
)
def test_wrong_parameters_are_refused_before_anything_runs(name: str, parameters: dict[str, Any]) -> None:
    """What the page and the API are given is checked by type, limits and the loop's own rules."""
    flow = named([name])[0].load()

    with pytest.raises(ParameterTypeError):
        flow.validate_parameters(parameters)
