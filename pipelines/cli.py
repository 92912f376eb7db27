"""The command line: ``rewardloop <command>``.

Commands live in ``pipelines/commands``, one module per group; each registers its own here. This file only wires
them and turns the error tree into one sentence on stderr and an exit code (``pipelines/commands/workspace.py``):
0 done, 1 bad input or setting, 2 wrong usage, 3 the gate refused or failed, 4 a dependency is down.
"""

import os
import sys
import traceback
from collections.abc import Sequence

import typer

from infra.errors import RewardloopError
from pipelines.commands import (
    approving,
    audiences,
    audit,
    backup,
    checkup,
    comparing,
    credit,
    demonstrations,
    episodes,
    events,
    exporting,
    flows,
    forgetting,
    generating,
    health,
    importing,
    judging,
    keys,
    learning,
    operating,
    planning,
    preferences,
    prompts,
    proving,
    rates,
    serving,
    streaming,
    suppressing,
    tokens,
    topics,
    units,
)
from pipelines.commands.workspace import FAILED, OK, UNAVAILABLE, err

app = typer.Typer(
    name="rewardloop",
    help="Joins clicks and purchases to the copy that caused them, learns what works, and picks the next copy.",
    epilog="Example: rewardloop import --mapping docs/examples/upworthy.toml upworthy_exploratory.csv.gz. "
    "Every command's own --help has another.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

approving.register(app)
rates.register(app)
audiences.register(app)
audit.register(app)
backup.register(app)
checkup.register(app)
comparing.register(app)
credit.register(app)
demonstrations.register(app)
episodes.register(app)
importing.register(app)
flows.register(app)
forgetting.register(app)
generating.register(app)
health.register(app)
judging.register(app)
keys.register(app)
learning.register(app)
preferences.register(app)
prompts.register(app)
proving.register(app)
operating.register(app)
planning.register(app)
events.register(app)
exporting.register(app)
tokens.register(app)
serving.register(app)
streaming.register(app)
suppressing.register(app)
topics.register(app)
units.register(app)


def main() -> None:
    """Entry point of the ``rewardloop`` script."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line; returns its exit code. Never prints a traceback, except at log level ``debug``."""
    try:
        app(list(arguments))
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else FAILED
    except KeyboardInterrupt:
        _say("Stopped.")
        return 130
    except RewardloopError as error:
        _say(str(error))
        return UNAVAILABLE if error.retriable else FAILED
    except Exception as error:
        _say(f"Unexpected {type(error).__name__}: {error} (set REWARDLOOP_LOG_LEVEL=debug to see where)")
        if os.environ.get("REWARDLOOP_LOG_LEVEL", "").lower() == "debug":
            traceback.print_exc()
        return FAILED
    return OK


def _say(sentence: str) -> None:
    err().print(" ".join(sentence.split()), style="bold red", markup=False, highlight=False, soft_wrap=True)
