"""The compiled part of the arithmetic for CPUs, lora.cpp and words.cpp: built once for this machine and this torch.

It lies in the user's cache, beside the output of vLLM's compiler, in a directory for this kind of CPU: machines that
share a home directory do not run one another's instructions. Without a C++ compiler, torch computes alone.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path

from adapters.settings import cache_directory

SOURCES = [Path(__file__).with_name(name) for name in ("lora.cpp", "words.cpp")]
COMPILERS = ("g++", "clang++")  # the first one that is installed


def directory() -> Path:
    """Where compiled files for this machine lie."""
    key = f"{metadata.version('torch')} {platform.machine()} {_cpu_features()}"
    return cache_directory() / "compiled" / hashlib.sha256(key.encode()).hexdigest()[:12]


def compiler() -> str | None:
    return next(filter(None, map(shutil.which, COMPILERS)), None)


def compiles_models() -> bool:
    """Whether torch's own compiler works too: its output includes Python.h, which Debian packages separately."""
    return compiler() is not None and Path(sysconfig.get_path("include"), "Python.h").is_file()


def library() -> Path:
    """The file that `build` makes; may not exist yet."""
    text = b"".join(source.read_bytes() for source in SOURCES)
    return directory() / f"cpu_lora-{hashlib.sha256(text).hexdigest()[:12]}.so"


def build(log: Callable[[str], None]) -> str | None:
    """Compile `library` unless it exists: about ten seconds. Returns the reason of a failure, or None."""
    if library().is_file():
        return None
    program = compiler()
    if program is None:
        return "no C++ compiler found"
    log("compiling arithmetic for this machine, once (about 10 s)")
    unfinished = library().with_suffix(f".{os.getpid()}.so")
    try:
        library().parent.mkdir(parents=True, exist_ok=True)
        done = subprocess.run([program, *_arguments(), "-o", str(unfinished)], capture_output=True, text=True)
        if done.returncode:
            return f"{program} failed: {next(iter(done.stderr.splitlines()), f'status {done.returncode}')[:300]}"
        unfinished.replace(library())
    except OSError as exc:  # of the cache; the server works without it
        return str(exc)
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
    return None


def prepare(log: Callable[[str], None]) -> str:
    """`build`; returns what will compute, for the user."""
    missing = build(log)
    if missing:
        return f"torch's own products, half as fast: {missing}; install g++ and start again"
    if not compiles_models():
        return "compiled, and the model is not, because Python.h is missing; install python3.11-dev and start again"
    if not Path(os.environ["VLLM_CACHE_ROOT"], "torch_compile_cache").is_dir():
        return "compiled; the model is compiled at the first start, about a minute"
    return "compiled"


@cache
def load() -> bool:
    """Whether this process has the operators `torch.ops.mailwright`: it has if they were built."""
    import torch

    if not library().is_file():
        return False
    torch.ops.load_library(str(library()))
    torch.library.register_fake("mailwright::add_lora", lambda y, x, a, b, widths: None)
    return True


def _arguments() -> list[str]:
    import torch

    torch_directory = Path(torch.__file__).parent
    return [
        *["-O3", "-march=native", "-std=c++20", "-fopenmp", "-shared", "-fPIC"],
        *["-isystem", str(torch_directory / "include"), *map(str, SOURCES)],
        *[f"-L{torch_directory / 'lib'}", "-ltorch_cpu", "-lc10"],
    ]


def _cpu_features() -> str:
    """The instructions of the CPU, as Linux lists them; elsewhere the CPU's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
