"""The gate: may a challenger replace what is serving? (invariants 15 and 16)

Evidence is matured decisions after the cutoff, logged with known probabilities; the frozen challenger is the target,
what it would replace the reference. One test each, on the doubly robust difference clustered by unit:

    first, change   superiority        target − reference > 0               one-sided at α_k = 6α/(π²k²)
    refresh         non-inferiority    target − (1 ∓ margin)·reference > 0  one-sided at refresh_alpha

k counts the attempts since the last promoted change, this one included: Σ 6/(π²k²) = 1, so all of them together are
wrong with probability at most α, however often one tries. The model's own opinion (DM) never promotes anything.
"""

from dataclasses import dataclass
from math import floor, log10, pi
from typing import Literal

from infra.errors import BadInput, EstimateRefused
from ingestion.loops import GateSettings
from reward_models.offpolicy import Estimate, Floor, Logged, difference, dr

Kind = Literal["first", "change", "refresh"]
"""first: against the baseline; change: another configuration; refresh: the same configuration, new data."""
State = Literal["passed", "failed", "refused"]

_OPPONENT: dict[Kind, str] = {"first": "the baseline", "change": "the one serving", "refresh": "the one serving"}


@dataclass(frozen=True)
class Verdict:
    """``sentence`` says it to a marketer. Estimates are per decision; None where refused."""

    state: State
    sentence: str
    kind: Kind
    tries: int
    alpha_used: float
    margin: float
    """How much worse the challenger may be, reward per decision; 0 unless a refresh."""
    estimate: Estimate | None = None
    """Target minus reference; the test is whether ``low`` is above −``margin``."""
    target: Estimate | None = None
    reference: Estimate | None = None


def judge(
    evidence: Logged | None, settings: GateSettings, kind: Kind, tries: int = 1, unfit: str | None = None
) -> Verdict:
    """The verdict. evidence: None if no decision has a known probability. tries: attempts since the last promoted
    change, counting this one. unfit: why the log cannot be believed (``reward_models/health.py``)."""
    if tries < 1:
        raise BadInput(f"tries counts this attempt too, so it is at least 1, not {tries}")
    alpha = alpha_of(settings, kind, tries)
    if unfit is not None:
        return _refused(unfit.rstrip("."), kind, tries, alpha)
    if evidence is None or not len(evidence):
        return _refused(
            "after the cutoff no decision with a known probability has matured, and a model's opinion of itself "
            "promotes nothing",
            kind,
            tries,
            alpha,
        )
    try:
        return _test(evidence, settings, kind, tries, alpha)
    except EstimateRefused as error:
        return _refused(str(error), kind, tries, alpha)


def alpha_of(settings: GateSettings, kind: Kind, tries: int) -> float:
    """The error rate this attempt may spend."""
    return settings.refresh_alpha if kind == "refresh" else 6.0 * settings.alpha / (pi * tries) ** 2


def _test(evidence: Logged, settings: GateSettings, kind: Kind, tries: int, alpha: float) -> Verdict:
    floor = Floor(settings.min_units, settings.min_effective)
    level = 1.0 - 2.0 * alpha
    target = _valued("the new model", evidence, floor)
    reference = _valued(_OPPONENT[kind], evidence.judging_reference(), floor)
    margin = settings.margin * abs(reference.value) if kind == "refresh" else 0.0
    allowance = margin / reference.value if margin else 0.0
    contrast = difference(evidence, of_reference=1.0 - allowance, floor=floor, level=level)
    estimate = _shifted(contrast, -margin)
    state: State = "passed" if contrast.low > 0.0 else "failed"
    sentence = _sentence(state, estimate, kind, tries, margin)
    return Verdict(state, sentence, kind, tries, alpha, margin, estimate, target, reference)


def _valued(whose: str, evidence: Logged, floor: Floor) -> Estimate:
    try:
        return dr(evidence, floor=floor)
    except EstimateRefused as error:
        raise EstimateRefused(f"for {whose}: {str(error)[0].lower()}{str(error)[1:]}") from None


def _shifted(contrast: Estimate, by: float) -> Estimate:
    return Estimate(
        contrast.name,
        contrast.value + by,
        contrast.low + by,
        contrast.high + by,
        contrast.ess,
        contrast.n,
        contrast.clusters,
        contrast.note,
        contrast.level,
    )


def _refused(reason: str, kind: Kind, tries: int, alpha: float) -> Verdict:
    return Verdict("refused", f"Not judged: {reason[0].lower()}{reason[1:]}.", kind, tries, alpha, 0.0)


def _sentence(state: State, estimate: Estimate, kind: Kind, tries: int, margin: float) -> str:
    earns = (
        f"the new model earns between {per_1000(estimate.low)} and {per_1000(estimate.high)} per 1,000 decisions "
        f"more than {_OPPONENT[kind]} ({estimate.level:.1%} interval, {estimate.clusters:,} units)"
    )
    if kind == "refresh":
        bar = f"a refresh may be at most {per_1000(margin).lstrip('+')} per 1,000 worse"
    else:
        bar = "it would have to be clearly above 0"
    if state == "passed":
        return f"Passed: {earns}{f'; {bar}' if margin else ''}."
    again = f"; the interval is wide because this is attempt {tries} since the last change" if tries > 1 else ""
    return f"Not promoted: {earns}; {bar}{again if kind != 'refresh' else ''}."


def per_1000(value: float) -> str:
    """Three significant digits, and never an exponent: +1,250, −0.272."""
    scaled = 1000.0 * value
    digits = 0 if scaled == 0.0 else max(0, 2 - floor(log10(abs(scaled))))
    rounded = round(scaled, 2 - floor(log10(abs(scaled)))) if scaled else 0.0
    return f"{rounded:+,.{digits}f}".replace("-", "−")
