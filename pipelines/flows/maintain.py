"""The maintain flow: what is past its time goes, the forgotten stay forgotten, the database looks at itself."""

from infra.leases import lease
from pipelines.commands.workspace import open_workspace
from pipelines.flows.paper import INSTALLATION, Paper, joined
from pipelines.flows.shape import as_flow, as_task, each
from pipelines.flows.steps.tidying import TIDYING


@as_flow("maintain", minutes=180, paper=lambda paper: paper, after="What was done stays; the next run does the rest.")
def maintain() -> Paper:
    """Retention, deletion requests, the database's statistics, and whether the ledger adds up."""
    workspace = open_workspace()
    steps = {step.__name__: step for step in TIDYING}
    with lease(workspace.engine, "maintain"):
        papers, failures = each(tuple(steps), lambda name: as_task(steps[name], workspace))
    return joined(INSTALLATION, papers, failures)
