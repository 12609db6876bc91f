"""The pictures of the comparison page in ui/screenshots/: the real server, the real page, a real browser.

    .venv/bin/python deploy/screenshots.py [--store DIR]        `make screenshots` calls it

The voices `formal` and `friendly` must be in the store; `make demo` teaches both into .demo/store.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

# The other script of this folder, which is where Python looks first for what a script imports.
import demo
from demo import ROOT, STORE, VOICES

PICTURES = ROOT / "ui" / "screenshots"
WRITE_MILLISECONDS = 120_000
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
COMPARISONS = [("compare", "base", "formal", DESKTOP), ("voices", "formal", "friendly", DESKTOP)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", metavar="DIR", type=Path, default=STORE, help="(default: .demo/store)")
    store = parser.parse_args().store.absolute()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    missing = [voice for voice in VOICES if not (store / voice / "pointers.json").is_file()]
    if missing or not chromium:
        what = f"{store} has no voice {' or '.join(missing)}" if missing else "there is no chromium"
        hint = "`make demo` teaches both, or give --store DIR" if missing else "install Debian's chromium"
        print(f"error: {what}\nhint: {hint}", file=sys.stderr)
        return 2
    PICTURES.mkdir(exist_ok=True)
    demo.DEMO.mkdir(exist_ok=True)
    api, page = demo.free_port(8000), demo.free_port(7860)
    with ExitStack() as running:
        kept = running.enter_context(tempfile.TemporaryDirectory())
        try:
            server = demo.start("server", ["--store", store, "--port", str(api)], f"http://127.0.0.1:{api}/health")
            running.callback(demo.stop, server)
            flags = ["--server", f"http://127.0.0.1:{api}/v1", "--port", str(page), "--kept", kept]
            running.callback(demo.stop, demo.start("ui", flags, f"http://127.0.0.1:{page}"))
        except demo.StepFailed as exc:
            print(f"error: {exc}", file=sys.stderr)
            return 1
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


if __name__ == "__main__":
    sys.exit(main())
