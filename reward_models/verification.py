"""The sacrificial process: a damaged LightGBM file kills the process that parses it, so it is not the server's.

``Verifier`` starts ``python -m reward_models.verification`` and sends it bundles; that process imports everything
once and forks a child per bundle, which parses it under a memory limit, checks the golden rows and dies. A child
that crashes, hangs or disagrees means: refused. The order in the child: 1 limits, 2 anatomy,
3 parse, 4 golden rows, 5 answer.

    with Verifier() as verifier:
        verifier.check(bundle)      raises ModelRefused

Frames on the pipes are an 8-byte length and msgpack. This module imports LightGBM where it is used: so a command can
start the process first and import meanwhile.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

import msgspec

from infra.errors import ModelRefused

if TYPE_CHECKING:
    from reward_models.boosted import RewardModel
    from reward_models.bundle import Bundle

SECONDS = 60.0
"""How long parsing and checking one bundle may take."""

_MEMORY = 4 << 30
_STARTUP = 120.0


def check_golden(model: RewardModel) -> None:
    """Raises :class:`ModelRefused` unless the model gives its golden scores."""
    import numpy as np

    from reward_models.golden import close

    golden = model.golden
    if not golden.rows or not golden.examples:
        raise ModelRefused("The bundle holds no golden rows to check it by; train the loop again")
    if model.booster.num_feature() != len(model.schema.columns):
        raise ModelRefused(
            f"The trees read {model.booster.num_feature()} columns, the schema has {len(model.schema.columns)}"
        )
    examples = golden.examples
    whole = model.rows(
        [example.context for example in examples],
        [example.content for example in examples],
        [example.position for example in examples],
    )
    rows, scores = golden.matrix, np.array(golden.scores)
    masked = model.masked(rows)
    rows_agree = close(model.relative(rows), scores) and (masked is None or close(masked, scores))
    if not (rows_agree and close(whole, np.array([example.score for example in examples]))):
        raise ModelRefused("The model does not give the scores it was packed with; the bundle is damaged")


class Verifier:
    """A process that parses bundles so that this one does not have to. Not for several threads at once."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self.seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process now, so that it is ready when a bundle is to be checked."""
        self._started()

    def check(self, bundle: Bundle) -> None:
        """Parse and check a bundle elsewhere. Raises :class:`ModelRefused` with the reason."""
        try:
            process = self._started()
            _send(_pipe(process.stdin), {"seconds": self.seconds, "files": dict(bundle)})
            answer = _receive(_pipe(process.stdout), self.seconds + _STARTUP)
        except (OSError, EOFError, TimeoutError):
            self.stop()
            raise ModelRefused("The process that verifies models died or hung; the bundle is not used") from None
        if answer["reason"]:
            raise ModelRefused(answer["reason"])

    def stop(self) -> None:
        """End the process, if it runs."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.stop()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "reward_models.verification"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=Path(__file__).parents[1],
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                start_new_session=True,
            )
        return self._process


def main() -> None:
    """Answer requests on standard input until it closes."""
    import reward_models.bundle  # noqa: F401  # once, not in every child

    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    while True:
        try:
            request = _receive(sys.stdin.buffer, None)
        except EOFError:
            return
        _send(answers, {"reason": _in_a_child(request["files"], request["seconds"])})


def _in_a_child(bundle: Bundle, seconds: float) -> str:
    """Why the bundle is refused; empty when it is good."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _judge(bundle, writer)
    os.close(writer)
    verdict = _read_until(reader, time.monotonic() + seconds)
    os.close(reader)
    if verdict is None:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if verdict is None:
        return f"Parsing the model did not end within {seconds:g} seconds; the bundle is damaged"
    if os.WIFSIGNALED(status) or not verdict:
        return f"Parsing the model killed the process that tried ({_death(status)}); the bundle is damaged"
    return "" if verdict == b"good" else verdict.decode()


def _judge(bundle: Bundle, writer: int) -> None:
    """In the child; does not return."""
    from reward_models.bundle import unpack

    verdict = b"good"
    try:
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        check_golden(unpack(bundle))
    except ModelRefused as refused:
        verdict = str(refused).encode()
    except BaseException as error:
        verdict = f"The model cannot be parsed: {error!r}"[:500].encode()
    os.write(writer, verdict)
    os._exit(0)


def _read_until(reader: int, deadline: float) -> bytes | None:
    """Everything up to the end of the pipe; None if it does not end by the deadline."""
    found = b""
    while True:
        ready, _, _ = select.select([reader], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return None
        part = os.read(reader, 65_536)
        if not part:
            return found
        found += part


def _death(status: int) -> str:
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}"


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise OSError("the process has no pipe")
    return pipe


def _send(pipe: IO[bytes], message: dict[str, Any]) -> None:
    body = msgspec.msgpack.encode(message)
    pipe.write(len(body).to_bytes(8, "big") + body)
    pipe.flush()


def _receive(pipe: IO[bytes], seconds: float | None) -> Any:
    if seconds is not None and not select.select([pipe], [], [], seconds)[0]:
        raise TimeoutError
    size = int.from_bytes(_exactly(pipe, 8), "big")
    return msgspec.msgpack.decode(_exactly(pipe, size))


def _exactly(pipe: IO[bytes], size: int) -> bytes:
    body = pipe.read(size)
    if len(body) < size:
        raise EOFError
    return body


if __name__ == "__main__":
    main()
