"""The compiled part of the arithmetic for CPUs: server/cpu/lora.cpp, built once for this machine and this torch.

What was built lies in the user's cache, beside what vLLM's own compiler keeps there, in a directory for this kind of
CPU: machines that share a home directory do not run one another's instructions. Without a C++ compiler there is none
of it, and server/cpu/lora.py computes with torch alone. This file does not know what is computed.
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

SOURCE = Path(__file__).with_name("lora.cpp")
COMPILERS = ("g++", "clang++")
"""In the order in which they are looked for."""


def directory() -> Path:
    """Where whatever is compiled for this machine is kept."""
    key = f"{metadata.version('torch')} {platform.machine()} {_cpu_features()}"
    return cache_directory() / "compiled" / hashlib.sha256(key.encode()).hexdigest()[:12]


def compiler() -> str | None:
    """The C++ compiler of this machine, or None."""
    return next(filter(None, map(shutil.which, COMPILERS)), None)


def compiles_models() -> bool:
    """Whether torch's own compiler can work, too: what it generates includes Python.h, which Debian has apart."""
    return compiler() is not None and Path(sysconfig.get_path("include"), "Python.h").is_file()


def library() -> Path:
    """The file that `build` makes; it may not be there."""
    return directory() / f"cpu_lora-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]}.so"


def build(say: Callable[[str], None]) -> str | None:
    """Compile `library` unless it is there: about five seconds. Returns why it could not be, or None."""
    if library().is_file():
        return None
    program = compiler()
    if program is None:
        return "no C++ compiler found"
    say("compiling LoRA's arithmetic for this machine, once (about 5 s)")
    unfinished = library().with_suffix(f".{os.getpid()}.so")
    try:
        library().parent.mkdir(parents=True, exist_ok=True)
        done = subprocess.run([program, *_arguments(), "-o", str(unfinished)], capture_output=True, text=True)
        if done.returncode:
            return f"{program} failed: {next(iter(done.stderr.splitlines()), f'status {done.returncode}')[:300]}"
        unfinished.replace(library())
    except OSError as exc:  # of the cache: whatever is wrong with it, the server can do without
        return str(exc)
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
    return None


def prepare(say: Callable[[str], None]) -> str:
    """`build`; returns what will compute, for the user."""
    missing = build(say)
    if missing:
        return f"torch's own products, half as fast: {missing}; install g++ and start again"
    if not compiles_models():
        return "compiled, and the model is not, because Python.h is missing; install python3.11-dev and start again"
    if not Path(os.environ["VLLM_CACHE_ROOT"], "torch_compile_cache").is_dir():
        return "compiled; the model is compiled at the first start, about a minute"
    return "compiled"


@cache
def load() -> bool:
    """Whether the operators `torch.ops.mailwright` are there, in this process: they are if they were built."""
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
        *["-isystem", str(torch_directory / "include"), str(SOURCE)],
        *[f"-L{torch_directory / 'lib'}", "-ltorch_cpu", "-lc10"],
    ]


def _cpu_features() -> str:
    """What instructions the CPU has, by the kernel's own list; the name of its kind where that has none."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
