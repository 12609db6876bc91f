"""Settings -> the comparison page, served on one address until Ctrl-C. Console script `ui`."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adapters.console import run
from adapters.errors import ConfigError
from adapters.settings import is_loopback, silence_telemetry
from ui.settings import Settings, read

HERE = Path(__file__).parent
# The page runs its own scripts only and sends nothing to another host, even if text ever turned into markup. Gradio
# needs the `unsafe-` words: it evaluates the scripts of its events and inserts its styles by script.
CONTENT_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; object-src 'none'; frame-ancestors 'none'; form-action 'none'"
)
# Concurrent answers, two for each browser; Gradio's own default is one.
MAX_STREAMS = 200


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 after a clean stop, 2 for an error that the user can fix."""
    given = sys.argv[1:] if arguments is None else arguments
    return run(lambda: serve(read(given, os.environ)), "--debug" in given)


def serve(settings: Settings) -> None:
    """Serve the page until SIGTERM or Ctrl-C."""
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    silence_telemetry()
    from ui.client import Client
    from ui.pages.compare import Page

    page = Page(settings, Client(settings)).blocks
    page.queue(default_concurrency_limit=MAX_STREAMS, max_size=2 * MAX_STREAMS, api_open=False)
    try:
        page.launch(server_name=settings.host, server_port=settings.port, **_flags(settings))
    except OSError as exc:
        where = f"{settings.host}:{settings.port}"
        raise ConfigError(
            f"cannot listen on {where}: the port is taken, or the address is not of this machine", "give another --port"
        ) from exc
    print(f"page     http://{settings.host}:{settings.port}")
    print(f"server   {settings.server}")
    print(f"kept     {settings.kept}")
    print(f"store    {settings.store}", flush=True)
    stopped.wait()
    page.close(verbose=False)


def _flags(settings: Settings) -> dict[str, Any]:
    """How Gradio serves: it shares, keeps and reports nothing, and shows no error's text."""
    return {
        "quiet": True,
        "prevent_thread_lock": True,
        "share": False,
        "ssr_mode": False,
        "run_history": False,
        "enable_monitoring": False,
        "strict_cors": True,
        "show_error": False,
        "footer_links": [],
        "state_session_capacity": MAX_STREAMS,
        "app_kwargs": {"middleware": _middleware(settings)},
        "theme": _theme(),
        "css_paths": HERE / "style.css",
        "js": (HERE / "page.js").read_text(encoding="utf-8"),
    }


def _theme() -> Any:
    from gradio import themes

    # Gradio's faint greys and its button fall below WCAG's contrast of 4.5.
    return themes.Default(primary_hue="indigo", neutral_hue="slate", radius_size="lg").set(
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_700",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
    )


def _middleware(settings: Settings) -> list[Any]:
    """The policy on every answer; and a page on loopback answers under the names of loopback only.

    Otherwise a web site whose name resolves to 127.0.0.1 could use the page, and the key that it holds.
    """
    from starlette.datastructures import MutableHeaders
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    class Policy:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            async def with_policy(message: Message) -> None:
                if message["type"] == "http.response.start":
                    headers = {"Content-Security-Policy": CONTENT_POLICY, "Referrer-Policy": "no-referrer"}
                    MutableHeaders(scope=message).update(headers)
                await send(message)

            await self.app(scope, receive, with_policy)

    local = is_loopback(settings.host)
    names = ["localhost", "127.0.0.1", "[::1]", settings.host] if local else ["*"]
    return [Middleware(Policy), Middleware(TrustedHostMiddleware, allowed_hosts=names)]


if __name__ == "__main__":
    sys.exit(main())
