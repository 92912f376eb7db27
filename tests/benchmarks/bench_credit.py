"""Credit against planted truths: of words, and of sends.

Words: click rates of campaigns are multiplied by what six planted words do; the reward model learns from the results, and the
credit of each word, averaged over the contents that have it, is held against what was planted. Parts must sum to the
prediction, whatever the text.

Sends: customers get each of four campaigns or not, by chance; a send causes a purchase with the campaign's own probability,
after some days, and customers buy without any send too. So it is known which purchase was caused by which send. Two worlds:

    by chance    who gets what is decided by chance
    targeted     campaign D causes nothing and is sent to those who buy anyway

Each model's shares (four campaigns and nobody) are held against the true ones: half the sum of absolute differences, 0 is
right, 1 is all wrong.
"""

import os
import time
from collections.abc import Mapping

import numpy as np
from scipy.stats import spearmanr

from infra.clock import DAY
from ingestion.events import Content
from ingestion.loops import ModelSettings
from reward_models.boosted import RewardModel, fit
from reward_models.credit.copy import credit_copy, earned
from reward_models.credit.paths import Journey, Purchase, Touch
from reward_models.credit.sends import SendSettings, credit_sends
from tests.benchmarks.harness import Goal, finish
from tests.reward_models.training import ADJECTIVES, NOUNS, copy, history, training_set

QUICK = bool(os.environ.get("REWARDLOOP_BENCH_QUICK"))
WORLDS = 2 if QUICK else 8
CAMPAIGNS = 80 if QUICK else 200
CUSTOMERS = 4_000 if QUICK else 20_000

PLANTED: Mapping[str, float] = {
    "secret": 0.5,
    "free": 0.3,
    "today": 0.15,
    "official": -0.1,
    "urgent": -0.25,
    "boring": -0.4,
}
"""Log of what a word does to the click rate."""
CAUSES: Mapping[str, float] = {"A": 0.005, "B": 0.02, "C": 0.05, "D": 0.0}
"""Chance that a send of the campaign causes a purchase."""
ORGANIC = 0.06
"""Purchases of a customer in the eight weeks that nothing caused."""
WEEKS = 8


def world_of_words(seed: int) -> tuple[RewardModel, tuple[Content, ...], np.ndarray]:
    """A model of past results, the copy it learned from, and how often each was sent."""
    random = np.random.default_rng([1, seed])
    contents, rates = [], []
    for campaign in range(CAMPAIGNS):
        base = float(np.exp(random.uniform(np.log(0.01), np.log(0.05))))
        for arm in range(5):
            planted = [word for word in PLANTED if random.random() < 0.25]
            words = [*random.choice(ADJECTIVES, 2), *random.choice(NOUNS, 2), *planted]
            text = " ".join(random.permutation(words))
            effect = sum(PLANTED[word] for word in planted) + 0.05 * random.normal()
            contents.append(copy(f"k{campaign}-{arm}", f"{text} x{campaign}y{arm}", f"c{campaign}"))
            rates.append(float(random.binomial(10_000, min(base * np.exp(effect), 1.0))) / 10_000)
    sent = np.full(len(contents), 10_000.0)
    model = fit(training_set(contents, history(contents, sent.tolist(), rates)), ModelSettings(rounds=60, min_leaf=10))
    return model, tuple(contents), sent


def words(seed: int) -> dict[str, float]:
    """Of one world: how the credit of words agrees with what was planted."""
    model, contents, sent = world_of_words(seed)
    begun = time.process_time()
    found = credit_copy(model, contents)
    seconds = time.process_time() - begun
    expected = model.grid([{}], list(contents))[0]
    apart = [abs(sum(part.effect for part in one.parts) - wanted) for one, wanted in zip(found, expected, strict=True)]
    of_word = {row.what: row.per_send for row in earned(found, sent.tolist()) if row.kind == "word"}
    planted = [PLANTED[word] for word in PLANTED]
    credited = [of_word[word] for word in PLANTED]
    usual = max(abs(of_word.get(word, 0.0)) for word in (*ADJECTIVES, *NOUNS))
    return {
        "rank correlation": float(spearmanr(planted, credited).statistic),
        "right sign": float(np.mean(np.sign(planted) == np.sign(credited))),
        "weakest planted over strongest other": float(min(map(abs, credited)) / usual),
        "largest error of a sum": float(max(apart)),
        "milliseconds a content": 1_000.0 * seconds / len(contents),
    }


def journeys(seed: int, targeted: bool) -> tuple[list[Journey], dict[str, float]]:
    """Customers, and the true share of each campaign and of nobody in what they bought."""
    random = np.random.default_rng([2, seed, targeted])
    caused, found = dict.fromkeys([*CAUSES, "nobody"], 0), []
    for number in range(CUSTOMERS):
        lively = 2.0 if random.random() < 0.3 else 4.0 / 7.0
        touches, bought = [], []
        for campaign, chance in CAUSES.items():
            gets = 0.9 if lively > 1.0 else 0.2
            if random.random() < (gets if targeted and campaign == "D" else 0.5):
                at = int(random.integers(0, WEEKS * 7 * DAY))
                touches.append(Touch(f"{number}{campaign}", campaign, at))
                if random.random() < chance:
                    caused[campaign] += 1
                    bought.append(at + int(random.exponential(3.0) * DAY))
        organic = int(random.poisson(ORGANIC * lively))
        caused["nobody"] += organic
        bought += [int(random.integers(0, (WEEKS + 2) * 7 * DAY)) for _ in range(organic)]
        touches.sort(key=lambda touch: touch.at)
        found.append(Journey(str(number), tuple(touches), tuple(Purchase(at, 1.0) for at in sorted(bought))))
    total = sum(caused.values())
    return found, {name: count / total for name, count in caused.items()}


def sends(seed: int, targeted: bool) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Shares by model, and the true ones."""
    people, truth = journeys(seed, targeted)
    found = credit_sends(people, SendSettings(lookback=WEEKS * 7 * DAY))
    shares = {
        model: {row.key: row.value[model] / found.total for row in found.rows} | {"nobody": nobody / found.total}
        for model, nobody in found.nobody.items()
    }
    return {str(model): parts for model, parts in shares.items()}, truth


def wrong(shares: Mapping[str, float], truth: Mapping[str, float]) -> float:
    """Half the sum of absolute differences."""
    return float(sum(abs(shares[name] - truth[name]) for name in truth) / 2.0)


def main() -> None:
    """Print the tables and the goals."""
    of_words = [words(seed) for seed in range(WORLDS)]
    mean = {name: float(np.mean([one[name] for one in of_words])) for name in of_words[0]}
    print("Words: " + "; ".join(f"{name} {value:.3g}" for name, value in mean.items()))
    figures: dict[str, object] = {"words": mean}
    errors: dict[bool, dict[str, float]] = {}
    for targeted in (False, True):
        drawn = [sends(seed, targeted) for seed in range(WORLDS)]
        errors[targeted] = _print_sends(drawn, targeted)
        figures["sends, targeted" if targeted else "sends, by chance"] = errors[targeted]
    rules = min(error for model, error in errors[False].items() if model != "Shapley")
    finish(
        "credit",
        [
            Goal("rank correlation of credited and planted words", mean["rank correlation"], ">= 0.9"),
            Goal("largest error of a sum", max(one["largest error of a sum"] for one in of_words), "<= 1e-9"),
            Goal("Shapley's error over the best other model's, by chance", errors[False]["Shapley"] / rules, "<= 0.5"),
        ],
        figures,
    )


def _print_sends(drawn: list[tuple[dict[str, dict[str, float]], dict[str, float]]], targeted: bool) -> dict[str, float]:
    names = [*CAUSES, "nobody"]
    print(f"\nSends, {'D targeted at buyers' if targeted else 'by chance'}: shares of what was bought")
    print(f"  {'':16}" + "".join(f"{name:>9}" for name in names) + f"{'wrong':>9}")
    truth = {name: float(np.mean([one[1][name] for one in drawn])) for name in names}
    print(f"  {'true':16}" + "".join(f"{truth[name]:9.1%}" for name in names))
    found = {}
    for model in drawn[0][0]:
        shares = {name: float(np.mean([one[0][model][name] for one in drawn])) for name in names}
        found[model] = float(np.mean([wrong(one[0][model], one[1]) for one in drawn]))
        print(f"  {model:16}" + "".join(f"{shares[name]:9.1%}" for name in names) + f"{found[model]:9.3f}")
    return found


if __name__ == "__main__":
    main()
