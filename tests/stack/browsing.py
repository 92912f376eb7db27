"""A real browser that notices whether anything in a page was run."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.conftest import find_browser

QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@dataclass
class Noticed:
    """What a page did that copy made it do: dialogs, and the mark that hostile copy leaves."""

    dialogs: list[str] = field(default_factory=list)
    marks: list[str] = field(default_factory=list)

    @property
    def nothing(self) -> bool:
        """Whether nothing was run."""
        return not self.dialogs and not self.marks


@contextmanager
def chromium() -> Iterator[Browser]:
    """This machine's browser, without network of its own."""
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=find_browser(), args=list(QUIET))
        try:
            yield browser
        finally:
            browser.close()


def watched(context: BrowserContext) -> tuple[Page, Noticed]:
    """A page of which is noticed whether it opened a dialog or ran what hostile copy asks for, in any of its frames."""
    page, noticed = context.new_page(), Noticed()

    def dismiss(dialog: Any) -> None:
        noticed.dialogs.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", dismiss)
    return page, noticed


def look_for_marks(page: Page, noticed: Noticed) -> None:
    """Ask every frame whether ``window.ran`` was set."""
    for frame in page.frames:
        if frame.evaluate("() => typeof window.ran !== 'undefined'"):
            noticed.marks.append(frame.url)
