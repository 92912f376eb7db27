"""The Prompt-OIRL logs as a table of answers: arithmetic questions, prompts, and whether the answer was right.

    load_answers(draw) -> PromptLog        "all": the six prompts every question was asked with, all 7,685 draws of 1,744 questions
                                           "train", "test": the published split of them

Every question is asked some four times because five folds' training sets were put together; every question of the published test
split is in its training split too. Groups are templates, the question with numbers and names masked: 1,165 of them.

Source: Sun, Hüyük and van der Schaar 2024 (ICLR), MIT licence.
"""

import csv
import gzip
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from reward_models.prompts.logs import Answer, PromptLog, log_of

FOLDER = Path(os.environ.get("REWARDLOOP_DATA", Path(__file__).parents[3] / "shared" / "data")) / "prompt_oirl"
PROMPTS = 6
"""The prompts that both splits were asked with."""


def load_answers(split: Literal["all", "train", "test"] = "all") -> PromptLog:
    """The log. Ends the benchmark when the data is not there."""
    questions = {(row["split"], row["query_idx"]): row["question"] for row in _rows("mawps_queries.csv.gz")}
    return log_of(
        Answer(questions[row["split"], row["query_idx"]], f"prompt {row['prompt_idx']}", float(row["correct"]))
        for row in _rows("mawps_labels.csv.gz")
        if int(row["prompt_idx"]) < PROMPTS and split in ("all", row["split"])
    )


def _rows(name: str) -> Iterator[dict[str, str]]:
    path = FOLDER / name
    if not path.is_file():
        sys.exit(f"{path} is not there; set REWARDLOOP_DATA to the folder with the real data sets")
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)
