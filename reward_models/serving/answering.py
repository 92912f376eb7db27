"""The answer to a question, out of the decision: a document that FastAPI checks against ``RankAnswer``, or that is written
as it is."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from infra.secrets import Secrets
from ingestion.events import Decision
from ingestion.links import make_link
from ingestion.tokens import make_token

NO_LINKS: Mapping[str, str] = {}


class Shape(NamedTuple):
    """What a request says of the answer alone."""

    links: Mapping[str, str] = NO_LINKS
    public_url: str = ""
    explain: bool = False


PLAIN = Shape()


def answer_of(decision: Decision, durable: bool, secrets: Secrets, shape: Shape = PLAIN) -> dict[str, Any]:
    """The fields of ``RankAnswer``. ``durable``: it is stored; else it has no token, and its links are plain."""
    return {
        "decision_id": decision.decision_id,
        "token": make_token(secrets, decision.decision_id) if durable else None,
        "ranked": _ranked(decision, durable, secrets, shape),
        "group": decision.group,
        "learning_mode": decision.learning_mode,
        "model_version": decision.model_version,
        "policy_version": decision.policy_version,
        "durable": durable,
        "excluded": [{"content_id": one.content_id, "reason": one.reason} for one in decision.excluded],
        "withheld": decision.constraints.get("withheld"),
        "candidates": [msgspec.structs.asdict(one) for one in decision.candidates] if shape.explain else None,
    }


def _ranked(decision: Decision, durable: bool, secrets: Secrets, shape: Shape) -> list[dict[str, Any]]:
    """The chosen contents, then the others by score."""
    scores = {one.content_id: one.score for one in decision.candidates}
    ranked = [
        {
            "content_id": one.content_id,
            "position": one.position,
            "score": scores[one.content_id],
            "propensity": one.propensity,
            "links": _links(decision.decision_id, one.position, durable, secrets, shape) if shape.links else None,
        }
        for one in decision.chosen
    ]
    shown = {one.content_id for one in decision.chosen}
    others = sorted((-(score or 0.0), name) for name, score in scores.items() if name not in shown)
    ranked += [
        {"content_id": name, "position": place, "score": scores[name], "propensity": None, "links": None}
        for place, (_, name) in enumerate(others, len(ranked) + 1)
    ]
    return ranked


def _links(decision_id: str, position: int, durable: bool, secrets: Secrets, shape: Shape) -> dict[str, str]:
    """What to put into the copy: signed links; the plain addresses when there is no decision to credit."""
    if not durable:
        return dict(shape.links)
    return {name: make_link(secrets, shape.public_url, decision_id, position, url) for name, url in shape.links.items()}
