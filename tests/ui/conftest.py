"""The page as a process, before a small server that does what a test needs, and a real browser to look at it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from tests.serving import ROOT, free_port
from tests.ui.fake_server import FakeServer, serving

PATIENCE_SECONDS = 60
"""Nothing takes this long; a machine that other work keeps busy may."""
expect.set_options(timeout=PATIENCE_SECONDS * 1000)


@dataclass(frozen=True)
class RunningPage:
    url: str
    kept: Path
    log: Path


@contextmanager
def running_page(server: str, directory: Path, *flags: str) -> Iterator[RunningPage]:
    """`ui` as a process on a free port. In the end it gets what Ctrl-C in a terminal sends, and must end cleanly."""
    log, kept, port = directory / "ui.log", directory / "kept", free_port()
    command = [sys.executable, "-m", "ui.site", "--server", server, "--port", str(port), "--kept", str(kept), *flags]
    environment = {**os.environ, "MAILWRIGHT_STORE": str(directory / "store")}
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
    try:
        page = RunningPage(f"http://127.0.0.1:{port}", kept, log)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while "kept " not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, "the page did not start"
            time.sleep(0.05)
        yield page
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_SECONDS) == 0, log.read_text()
        assert "Traceback" not in log.read_text(), log.read_text()
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def fake_server() -> Iterator[FakeServer]:
    with serving(FakeServer(), free_port()) as fake:
        yield fake


@pytest.fixture
def fake(fake_server: FakeServer) -> Iterator[FakeServer]:
    fake_server.forget()
    yield fake_server
    fake_server.release.set()


@pytest.fixture(scope="session")
def page_process(fake_server: FakeServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPage]:
    with running_page(fake_server.url, tmp_path_factory.mktemp("page")) as page:
        yield page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for a module: while Playwright's synchronous API is open, no asyncio test of another module could run."""
    with sync_playwright() as playwright:
        program = shutil.which("chromium") or shutil.which("chromium-browser")
        assert program, "install Debian's chromium"
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


Open = Callable[..., "Tab"]


@pytest.fixture
def open_tab(browser: Browser, page_process: RunningPage) -> Iterator[Open]:
    """Opens tabs, each in a browser profile of its own; none may ask another host for anything, or break a script."""
    tabs: list[Tab] = []

    def open_one(url: str = page_process.url, ready: bool = True, **context: object) -> Tab:
        page = browser.new_context(**context).new_page()
        tab = Tab(page, url)
        tabs.append(tab)
        if ready:
            expect(tab.model("right")).not_to_have_value("")
        return tab

    yield open_one
    for tab in tabs:
        assert tab.strangers == []
        assert tab.broken == []
        tab.page.context.close()


@pytest.fixture
def tab(fake: FakeServer, open_tab: Open) -> "Tab":
    return open_tab()


class Tab:
    """The page as somebody uses it."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.strangers: list[str] = []
        self.broken: list[str] = []
        page.on("request", lambda request: self._look_at(request.url, url))
        page.on("pageerror", lambda error: self.broken.append(str(error)))
        page.set_default_timeout(PATIENCE_SECONDS * 1000)
        page.goto(url)
        expect(self.task).to_be_visible()

    def _look_at(self, asked: str, url: str) -> None:
        if not asked.startswith((url, "data:", "blob:")):
            self.strangers.append(asked)

    @property
    def task(self) -> Locator:
        return self.page.get_by_label("Task", exact=True)

    def model(self, side: str) -> Locator:
        return self.page.get_by_label(f"{side.capitalize()} model", exact=True)

    def choose(self, side: str, name: str) -> None:
        """Typed, as a label or a version that is not in the list would be."""
        self.model(side).fill(name)
        self.model(side).press("Enter")
        self.model(side).blur()
        expect(self.model(side)).to_have_value(name)

    def answer(self, side: str) -> Locator:
        return self.page.get_by_label(f"{side.capitalize()} answer", exact=True)

    def part(self, side: str, kind: str) -> Locator:
        return self.page.locator(f"#{side} .{kind}")

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def write(self, task: str | None = None) -> None:
        if task is not None:
            self.task.fill(task)
        self.button("Write both").click()

    def finished(self, *sides: str) -> None:
        for side in sides or ("left", "right"):
            expect(self.part(side, "status")).to_have_text("Finished.")
