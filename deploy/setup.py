"""Prepare .venv: `python3 deploy/setup.py`, which `make setup` calls. Needs nothing but Python 3.11.

    python3 deploy/setup.py               .venv with the pins
    python3 deploy/setup.py --test-tools  also the browser and the Prometheus that the tests drive (`make test`)
    python3 deploy/setup.py --clients     also the clients of the API that the tests drive (`make test`)

Installs the pins of deploy/requirements-cuda.txt where `nvidia-smi` answers, else of deploy/requirements-cpu.txt,
then the tests' tools and Mailwright itself. What it installs is complete, so that pip resolves nothing. Safe to stop
and run again.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
VENV = ROOT / ".venv"
READY = VENV / ".mailwright-ready"
LOG = ROOT / ".venv" / "setup.log"
# PyPI has no CPU build of torch; where pip is not set up to find one, it is fetched from PyTorch's own index.
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
SYSTEM_PACKAGES = ["python3.11", "python3.11-venv", "libnuma1", "curl"]
COMPILER_PACKAGES = ["g++", "python3.11-dev"]
BROWSER_PACKAGES = ["chromium", "fonts-dejavu-core"]
NODE_PACKAGES = ["nodejs", "npm"]
CLIENTS = ROOT / "tests" / "clients"


def main() -> int:
    match sys.argv[1:]:
        case ["--test-tools"]:
            return set_up_test_tools()
        case ["--clients"]:
            return set_up_clients()
        case _:
            return set_up()


def set_up() -> int:
    python = find_python()
    if not has_libnuma():
        install_system_packages(SYSTEM_PACKAGES)
        if not has_libnuma():
            return fail(
                "vLLM needs libnuma.so.1, which is missing",
                f"install it: sudo apt-get install {' '.join(SYSTEM_PACKAGES)}",
            )
    if not can_compile(python):
        install_system_packages(COMPILER_PACKAGES)
        if not can_compile(python):
            say(f"without a compiler the server is slower: sudo apt-get install {' '.join(COMPILER_PACKAGES)}")
    if not (VENV / "bin" / "pip").exists():
        say("creating .venv")
        made = subprocess.run([python, "-m", "venv", "--clear", str(VENV)], capture_output=True, text=True, check=False)
        if made.returncode:
            return fail(
                f"python -m venv failed: {made.stdout.strip()[-300:]}", f"install {' '.join(SYSTEM_PACKAGES[:2])}"
            )
    LOG.write_text("")
    kind = "cuda" if gpu_answers() else "cpu"
    for what, arguments in steps(kind):
        status = pip(what, arguments)
        if status:
            return fail_with_log(f"{what} failed (pip's exit status {status})", "make setup")
    READY.touch()
    say(f"ready: .venv with the {kind.upper()} pins")
    return 0


def steps(kind: str) -> list[tuple[str, list[str]]]:
    pins = [line.strip() for line in (ROOT / f"deploy/requirements-{kind}.txt").read_text().splitlines()]
    pins = [line for line in pins if line and not line.startswith("#")]
    torch = next(line for line in pins if line.startswith("torch="))
    rest = VENV / "pins.txt"
    rest.write_text("\n".join(line for line in pins if line != torch) + "\n")
    return [
        (f"installing {torch}", torch_arguments(torch)),
        (f"installing {len(pins) - 1} packages", ["--no-deps", "-r", str(rest)]),
        ("installing the tests' tools", ["--no-deps", "-r", str(ROOT / "deploy/requirements-dev.txt")]),
        ("installing Mailwright", ["--no-deps", "--editable", str(ROOT)]),
    ]


def torch_arguments(torch: str) -> list[str]:
    if "+cpu" not in torch:
        return ["--no-deps", torch]
    found = subprocess.run(
        [VENV / "bin" / "pip", "download", "--no-deps", "--quiet", "--dest", VENV / "torch", torch],
        capture_output=True,
        check=False,
    )
    if found.returncode == 0:
        return ["--no-deps", "--no-index", "--find-links", str(VENV / "torch"), torch]
    return ["--no-deps", "--index-url", TORCH_CPU_INDEX, torch]


def pip(what: str, arguments: list[str], venv: Path | None = None) -> int:
    """Run pip install, showing how many packages are there and the time left; its output goes to the log.

    `venv`: where to install, instead of .venv.
    """
    total = 1
    if "-r" in arguments:
        total = sum("==" in line for line in Path(arguments[arguments.index("-r") + 1]).read_text().splitlines())
    started, done = time.monotonic(), 0
    program = (venv or VENV) / "bin" / "pip"
    command = [str(program), "install", "--disable-pip-version-check", "--progress-bar", "off", *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | {"PIP_QUIET": "0"}
    )
    assert process.stdout
    with LOG.open("a") as log:
        for line in process.stdout:
            log.write(line)
            if re.match(r"(Collecting|Processing|Obtaining|Requirement already satisfied:?) ", line):
                done = min(done + 1, total)
                bar(what, done, total, time.monotonic() - started)
    status = process.wait()
    bar(what, total, total, time.monotonic() - started, end="\n")
    if "--find-links" in arguments:
        shutil.rmtree(VENV / "torch", ignore_errors=True)
    return status


def bar(what: str, done: int, total: int, seconds: float, end: str = "") -> None:
    filled = 24 * done // total
    left = "unpacking" if done == total and not end else f"{seconds * (total - done) / max(done, 1):3.0f} s left"
    text = f"{what}: |{'#' * filled}{' ' * (24 - filled)}| {done}/{total}, {f'{seconds:.0f} s' if end else left}"
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end=end, file=sys.stderr, flush=True)
    elif end:
        print(text, file=sys.stderr, flush=True)


def find_python() -> str:
    """A Python 3.11 with venv, Debian's where it may be installed; otherwise the set-up ends."""
    for candidate in ("python3.11", "python3"):
        path = shutil.which(candidate)
        if path and can_make_venv(path):
            return path
    install_system_packages(SYSTEM_PACKAGES)
    path = shutil.which("python3.11")
    if path and can_make_venv(path):
        return path
    raise SystemExit(
        fail("Python 3.11 with venv is missing", f"install it: sudo apt-get install {' '.join(SYSTEM_PACKAGES)}")
    )


def can_make_venv(python: str) -> bool:
    probe = "import sys, ensurepip, venv; sys.exit(sys.version_info[:2] != (3, 11))"
    return subprocess.run([python, "-c", probe], capture_output=True, check=False).returncode == 0


def can_compile(python: str) -> bool:
    """Whether the server can compile its arithmetic, and the model, for a CPU."""
    probe = (
        "import sys, sysconfig, pathlib; sys.exit(not pathlib.Path(sysconfig.get_path('include'), 'Python.h').exists())"
    )
    headers = subprocess.run([python, "-c", probe], capture_output=True, check=False).returncode == 0
    return headers and shutil.which("g++") is not None


def has_libnuma() -> bool:
    try:
        ctypes.CDLL("libnuma.so.1")
    except OSError:
        return False
    return True


def install_system_packages(packages: list[str]) -> None:
    """Debian's packages, where we may install them; the caller checks whether they are there."""
    if os.geteuid() == 0 and shutil.which("apt-get"):
        say(f"installing {' '.join(packages)}")
        subprocess.run(["apt-get", "update", "-qq"], check=False)
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
        subprocess.run(install, check=False, stdout=subprocess.DEVNULL)


def set_up_test_tools() -> int:
    """Chromium as a system package; Prometheus only unpacked into .venv, since Debian's package starts a service."""
    if not shutil.which("chromium"):
        install_system_packages(BROWSER_PACKAGES)
        if not shutil.which("chromium"):
            return fail("the tests need chromium", f"install it: sudo apt-get install {' '.join(BROWSER_PACKAGES)}")
    if not (shutil.which("prometheus") and shutil.which("promtool")) and not unpack_prometheus():
        return fail("the tests need prometheus and promtool", "install Debian's package prometheus")
    return 0


def unpack_prometheus() -> bool:
    """Put Debian's prometheus and promtool into .venv/bin; False where that did not work."""
    binaries = [VENV / "bin" / name for name in ("prometheus", "promtool")]
    if not all(binary.is_file() for binary in binaries) and shutil.which("apt-get"):
        say("fetching Debian's prometheus into .venv")
        folder = VENV / "debian"
        folder.mkdir(exist_ok=True)
        if os.geteuid() == 0:
            subprocess.run(["apt-get", "update", "-qq"], check=False)
        subprocess.run(["apt-get", "download", "-qq", "prometheus"], cwd=folder, check=False, stderr=subprocess.DEVNULL)
        for package in folder.glob("*.deb"):
            subprocess.run(["dpkg-deb", "--extract", package, folder], check=False)
        for binary in binaries:
            if (folder / "usr/bin" / binary.name).is_file():
                shutil.move(folder / "usr/bin" / binary.name, binary)
        shutil.rmtree(folder)
    return all(binary.is_file() for binary in binaries)


def set_up_clients() -> int:
    """Clients of the API in environments of their own, since they ask for other versions than the server does.

    Those for Python lie in .venv/clients, those for Node beside their scripts. Nothing is done until their pins change.
    """
    pins = [CLIENTS / name for name in ("requirements.txt", "package.json", "package-lock.json")]
    installed, modules = VENV / "clients", CLIENTS / "node_modules"
    ready = installed / ".ready"
    content = hashlib.sha256(b"".join(file.read_bytes() for file in pins)).hexdigest()
    if ready.is_file() and ready.read_text() == content and modules.is_dir():
        return 0
    if not shutil.which("npm"):
        install_system_packages(NODE_PACKAGES)
        if not shutil.which("npm"):
            return fail("the tests need node and npm", f"install them: sudo apt-get install {' '.join(NODE_PACKAGES)}")
    LOG.write_text("")
    say("creating .venv/clients")
    subprocess.run([VENV / "bin" / "python", "-m", "venv", "--clear", str(installed)], check=True)
    total = sum("==" in line for line in pins[0].read_text().splitlines())
    # Compiled are the few files that are imported, when they are: all of them would take longer than the rest.
    arguments = ["--no-deps", "--no-compile", "-r", str(pins[0])]
    status = pip(f"installing {total} packages of Python clients", arguments, installed)
    if status:
        return fail_with_log(f"installing the Python clients failed (pip's exit status {status})", "make test-tools")
    status = npm("installing the Node clients")
    if status:
        return fail_with_log(f"installing the Node clients failed (npm's exit status {status})", "make test-tools")
    ready.write_text(content)
    return 0


def npm(what: str) -> int:
    """Install exactly what package-lock.json names; no package may run anything."""
    started = time.monotonic()
    bar(what, 0, 1, 0)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]
    with LOG.open("a") as log:
        status = subprocess.run(command, cwd=CLIENTS, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
    bar(what, 1, 1, time.monotonic() - started, end="\n")
    return status


def gpu_answers() -> bool:
    return (
        bool(shutil.which("nvidia-smi"))
        and subprocess.run(["nvidia-smi", "-L"], capture_output=True, check=False).returncode == 0
    )


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def fail_with_log(what: str, again: str) -> int:
    tail = "\n  ".join(LOG.read_text().strip().splitlines()[-5:])
    return fail(f"{what}:\n  {tail}", f"the whole log is {LOG}; then run `{again}` again")


def fail(what: str, hint: str) -> int:
    say(f"error: {what}\nhint: {hint}")
    return 2


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        say("stopped; run `make setup` to continue")
        sys.exit(130)
