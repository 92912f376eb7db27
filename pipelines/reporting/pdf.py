"""A page as PDF, printed by a browser of this machine: Chromium or Chrome, without network or profile.

The page forbids scripts itself; a browser in which they are off altogether does not print.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path

from infra.logs import log

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PATIENCE = 120.0
"""Seconds that printing may take."""
_OPTIONS = (
    "--headless",
    "--no-sandbox",  # the page is ours, has no scripts and loads nothing; a container's user may not make sandboxes
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--no-pdf-header-footer",
)


def browser() -> str | None:
    """The path of a browser, if there is one."""
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


def printed(page: bytes) -> bytes | None:
    """The page as PDF. None without a browser, or if it does not manage: then the page itself is what there is."""
    program = browser()
    if program is None:
        return None
    with tempfile.TemporaryDirectory(prefix="rewardloop-print-", ignore_cleanup_errors=True) as folder:
        source, target = Path(folder) / "page.html", Path(folder) / "page.pdf"
        source.write_bytes(page)
        command = (program, *_OPTIONS, f"--user-data-dir={folder}/profile", f"--print-to-pdf={target}", source.as_uri())
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)  # noqa: S603 (found by its name)
            return target.read_bytes()
        except (OSError, subprocess.SubprocessError) as error:
            log.warning("no PDF: the browser did not print", reason=str(error).splitlines()[0][:200])
            return None
