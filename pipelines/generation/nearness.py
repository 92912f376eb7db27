"""How near a draft is to what it was written from: features of the content, which the reward model learns from like from any other.

    brief_similarity      of the copy and the campaign's brief
    prompt_similarity     of the copy and the prompt's own words, its variables left out

Cosine of TF-IDF, learned from brief, prompts, drafts and the loop's earlier copy; of embeddings where a server is configured
(``reward_models/embeddings.py``). The two have different scales, so while that server is away nothing is measured instead of the
other one. Measured once, to three decimals; the fingerprint leaves them out, so that the same line is one content whatever asked for it.
"""

from collections.abc import Sequence

import msgspec

from infra.errors import Unavailable
from infra.logs import log
from ingestion.copy.guardrails import text_of
from ingestion.events import MEASURED, Content
from pipelines.generation.prompts import VARIABLES, Prompt, render
from reward_models.distances import similarity
from reward_models.embeddings import Embedder
from reward_models.vectors import NO_VECTORS

DECIMALS = 3


def measured(
    contents: Sequence[Content], prompts: Sequence[Prompt], brief: str, known: Sequence[str], embedder: Embedder | None
) -> list[Content]:
    """The contents with their nearness, in order; ``prompts``: what wrote each. What has no words is not measured."""
    if not contents:
        return []
    texts = [text_of(content) for content in contents]
    origins = [[brief] * len(texts), [words(prompt) for prompt in prompts]]
    everything = [text for text in [*texts, *origins[0], *origins[1]] if text.strip()]
    try:
        vectors = NO_VECTORS if embedder is None else embedder.vectors(everything)
    except Unavailable as error:
        log.warning("copy_not_measured", reason=str(error))
        return list(contents)
    common = [*known, *everything]
    found = [similarity(origin, texts, vectors, common).tolist() for origin in origins]
    return [
        msgspec.structs.replace(content, features=content.features | _features(near))
        for content, near in zip(contents, zip(*found, strict=True), strict=True)
    ]


def words(prompt: Prompt) -> str:
    """What a prompt says itself."""
    return render(prompt, dict.fromkeys(VARIABLES, " "))


def _features(near: Sequence[float]) -> dict[str, float]:
    return {name: round(value, DECIMALS) for name, value in zip(MEASURED, near, strict=True) if value == value}
