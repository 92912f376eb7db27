"""Judges whose taste is known, of answers that are made up: what the words of headlines cannot show of other preference data.

    chat_answers(pairs, seed) -> Pairs     two answers to a question; the judge likes concrete words, a list, an answer that is near the
                                           question, length up to a point, and errs as people do (a logistic choice)

Answers of one question are one group. Lengths vary widely, so "the longer one wins" is a strong rule here, as it is with people.
"""

import numpy as np

from reward_models.preferences.pairs import Pairs, groups_of

_TOPICS = (
    "refund",
    "invoice",
    "password",
    "delivery",
    "subscription",
    "warranty",
    "size",
    "discount",
    "account",
    "return",
)
_PLACES = ("shop", "app", "website", "store", "catalogue", "newsletter", "hotline", "branch")
_GOOD = ("because", "example", "first", "then", "minutes", "today", "exactly", "free", "number", "link")
_POOR = ("maybe", "generally", "various", "things", "somehow", "perhaps", "basically", "stuff")
_PLAIN = ("the", "you", "can", "it", "is", "with", "for", "our", "team", "and", "to", "of", "we", "will", "this", "in")


def chat_answers(pairs: int, seed: int) -> Pairs:
    """Pairs of answers, n of them."""
    random = np.random.default_rng(seed)
    first, second, prompts = [], [], []
    worth = np.zeros((pairs, 2))
    for row in range(pairs):
        topic, place = random.choice(_TOPICS), random.choice(_PLACES)
        prompt = f"Question {row}: how do I get my {topic} sorted in the {place}?"
        made = [_answer(random, str(topic), str(place)) for _ in range(2)]
        worth[row] = [one[1] for one in made]
        first.append(made[0][0])
        second.append(made[1][0])
        prompts.append(prompt)
    chance = 1.0 / (1.0 + np.exp(-(worth[:, 0] - worth[:, 1])))
    won = random.random(pairs) < chance
    return Pairs(tuple(first), tuple(second), won, groups_of(first, second, prompts), tuple(prompts))


def _answer(random: np.random.Generator, topic: str, place: str) -> tuple[str, float]:
    length = int(random.integers(8, 90))
    good, poor = random.poisson(1.5), random.poisson(1.5)
    words = [
        *random.choice(_GOOD, good),
        *random.choice(_POOR, poor),
        *random.choice(_PLAIN, max(1, length - good - poor)),
    ]
    near, listed = random.random() < 0.6, random.random() < 0.4
    if near:
        words += [topic, place]
    random.shuffle(words)
    text = " ".join(words).capitalize() + "."
    if listed:
        cut = len(text) // 2
        text = f"{text[:cut]}\n- {text[cut:]}\n- {random.choice(_PLAIN)}"
    worth = 0.9 * good - 0.9 * poor + 1.2 * near + 0.8 * listed + 1.5 * np.log1p(min(length, 60))
    return text, float(worth)
