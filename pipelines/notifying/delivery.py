"""Notices delivered: to every target that wants them, with a few tries. What cannot be delivered stops nothing.

    deliver(targets, notices) -> {name of a target: why it was not reached}

A try that may help is made again after a growing pause: no answer, 429, 500 and above; other refusals are final. Logs name
targets, never their addresses. At least once: an answer that got lost brings a notice twice.

    webhook   POST {kind, flow, subject, title, text}, `X-Rewardloop-Signature: sha256=<HMAC of the body>` with a secret
    slack     POST {text}, in which <, > and & are what Slack wants them to be
    email     one mail as plain text to all addresses
    prefect   the block's own way
"""

import asyncio
import hashlib
import hmac
import smtplib
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable
from email.message import EmailMessage
from inspect import isawaitable
from itertools import islice
from typing import Any

import httpx2
import msgspec

from infra.backoff import delays
from infra.errors import RewardloopError
from infra.logs import log
from infra.settings import Settings
from pipelines.notifying.notices import Notice
from pipelines.notifying.targets import Email, PrefectBlock, Slack, Target, Webhook, load_targets

TRIES = 4
SECONDS = 10.0
"""How long one try may take."""
SIGNATURE = "X-Rewardloop-Signature"
_AGAIN = 429

Wait = Callable[[float], None]


class _Refused(Exception):
    """An answer that no further try changes."""


class _Away(Exception):
    """No answer, or one that asks for another try."""


def notify(settings: Settings, notices: Iterable[Notice]) -> None:
    """Deliver to the targets of an installation. Raises nothing: whoever calls has done its work."""
    notices = list(notices)
    if not notices:
        return
    try:
        deliver(load_targets(settings.notify_file), notices)
    except RewardloopError as error:
        log.error("notices_not_sent", reason=str(error))


def deliver(targets: Iterable[Target], notices: Iterable[Notice], wait: Wait = time.sleep) -> dict[str, str]:
    """Deliver every notice to every target that wants it; returns why others were not reached."""
    notices = list(notices)
    failures: dict[str, str] = {}
    for target in targets:
        for notice in notices:
            if target.wants(notice) and (reason := _delivered(target, notice, wait)) is not None:
                failures[target.name] = reason
                log.warning("notice_not_delivered", target=target.name, kind=notice.kind, reason=reason)
    return failures


def _delivered(target: Target, notice: Notice, wait: Wait) -> str | None:
    """None once it is there; else why it is not."""
    reason = ""
    for pause in (0.0, *islice(delays(1.0, 30.0), TRIES - 1)):
        if pause:
            wait(pause)
        try:
            _send(target, notice)
        except _Refused as refused:
            return str(refused)
        except _Away as away:
            reason = str(away)
        else:
            return None
    return reason


def _send(target: Target, notice: Notice) -> None:
    match target:
        case Webhook():
            _post(target.url, _document(notice), target.secret)
        case Slack():
            _post(target.url, msgspec.json.encode({"text": f"*{_escaped(notice.title)}*\n{_escaped(notice.text)}"}))
        case Email():
            _mail(target, notice)
        case PrefectBlock():
            _through_prefect(target.block, notice)


def _document(notice: Notice) -> bytes:
    return msgspec.json.encode(msgspec.structs.asdict(notice) | {"title": notice.title})


def _post(url: str, body: bytes, secret: str | None = None) -> None:
    headers = {"content-type": "application/json"}
    if secret is not None:
        headers[SIGNATURE] = f"sha256={hmac.digest(secret.encode(), body, hashlib.sha256).hex()}"
    try:
        answer = httpx2.post(url, content=body, headers=headers, timeout=SECONDS, follow_redirects=False)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise _Away(f"no answer ({type(error).__name__})") from None
    if answer.status_code == _AGAIN or answer.is_server_error:
        raise _Away(f"it answered {answer.status_code}")
    if not answer.is_success:
        raise _Refused(f"it answered {answer.status_code}")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _mail(target: Email, notice: Notice) -> None:
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = notice.title, target.sender, ", ".join(target.to)
    message.set_content(notice.text)
    secure = ssl.create_default_context()
    try:
        if target.encryption == "tls":
            server: smtplib.SMTP = smtplib.SMTP_SSL(target.server, target.port, timeout=SECONDS, context=secure)
        else:
            server = smtplib.SMTP(target.server, target.port, timeout=SECONDS)
        with server:
            if target.encryption == "starttls":
                server.starttls(context=secure)
            if target.user is not None:
                server.login(target.user, target.password or "")
            server.send_message(message)
    except smtplib.SMTPResponseException as error:
        final = error.smtp_code >= 500  # RFC 5321: 5yz is permanent
        raise (_Refused if final else _Away)(f"the mail server answered {error.smtp_code}") from None
    except smtplib.SMTPRecipientsRefused:
        raise _Refused("the mail server refused every address") from None
    except smtplib.SMTPNotSupportedError:
        raise _Refused("the mail server does not offer what is asked for; see `encryption` and `user`") from None
    except (OSError, smtplib.SMTPException) as error:
        raise _Away(f"no answer ({type(error).__name__})") from None


async def _awaited(sent: Awaitable[Any]) -> None:
    await sent


def _through_prefect(block: str, notice: Notice) -> None:
    """Load a notification block and let it send. Prefect takes seconds to import, so only here."""
    from prefect.blocks.abstract import NotificationBlock
    from prefect.blocks.core import Block

    try:
        found = Block.load(block)
    except ValueError:
        raise _Refused(f"Prefect has no block {block}") from None
    except Exception as error:
        raise _Away(f"Prefect does not answer ({type(error).__name__})") from None
    if not isinstance(found, NotificationBlock):
        raise _Refused(f"{block} is no notification block")
    try:
        with found.raise_on_failure():
            sent: Any = found.notify(body=notice.text, subject=notice.title)
            if isawaitable(sent):  # blocks of other packages may know the asynchronous way only
                asyncio.run(_awaited(sent))
    except Exception as error:  # whatever a block's library raises
        raise _Away(f"the block {block} did not send it ({type(error).__name__})") from None
