"""Draws docs/figures/explorer-image.png, explorer-findings.png and explorer-corrections.png: pages of the explorer.

The first and the last show the result of `klarsicht demo --out OUT`. The second shows a screening of its photographs
for all classes: `klarsicht audit run --model efficientnet-lite0 --data OUT/corpus-0-400/photographs.csv --target all
--out SCREENED`. It needs playwright, and Debian's Chromium.

python docs/figures/explorer_pages.py OUT/run SCREENED
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

HERE = Path(__file__).parent
FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
CARTON = 478


@contextmanager
def served(run: str) -> Iterator[str]:
    """Serve a run; yields the address."""
    words = [sys.executable, "-m", "klarsicht", "audit", "explore", run, "--no-browser", "--port", "0"]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        yield server.stdout.readline().split()[1]
    finally:
        server.kill()
        server.wait()


def save(page: Page, name: str, height: int) -> None:
    page.wait_for_timeout(2000)
    page.evaluate("document.querySelector('header').innerHTML = document.querySelector('header').innerHTML"
                  ".replace(/ on [^<]*[/]/, ' on ')")  # no folder of the machine  # fmt: skip
    page.screenshot(path=HERE / name, clip={"x": 0, "y": 0, "width": 1280, "height": height})


def main(run: str, screened: str) -> None:
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        with served(run) as address:
            page.goto(f"{address}#/class/{CARTON}")
            page.locator(".cell button").first.click()
            save(page, "explorer-image.png", 800)
            page.keyboard.press("Escape")
            page.goto(f"{address}#/corrections")
            save(page, "explorer-corrections.png", 560)
        with served(screened) as address:
            page.goto(f"{address}#/findings")
            page.wait_for_selector(".card")
            save(page, "explorer-findings.png", 800)
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
