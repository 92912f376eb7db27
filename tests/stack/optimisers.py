"""Two prompt optimisers that others wrote, with our reward model as their metric, against the stub language model.

    python -m tests.stack.optimisers dspy|mlflow <folder>

1. the simulator's past: lines of the templates with what they earned (normal noise about the true rate); a reward model learns it
2. the language model: writes a line with the factors its instruction names; asked for a better instruction, it names another factor each time
3. the optimiser searches, by ``CopyMetric`` alone
4. printed as JSON: start and result, and what lines by either are *truly* worth to the simulator's customers

A process of its own, because these libraries take seconds to import and set what is global.
"""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ingestion.events import Content
from ingestion.loops import ModelSettings
from pipelines.simulator import World, draw_customers, true_values
from pipelines.templates import FACTORS, read_factors, write_drafts, write_line
from reward_models.boosted import RewardModel, fit
from reward_models.dataset import History, TrainingSet
from reward_models.prompts.metric import CopyMetric
from tests.stack.stub_llm import Call, Reply, Say, StubLLM

START = "Write a plain subject line with urgency."
THEMES = ("winter coats", "garden chairs", "running shoes", "coffee makers")
WORLD = World(seed=3, quirk=0.0)
SENDS = 20_000.0


def main(optimiser: str, folder: Path) -> None:
    """Run one optimiser and print what it found."""
    os.environ |= {"OPENAI_API_KEY": "any", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "DSPY_CACHEDIR": str(folder)}
    os.chdir(folder)  # MLflow leaves its artifacts where it runs
    metric = CopyMetric(learned(), "subject")
    with StubLLM() as stub:
        stub.reply = Writer()
        os.environ |= {"OPENAI_API_BASE": stub.url, "OPENAI_BASE_URL": stub.url}
        found = {"dspy": by_dspy, "mlflow": by_mlflow}[optimiser](stub, metric, folder)
        calls = len(stub.calls)
    sys.stdout.write(json.dumps({"found": found, "calls": calls, "before": worth(START), "after": worth(found)}) + "\n")


def learned() -> RewardModel:
    """A reward model of past results: 8 campaigns of 12 lines."""
    random = np.random.default_rng(1)
    contents, rates = [], []
    for number in range(8):
        for place, draft in enumerate(write_drafts(THEMES[number % len(THEMES)], 12, seed=number)):
            contents.append(
                Content(content_id=f"k{number}-{place}", campaign_id=f"c{number}", slots={"subject": draft.subject})
            )
            rates.append(clicks(draft.subject))
    rate = np.array(rates)
    seen = np.maximum(rate + random.normal(0, np.sqrt(rate / SENDS)), 0.0)
    shown = np.full(len(rate), SENDS)
    past = History(np.arange(len(rate)), shown, {"click": seen}, seen, seen.copy(), np.ones(len(rate), np.bool_))
    none: tuple[()] = ()
    ints, floats = np.zeros(0, dtype=np.int64), np.zeros(0)
    training = TrainingSet(
        loop_id="mail", loop_version=1, as_of=1, contents=tuple(contents), decision_id=none, unit=none, decided_at=ints,
        contexts=none, content=ints, position=ints, propensity=floats, holdout=floats, group=none, learning_mode=none,
        candidates=none, metrics={"click": floats}, reward=floats, history=past,
    )  # fmt: skip
    return fit(training, ModelSettings(rounds=40))


def clicks(line: str) -> float:
    """What a line is truly worth: clicks per customer."""
    customers = draw_customers(WORLD, np.random.default_rng(9), 60)
    return float(true_values(WORLD, customers, [read_factors(line)]).click.mean())


def worth(instruction: str) -> float:
    """Clicks of lines that the language model writes by an instruction, over themes."""
    write = Writer()
    return float(np.mean([clicks(write.line(f"{instruction}\ntheme: {theme}")) for theme in THEMES]))


class Writer:
    """The language model."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(4)
        self._asked = 0

    def __call__(self, call: Call) -> Reply:
        """A better instruction where one is asked for, else a line."""
        if "proposed_instruction" in call.text:
            return Say(
                self._fields(proposed_instruction=self.instruction(), proposed_prefix_for_output_field="Subject:")
            )
        if "write a new instruction" in call.text:
            return Say(f"```\n{self.instruction()} theme: {{{{theme}}}}\n```")
        line = self.line(call.text)
        return Say(self._fields(subject=line) if "[[ ## subject ## ]]" in call.text else line)

    def instruction(self) -> str:
        """One factor after the other, those that cost clicks among them."""
        factor = FACTORS[self._asked % len(FACTORS)]
        self._asked += 1
        return f"Write a subject line with a {factor}."

    def line(self, prompt: str) -> str:
        """About the last theme, with the factors that the instruction names."""
        theme = re.findall(r"theme(?:: | ## \]\]\n)([a-z ]+)", prompt)[-1].strip()
        told = prompt.split("adhering to this structure")[-1]
        return write_line(theme, {name: int(f" {name}" in told) for name in FACTORS}, self._random)

    def _fields(self, **values: str) -> str:
        return (
            "\n\n".join(f"[[ ## {name} ## ]]\n{value}" for name, value in values.items()) + "\n\n[[ ## completed ## ]]"
        )


def by_dspy(stub: StubLLM, metric: CopyMetric, folder: Path) -> str:
    """COPRO: new instructions by a language model, the best by the metric stays."""
    import dspy

    model = dspy.LM("openai/stub-1", api_base=stub.url, api_key="any", cache=False)
    dspy.configure(lm=model)
    program = dspy.Predict(dspy.Signature("theme -> subject", START))
    examples = [dspy.Example(theme=theme, subject="").with_inputs("theme") for theme in THEMES]
    search = dspy.COPRO(prompt_model=model, metric=metric.of_field("subject"), breadth=len(FACTORS) + 1, depth=1)
    options: dict[str, Any] = {"num_threads": 1, "display_progress": False, "display_table": 0}
    return str(search.compile(program, trainset=examples, eval_kwargs=options).signature.instructions)


def by_mlflow(stub: StubLLM, metric: CopyMetric, folder: Path) -> str:
    """GEPA through ``mlflow.genai.optimize_prompts``, on a prompt of MLflow's registry."""
    import mlflow
    from mlflow.genai.optimize import GepaPromptOptimizer
    from mlflow.genai.scorers import scorer
    from openai import OpenAI

    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    mlflow.set_experiment("prompts")
    prompt = mlflow.genai.register_prompt(name="subject", template=f"{START} theme: {{{{theme}}}}")
    client = OpenAI(base_url=stub.url, api_key="any")

    def write(theme: str) -> str:
        text = mlflow.genai.load_prompt(prompt.uri).format(theme=theme)
        answer = client.chat.completions.create(model="stub-1", messages=[{"role": "user", "content": text}])
        return answer.choices[0].message.content or ""

    judged: Any = scorer(name="earns")(lambda outputs: metric(str(outputs)))
    result = mlflow.genai.optimize_prompts(
        predict_fn=write,
        train_data=[{"inputs": {"theme": theme}} for theme in THEMES],
        prompt_uris=[prompt.uri],
        optimizer=GepaPromptOptimizer(reflection_model="openai:/stub-1", max_metric_calls=80),
        scorers=[judged],
    )
    return str(result.optimized_prompts[0].template)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
