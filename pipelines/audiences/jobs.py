"""A send decided in a process of its own: started by the API, ends with it, and is started again after it.

    python -m pipelines.audiences.jobs <folder>

The audience is read as NDJSON, whatever its parts hold: rows that cannot be used are told by their line, counted over
all parts.
"""

import shutil
import sys
from pathlib import Path

import msgspec

from infra.drafts import replacing
from infra.errors import RewardloopError
from infra.logs import log
from pipelines.audiences.deciding import Desk, Report, Send, decide
from pipelines.audiences.folders import Failure, Folder, Order
from pipelines.commands.workspace import open_workspace


def run(folder: Folder, desk: Desk) -> None:
    """Decide the send of a folder, and write there what became of it. Raises :class:`Conflict` when another does."""
    with folder.held():
        folder.forget_last_run()
        order = folder.order
        try:
            report = _decided(folder, order, desk)
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


def main() -> None:
    """Decide the send of the folder that is named."""
    workspace = open_workspace()
    desk = Desk(workspace.engine, workspace.secrets, workspace.settings, workspace.clock)
    run(Folder(Path(sys.argv[1])), desk)


if __name__ == "__main__":
    main()
