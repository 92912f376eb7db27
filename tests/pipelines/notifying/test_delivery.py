"""Notices reach their targets, are tried again where that helps, and never show a secret."""

import hashlib
import hmac
import json
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from infra.errors import Misconfigured
from infra.settings import Settings
from pipelines.notifying.delivery import SIGNATURE, TRIES, deliver, notify
from pipelines.notifying.notices import Notice, failed
from pipelines.notifying.targets import Email, PrefectBlock, Slack, Target, Webhook, load_targets
from tests.pipelines.notifying.servers import mail, web

NOTICE = failed("retrain", "mail", "The <b>database</b> & more went away.")
SECRET = "canary-of-a-secret"


def nowhere(_seconds: float) -> None:
    """Nobody waits in tests."""


def hook(port: int, **more: Any) -> Webhook:
    """A webhook whose address is a secret, as Slack's are."""
    return Webhook(name="ops", url=f"http://127.0.0.1:{port}/{SECRET}", **more)


def letter(port: int, **more: Any) -> Email:
    """A mail through a server on this machine."""
    to = ("ann@example.com", "bob@example.com")
    where: dict[str, Any] = {"server": "127.0.0.1", "port": port, "encryption": "none", "sender": "loop@example.com"}
    return Email(name="mail", to=to, **(where | more))


def test_a_webhook_gets_a_signed_document() -> None:
    """The signature covers the bytes as they are sent."""
    with web(200) as inbox:
        assert deliver([hook(inbox.port, secret=SECRET)], [NOTICE], nowhere) == {}

    ((headers, body),) = inbox.got
    assert json.loads(body) == {
        "kind": "failure",
        "flow": "retrain",
        "subject": "mail",
        "text": NOTICE.text,
        "title": "Rewardloop: retrain of mail failed",
    }
    assert headers[SIGNATURE] == f"sha256={hmac.digest(SECRET.encode(), body, hashlib.sha256).hex()}"


def test_slack_gets_text_and_no_markup_of_others() -> None:
    """What came in with copy mentions nobody and links nowhere."""
    with web(200) as inbox:
        slack = Slack(name="team", url=f"http://127.0.0.1:{inbox.port}/services/{SECRET}")
        assert deliver([slack], [failed("retrain", "mail", "<!channel> & <http://x|y>")], nowhere) == {}
    assert json.loads(inbox.got[0][1])["text"].endswith("&lt;!channel&gt; &amp; &lt;http://x|y&gt;")


def test_a_mail_reaches_all_its_readers() -> None:
    """One mail as plain text, with the title as its subject."""
    with mail(250) as inbox:
        assert deliver([letter(inbox.port)], [NOTICE], nowhere) == {}

    message = message_from_bytes(inbox.got[0][1], policy=default)
    assert (message["Subject"], message["To"]) == (NOTICE.title, "ann@example.com, bob@example.com")
    assert message.get_content().strip() == NOTICE.text


@pytest.mark.parametrize(
    ("statuses", "calls", "reached"),
    [((503, 429, 200), 3, True), ((500,), TRIES, False), ((404,), 1, False), ((302,), 1, False)],
)
def test_what_may_help_is_tried_again(statuses: tuple[int, ...], calls: int, reached: bool) -> None:
    """A server that is down or busy is asked again, with pauses that grow; one that refuses is not."""
    pauses: list[float] = []
    with web(*statuses) as inbox:
        failures = deliver([hook(inbox.port)], [NOTICE], pauses.append)

    assert (len(inbox.got), failures == {}) == (calls, reached)
    assert len(pauses) == calls - 1
    assert pauses == sorted(pauses)


@pytest.mark.parametrize(("status", "mails"), [(451, TRIES), (550, 1)])
def test_a_mail_server_that_is_busy_is_asked_again(status: int, mails: int) -> None:
    """4yz means later, 5yz never."""
    with mail(status) as inbox:
        tries: list[float] = []
        failures = deliver([letter(inbox.port)], [NOTICE], tries.append)
    assert failures == {"mail": f"the mail server answered {status}"}
    assert len(tries) == mails - 1


def test_one_that_is_away_does_not_stop_the_others() -> None:
    """Every target is tried; who was not reached is named."""
    with web(200) as inbox:
        gone = Webhook(name="gone", url="http://127.0.0.1:1/")
        assert deliver([gone, hook(inbox.port)], [NOTICE], nowhere).keys() == {"gone"}
    assert len(inbox.got) == 1


def test_a_target_may_want_some_kinds_only() -> None:
    """Others do not reach it."""
    with web(200) as inbox:
        asked = Notice(kind="approval", flow="retrain", subject="mail", text="Please.")
        deliver([hook(inbox.port, only=("approval",))], [NOTICE, asked], nowhere)
    assert [json.loads(body)["kind"] for _, body in inbox.got] == ["approval"]


def test_no_secret_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither the address of a hook nor a password, whatever goes wrong."""
    with web(404) as inbox, mail(550) as letters, capture_logs() as said:
        bad: list[Target] = [hook(inbox.port, secret=SECRET), letter(letters.port, user="u", password=SECRET)]
        failures = deliver(bad, [NOTICE], nowhere)
    assert failures.keys() == {"ops", "mail"}
    assert SECRET not in repr(said) + capsys.readouterr().err + repr(failures)
    assert len(said) == 2


def test_a_block_of_prefect_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The block is loaded by its name and told title and text."""
    from prefect.blocks.abstract import NotificationBlock
    from prefect.blocks.core import Block

    told: list[tuple[str, str | None]] = []

    class Kept(NotificationBlock):
        def notify(self, body: str, subject: str | None = None) -> None:  # type: ignore[override]
            told.append((body, subject))

    def load(name: str) -> Kept:
        if name != "slack-webhook/marketing":
            raise ValueError(name)
        return Kept()

    monkeypatch.setattr(Block, "load", load)
    found = [PrefectBlock(name="flow", block="slack-webhook/marketing"), PrefectBlock(name="no", block="a/b")]
    assert deliver(found, [NOTICE], nowhere) == {"no": "Prefect has no block a/b"}
    assert told == [(NOTICE.text, NOTICE.title)]


def written(path: Path, document: Any, mode: int = 0o600) -> Path:
    """The file of targets."""
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    path.chmod(mode)
    return path


def test_targets_are_read_from_a_file(tmp_path: Path) -> None:
    """Every kind, with what may be left out left out."""
    document = [
        {"name": "ops", "kind": "webhook", "url": "https://example.com/x", "only": ["failure"]},
        {"name": "team", "kind": "slack", "url": "https://hooks.slack.com/services/x"},
        {"name": "mail", "kind": "email", "server": "localhost", "sender": "a@example.com", "to": ["b@example.com"]},
        {"name": "flow", "kind": "prefect", "block": "slack-webhook/marketing"},
    ]
    found = load_targets(written(tmp_path / "targets.json", {"targets": document}))
    assert [type(target) for target in found] == [Webhook, Slack, Email, PrefectBlock]
    assert load_targets(None) == ()


@pytest.mark.parametrize(
    "document",
    [
        f"not JSON {SECRET}",
        {"targets": [{"name": "a", "kind": "pigeon", "url": SECRET}]},
        {"targets": [{"name": "a", "kind": "webhook", "url": f"ftp://{SECRET}"}]},
        {"targets": [{"name": "a", "kind": "slack", "url": "https://x", "token": SECRET}]},
        {"targets": [{"name": "a", "kind": "email", "server": "x", "sender": f"{SECRET}\nBcc: x@y", "to": ["a@b"]}]},
        {"targets": [{"name": "a", "kind": "email", "server": "x", "sender": "a@b", "to": []}]},
        {"targets": [{"name": "a", "kind": "slack", "url": "https://x"}] * 2},
    ],
)
def test_a_wrong_file_is_told_without_its_secrets(tmp_path: Path, document: Any) -> None:
    """The error says where and what to read; it does not quote what stands there."""
    with pytest.raises(Misconfigured) as error:
        load_targets(written(tmp_path / "targets.json", document))
    assert SECRET not in str(error.value)


def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    """It holds secrets."""
    with pytest.raises(Misconfigured, match="chmod 600"):
        load_targets(written(tmp_path / "targets.json", {"targets": []}, 0o644))


def test_a_wrong_file_stops_no_flow(tmp_path: Path) -> None:
    """What was done is done; the log says that nobody was told."""
    with capture_logs() as said:
        notify(Settings(notify_file=written(tmp_path / "targets.json", "{")), [NOTICE])
    assert [line["event"] for line in said] == ["notices_not_sent"]
