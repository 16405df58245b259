"""Time of the explorer's pages in headless Chromium: a run of many classes, and one class of many images.

python benchmarks/audit/explorer.py --folder DIR [--classes 1000] [--each 1300] [--points 100000]

The runs are written without a model (tests/explorer/made_run.py); the first `IMAGES` images of each class have files.
Chromium draws by SwiftShader, without a GPU. Needs the extra `explore`, playwright, and Debian's chromium.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.explorer.made_run import SIDE, write_run

if TYPE_CHECKING:
    from playwright.sync_api import Page

IMAGES = 3
BROWSER = ("--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")

FILTER = """async (text) => {
  const input = document.querySelector('input[type=search]')
  const drawn = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))
  const start = performance.now()
  input.value = text
  input.dispatchEvent(new Event('input', { bubbles: true }))
  await drawn()
  return performance.now() - start
}"""
TEXTS = ("1", "12", "class 0", "99", "", "zzz", "class")  # searched one after another
SCROLL = """async () => {
  const list = document.querySelector('.virtual')
  const wait = () => new Promise((done) => requestAnimationFrame(done))
  let gaps = 0, frames = 0
  const start = performance.now()
  for (let top = 0; top < list.scrollHeight; top += 400) {
    list.scrollTop = top
    await wait(); await wait()
    const box = list.getBoundingClientRect()
    for (let y = box.top + 60; y < Math.min(box.bottom, innerHeight) - 5; y += 60) {
      const found = document.elementFromPoint(box.left + 40, y)
      if (!found?.closest('.line')) gaps++
    }
    frames++
  }
  return { gaps, frames, milliseconds: (performance.now() - start) / frames }
}"""
LASSO = """async () => {
  const { inside } = await import('/static/lasso.js')
  const { parse } = await import('/static/class_page.js')
  const cloud = parse(await (await fetch('/api/classes/0/points')).arrayBuffer())
  const path = Array.from({ length: 300 }, (_, i) => [0.9 * Math.cos(i / 48), 0.9 * Math.sin(i / 48)])
  const start = performance.now()
  const found = inside(cloud.plane, path)
  return { found: found.length, milliseconds: performance.now() - start }
}"""


def start_server(run: Path) -> tuple[subprocess.Popen[str], str, float]:
    """Start the server; returns it, its address, and the seconds until it answered."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "klarsicht", "audit", "explore", str(run), "--no-browser", "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    address = server.stdout.readline().split()[1]
    urllib.request.urlopen(address + "api/run").read()
    return server, address, time.perf_counter() - begun


def processor_seconds(pid: int) -> float:
    """CPU seconds of a process so far: what a start costs where other processes keep both cores busy."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> float:
    """Resident memory of a process at its peak, in MB."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    return int(lines["VmHWM"].split()[0]) / 1000


def thread_ticks(page: Page) -> Callable[[], float]:
    """Return a function that tells the CPU milliseconds of a page's main thread so far: what a search costs where other
    processes keep both cores busy."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def ticks() -> float:
        metrics = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
        return float(1000 * metrics["TaskDuration"])

    return ticks


def write_images(data: Path, names: list[str]) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
    for name in names:
        (data / name).mkdir(parents=True)
        for i in range(IMAGES):
            Image.fromarray(pixels).save(data / name / f"{i:05d}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--each", type=int, default=1300)
    parser.add_argument("--points", type=int, default=100_000)
    asked = parser.parse_args()
    many, one = asked.folder / "many", asked.folder / "one"
    if not (many / "run").exists():
        names = [f"class {k:04d}" for k in range(asked.classes)]
        write_run(many, names, asked.each, 60, images=False, maps=False, embedded=[0])
        write_images(many / "data", names)
    if not (one / "run").exists():
        write_run(one, ["one"], asked.points, 2000, images=False)
        write_images(one / "data", ["one"])
    told: dict[str, object] = {"cores": os.cpu_count(), "load": os.getloadavg()[0]}
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path="/usr/bin/chromium", args=list(BROWSER))
        server, address, seconds = start_server(many / "run")
        told["server starts, s"] = seconds
        told["server starts, CPU s"] = processor_seconds(server.pid)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        begun = time.perf_counter()
        page.goto(address)
        page.wait_for_selector(".line:not(.head)")
        told["list opens, s"] = time.perf_counter() - begun
        ticks = thread_ticks(page)
        spent = [ticks()]
        told["filter, ms"] = []
        for text in TEXTS:
            told["filter, ms"].append(round(page.evaluate(FILTER, text), 1))
            spent.append(ticks())
        told["filter, CPU ms of the page"] = np.diff(spent).round(1).tolist()
        page.evaluate(FILTER, "")
        told["scroll"] = page.evaluate(SCROLL)
        begun = time.perf_counter()
        urllib.request.urlopen(address + "api/classes/5").read()
        told["first class of many images, s"] = time.perf_counter() - begun
        told["memory, MB"] = memory(server.pid)
        server.terminate()
        server.wait()
        server, address, _ = start_server(one / "run")
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        begun = time.perf_counter()
        page.goto(address + "#/class/0")
        page.wait_for_selector(".plot canvas")
        page.wait_for_selector(".legend li")
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
        told["class of many points drawn, s"] = time.perf_counter() - begun
        told["lasso"] = page.evaluate(LASSO)
        box = page.locator(".plot canvas").first.bounding_box()
        assert box is not None
        corners = [(0.05, 0.05), (0.95, 0.05), (0.95, 0.95), (0.05, 0.95)]
        place = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
        page.mouse.move(*place[0])
        page.mouse.down()
        for x, y in place[1:]:
            page.mouse.move(x, y, steps=4)
        begun = time.perf_counter()
        page.mouse.up()
        page.wait_for_selector(".plot .hint:has-text('selected')")
        told["lasso to gallery, s"] = time.perf_counter() - begun
        told["memory of one class, MB"] = memory(server.pid)
        server.terminate()
        server.wait()
        browser.close()
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
