"""The pictures of the comparison page in ui/screenshots/: the real server, the real page, a real browser.

    .venv/bin/python deploy/screenshots.py [--store DIR]        `make screenshots` calls it

The voices `formal` and `friendly` must be in the store; `make demo` teaches both into .demo/store.
"""

from __future__ import annotations

import argparse
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PICTURES = ROOT / "ui" / "screenshots"
SCRIPTS = Path(sys.executable).parent
STORE = ROOT / ".demo" / "store"
VOICES = ("formal", "friendly")
START_SECONDS = 300
WRITE_MILLISECONDS = 120_000
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
COMPARISONS = [("compare", "base", "formal", DESKTOP), ("voices", "formal", "friendly", DESKTOP)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", metavar="DIR", type=Path, default=STORE, help="(default: .demo/store)")
    store = parser.parse_args().store.absolute()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    missing = [voice for voice in VOICES if not (store / voice / "promoted").is_file()]
    if missing or not chromium:
        what = f"{store} has no voice {' or '.join(missing)}" if missing else "there is no chromium"
        hint = "`make demo` teaches both, or give --store DIR" if missing else "install Debian's chromium"
        print(f"error: {what}\nhint: {hint}", file=sys.stderr)
        return 2
    PICTURES.mkdir(exist_ok=True)
    with ExitStack() as running:
        scratch = running.enter_context(tempfile.TemporaryDirectory())
        api, page = free_port(), free_port()
        server = ["server", "--store", str(store), "--port", str(api)]
        running.enter_context(started(server, f"http://127.0.0.1:{api}/health"))
        ui = ["ui", "--server", f"http://127.0.0.1:{api}/v1", "--port", str(page), "--kept", scratch]
        running.enter_context(started(ui, f"http://127.0.0.1:{page}"))
        take_all(f"http://127.0.0.1:{page}", chromium)
    return 0


def take_all(url: str, chromium: str) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        # The first request to a voice loads it; the pictures show how fast it is after that.
        written(browser, url, *VOICES, DESKTOP).context.close()
        for name, left, right, viewport in COMPARISONS:
            tab = written(browser, url, left, right, viewport)
            save(tab, name, viewport["width"], min(top_of(tab, "Teach this"), 1850))
            tab.context.close()
        tab = written(browser, url, "base", "formal", PHONE)
        save(tab, "phone", PHONE["width"], top_of(tab, "Differences"))
        browser.close()


def written(browser: Any, url: str, left: str, right: str, viewport: dict[str, int]) -> Any:
    """A tab with a shipped task answered by both models."""
    from playwright.sync_api import expect

    tab = browser.new_context(viewport=viewport).new_page()
    tab.goto(url)
    for side, model in (("Left", left), ("Right", right)):
        box = tab.get_by_label(f"{side} model", exact=True)
        expect(box).not_to_have_value("", timeout=WRITE_MILLISECONDS)
        box.fill(model)
        box.press("Enter")
        box.blur()
    tab.locator("#write").click()
    for side in ("left", "right"):
        over = re.compile("Finished|reached the limit")
        expect(tab.locator(f"#{side} .status")).to_contain_text(over, timeout=WRITE_MILLISECONDS)
    expect(tab.locator(".differences .highlighted .text").first).to_be_visible(timeout=WRITE_MILLISECONDS)
    tab.evaluate("document.activeElement.blur()")
    tab.mouse.move(0, 0)
    return tab


def top_of(tab: Any, heading: str) -> float:
    """Pixels from the top of the page, however far it is scrolled."""
    place = tab.get_by_role("heading", name=heading, exact=True)
    return float(place.evaluate("e => e.getBoundingClientRect().top + window.scrollY"))


def save(tab: Any, name: str, width: int, height: float) -> None:
    file = PICTURES / f"{name}.png"
    tab.set_viewport_size({"width": width, "height": int(height)})
    tab.evaluate("window.scrollTo(0, 0)")
    tab.evaluate("document.querySelectorAll('.answer textarea').forEach((box) => (box.scrollTop = 0))")
    tab.screenshot(path=file, scale="css")
    print(f"{file.relative_to(ROOT)}  {file.stat().st_size / 1024:.0f} KB")


@contextmanager
def started(command: list[str], address: str) -> Iterator[None]:
    """Our console script as a process that answers at `address`; Ctrl-C ends it."""
    print(f"starting {command[0]}", flush=True)
    with tempfile.TemporaryFile("w+") as log:
        program = [str(SCRIPTS / command[0]), *command[1:]]
        process = subprocess.Popen(program, cwd=ROOT, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + START_SECONDS
            while not answers(address):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    sys.exit(f"error: {command[0]} did not start:\n{log.read()[-3000:]}")
                time.sleep(0.3)
            yield
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
