"""The generate flow: brief → prompts → generations → guardrails → scores → approval → campaign.

What the steps do is in ``pipelines/generation/steps.py``. Nothing is stored before the last of them.
"""

from infra.errors import BadInput
from infra.settings import load_settings
from ingestion.loops import LoopId
from pipelines.flows.shape import as_flow, as_task
from pipelines.generation import steps
from pipelines.generation.outcome import Made, Wish
from pipelines.generation.telling import paper_of
from pipelines.learning import open_bench


@as_flow(
    "generate", minutes=120, paper=paper_of, after="Nothing was stored; tokens that were used up to then were spent."
)
def generate(
    loop_id: LoopId,
    campaign_id: str,
    count: int = 8,
    candidates: int = 8,
    slots: tuple[str, ...] = ("subject",),
    locale: str | None = None,
    examples: int = 5,
    prompts: tuple[str, ...] = (),
) -> Made:
    """Write copy for a campaign from its brief, hold it against the loop's rules, and keep the best of it.

    Args:
        loop_id: The loop, for example `email-subjects`.
        campaign_id: The campaign of the loop whose brief is written for.
        count: Contents to keep.
        candidates: Drafts per content that is kept.
        slots: What is written: `subject`, `preheader`, `body`, `cta` …
        locale: Language of the copy, like `en-GB`; empty: the brief's.
        examples: Earlier winners, and losers, that are shown to the generator.
        prompts: Only these prompts; empty: all, by what their copy earned.
    """
    bench = open_bench(load_settings())
    wish = Wish(
        campaign_id=campaign_id,
        count=count,
        candidates=candidates,
        slots=tuple(slots),
        locale=locale,
        examples=examples,
        prompts=tuple(prompts),
    )
    if (found := steps.loop_of(bench, campaign_id)) != loop_id:
        raise BadInput(f"Campaign {campaign_id!r} belongs to loop {found!r}, not {loop_id!r}; name its own loop")
    return steps.generate(bench, wish, run=as_task)
