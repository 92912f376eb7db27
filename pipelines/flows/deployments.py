"""Which flows are deployed, and when they run unless somebody says otherwise. ``prefect.yaml`` says the same.

    list      this table
    deploy()  create or update them on the server, in the work pool ``rewardloop``: a worker runs them
    serve()   the same without a pool: this process runs them, until it is stopped

Times are UTC. An event starts one run, about the loop that it names (``matured.py``). That two runs of one loop exclude each
other, whoever started them, is the lease's business (``infra/leases.py``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from infra.errors import BadInput
from pipelines.flows import matured

POOL = "rewardloop"


@dataclass(frozen=True)
class Deployment:
    """A flow under its own name. ``cron``: when it runs; empty: when somebody asks for it. ``event``: what starts it too."""

    name: str
    entrypoint: str
    description: str
    cron: str = ""
    event: str = ""

    def load(self) -> Any:
        """The Prefect flow. Importing it takes seconds."""
        module, _, name = self.entrypoint.rpartition(".")
        return getattr(import_module(module), name)


DEPLOYMENTS = (
    Deployment(
        "retrain",
        "pipelines.flows.retrain.retrain",
        "Trains a loop's next reward model, judges it, and promotes it if it earned that.",
    ),
    Deployment(
        "retrain-when-due",
        "pipelines.flows.due.retrain_when_due",
        "Retrains every loop for which enough new outcomes matured.",
        "7 * * * *",
        matured.EVENT,
    ),
    Deployment(
        "evaluate",
        "pipelines.flows.evaluate.evaluate",
        "Says what any policy would have earned in any period.",
    ),
    Deployment(
        "generate",
        "pipelines.flows.generate.generate",
        "Writes copy for a campaign from its brief, and keeps the best that the loop's rules let pass.",
    ),
    Deployment(
        "promote",
        "pipelines.flows.promote.promote",
        "Promotes a version that passed, or goes back to one that served before.",
    ),
    Deployment(
        "report",
        "pipelines.flows.report.report",
        "Makes the weekly report of every loop, per campaign.",
        "0 5 * * 1",
    ),
    Deployment(
        "backfill",
        "pipelines.flows.backfill.backfill",
        "Measures history anew: new definition, replayed records, new attribution.",
    ),
    Deployment(
        "watch",
        "pipelines.flows.watch.watch",
        "Looks over every loop: drift, calibration, groups, joins, freshness, fading copy.",
        "30 4 * * *",
    ),
    Deployment(
        "maintain",
        "pipelines.flows.maintain.maintain",
        "Retention, deletion requests, the database's statistics, the ledger.",
        "30 3 * * *",
    ),
)


def named(names: Sequence[str]) -> list[Deployment]:
    """Those of these names; all without one. Raises :class:`BadInput` for a name that does not exist."""
    known = {one.name: one for one in DEPLOYMENTS}
    if unknown := sorted(set(names) - set(known)):
        raise BadInput(f"There is no flow {', '.join(map(repr, unknown))}; there are {', '.join(known)}")
    return [known[name] for name in names] or list(DEPLOYMENTS)


def serve(names: Sequence[str], at_once: int) -> None:
    """Run these flows when they are due or asked for, ``at_once`` at most, until this process is stopped."""
    from prefect import serve as serve_all

    serve_all(*(_prepared(one) for one in named(names)), limit=at_once)


def deploy(names: Sequence[str]) -> list[str]:
    """Create or update these deployments, and the pool they run in; returns what is there now."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate

    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process"), overwrite=True)
    for one in named(names):
        _prepared(one, work_pool_name=POOL).apply()
    return [f"{one.name}/{one.name}" for one in named(names)]


def trigger_of(one: Deployment) -> Any:
    """What Prefect keeps as an automation: each such event starts a run for its own loop."""
    from prefect.events import DeploymentEventTrigger

    return DeploymentEventTrigger(
        name=f"{one.name} at {one.event}",
        description=f"Runs {one.name} for the loop that the event names.",
        expect={one.event},
        match={"prefect.resource.id": f"{matured.RESOURCE}*"},
        for_each={"prefect.resource.id"},
        parameters={"loop_id": "{{ event.payload.loop_id }}"},
    )


def _prepared(one: Deployment, **more: Any) -> Any:
    from prefect.types.entrypoint import EntrypointType

    return one.load().to_deployment(
        one.name,
        cron=one.cron or None,
        triggers=[trigger_of(one)] if one.event else None,
        description=one.description,
        tags=["rewardloop"],
        entrypoint_type=EntrypointType.MODULE_PATH,
        **more,
    )
