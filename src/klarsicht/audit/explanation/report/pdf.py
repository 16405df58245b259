"""The report of a run as a PDF file, printed by a Chromium that is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from klarsicht.ground.errors import MissingExtra, ProgramFailed
from klarsicht.ground.machine.disk import write_atomically

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
PRINTING_SECONDS = 300


def print_pdf(page: Path) -> Path:
    """Print a page beside itself as a PDF file; return the file. Raises MissingExtra where no browser of BROWSERS is
    installed, ProgramFailed where it prints nothing, and StoreError or DiskFull where the file cannot be written."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        remedy = f"Install one, or open {page} in your browser and print it."
        raise MissingExtra("no browser that prints pages", got="none of " + ", ".join(BROWSERS), remedy=remedy)
    with TemporaryDirectory() as folder:
        printed = Path(folder) / "report.pdf"
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer", f"--user-data-dir={folder}"]
        try:
            done = subprocess.run(
                [browser, *options, f"--print-to-pdf={printed}", page.absolute().as_uri()],
                capture_output=True,
                timeout=PRINTING_SECONDS,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ProgramFailed("the browser does not print", got=error, remedy="Print the page by hand.") from error
        if not printed.is_file():
            got = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no file"]
            raise ProgramFailed("the browser does not print", got=f"{browser}: {got[0]}", remedy="Print it by hand.")
        target = page.with_suffix(".pdf")
        write_atomically(target, printed.read_bytes())
    return target
