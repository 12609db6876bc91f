"""A model of the hub, fetched by a real command from a stand-in hub on loopback."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from adapters.models.base_models import BaseModel
from tests.serving import ROOT

COMMIT = "c" * 40


@pytest.fixture
def hub(tiny_base: Path) -> Iterator[str]:
    """The address of a hub that has the tiny model under every name."""
    files = {file.name: file.read_bytes() for file in tiny_base.iterdir()}

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            name = path.rpartition("/")[2]
            if path.startswith("/api/models/") and "/tree/" in path:
                listed = [
                    {"type": "file", "path": file, "size": len(content), "oid": "0" * 40}
                    for file, content in files.items()
                ]
                self._send(json.dumps(listed).encode())
            elif path.startswith("/api/models/"):
                siblings = [{"rfilename": file} for file in files]
                self._send(json.dumps({"id": "x/y", "sha": COMMIT, "siblings": siblings}).encode())
            elif name in files and "/resolve/" in path:
                self._send(files[name])
            else:
                self.send_error(404)

        def _send(self, content: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("name", ["somebody/Tiny-Llama", "qwen3-0.6b"])
def test_a_model_of_the_hub_is_fetched_and_fingerprinted(hub: str, name: str, base_model: BaseModel, tmp_path: Path):
    environment = os.environ | {
        "HF_ENDPOINT": hub,
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_HUB_OFFLINE": "0",
        "MAILWRIGHT_CACHE": str(tmp_path / "cache"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "adapters.cli", "base", "fetch", name, "--json"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["fingerprint"] == base_model.fingerprint
    assert found["name"] == name.rpartition("/")[2].lower()
    assert Path(found["path"]).is_relative_to(tmp_path / "hub")
