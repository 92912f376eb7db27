"""A send decided in a process of its own: started by the API, ends with it, and is started again after it.

    python -m pipelines.audiences.jobs <folder> <descriptor of its lock>

The process inherits the folder's lock from whoever starts it, so nobody comes between, and lets go of it at the end. The
audience is read as NDJSON, whatever its parts hold: rows that cannot be used are told by their line, counted over all
parts.
"""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from infra.drafts import replacing
from infra.errors import RewardloopError
from infra.logs import log
from pipelines.audiences.deciding import Desk, Report, Send, decide
from pipelines.audiences.folders import Failure, Folder, Order
from pipelines.commands.workspace import open_workspace


def run(folder: Folder, opened: Callable[[], Desk]) -> None:
    """Decide the send of a folder that this process holds, and write there what became of it, also where what it is
    decided on cannot be opened."""
    order = folder.order
    try:
        report = _decided(folder, order, opened())
    except RewardloopError as error:
        folder.write("failed.json", msgspec.json.encode(Failure(str(error), error.retriable)))
    except Exception as error:
        log.error("send_failed", send=order.send, exc_info=error)
        detail = f"Something broke ({type(error).__name__}); see the server's log, then start it again"
        folder.write("failed.json", msgspec.json.encode(Failure(detail, True)))
    else:
        folder.write("report.json", msgspec.json.encode(report))


def _decided(folder: Folder, order: Order, desk: Desk) -> Report:
    audience = folder.path / "audience.ndjson"
    with replacing(audience) as whole:
        for part in folder.parts:
            with part.open("rb") as file:
                shutil.copyfileobj(file, whole)
    send = Send(
        name=order.send,
        campaign=order.campaign,
        source=audience,
        destination=folder.result,
        loop=order.loop,
        links=order.links,
        resume=True,
    )
    report = decide(desk, send, lambda rows, _done, _size: folder.write("progress.json", msgspec.json.encode(rows)))
    audience.unlink()
    report.output = report.rejects = None
    return report


def _desk() -> Desk:
    workspace = open_workspace()
    return Desk(workspace.engine, workspace.secrets, workspace.settings, workspace.clock)


def main() -> None:
    """Decide the send of the folder that is named, under the lock that is handed over."""
    folder, lock = sys.argv[1:]
    with open(int(lock), "ab"):
        run(Folder(Path(folder)), _desk)


if __name__ == "__main__":
    main()
