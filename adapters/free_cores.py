"""How many cores other programs leave free, read from Linux's /proc, and how many threads should compute then.

Threads that share one product wait for the slowest of them. Where another program takes a core, two threads are slower
than one (docs/decisions/cpu-serving.md), so server and trainer compute with as many threads as there are free cores.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

# Shorter, the kernel's count of a core's time, in steps of 10 ms, says too little.
INTERVAL_SECONDS = 0.25
# Of a core: a thread is given up where others use more, and taken back where they use less.
GIVE_UP, TAKE_BACK = 0.5, 0.35
# What a program of low priority could use of a core, for each part that it gets beside a thread of ours. The kernel
# gives nice 10 a tenth of a core beside a thread of the usual priority, and what that leaves idle.
LOW_COULD_USE = 5
# GOMP_SPINCOUNT: rounds in which an idle thread spins before it sleeps. libgomp's 300,000 take the time of what it
# waits for; none at all halves a server's tokens a second, because waking a thread takes longer than most of its work.
SPINS = "1000"

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Reading:
    """CPU seconds so far: of all programs on our cores, the part at low priority (nice), and our own processes'."""

    at: float
    everything: float
    low: float
    own: float


def used_by_others(before: Reading, after: Reading, low_may_have: float | None = None) -> float:
    """Cores that others use between two readings.

    `low_may_have`: for a program of the usual priority, how many of them programs of low priority should have. They
    count with what they could use, or they would starve: beside more threads they use less.
    """
    seconds = after.at - before.at
    used = (after.everything - before.everything - after.own + before.own) / seconds
    if low_may_have is not None:
        low = (after.low - before.low) / seconds
        used += min(low * LOW_COULD_USE, low_may_have) - low
    return max(0.0, used)


def fitting(now: int, most: int, used: float) -> int:
    """How many threads should compute, from 1 to `most`, where others use `used` of as many cores."""
    fewest, highest = (most - math.ceil(used - tolerated) for tolerated in (TAKE_BACK, GIVE_UP))
    return max(1, min(most, max(fewest, min(now, highest))))


class FreeCores:
    """Follows the cores that others leave; `threads` is how many of our threads should compute now."""

    def __init__(
        self,
        most: int,
        spare: float = 0,
        own: Iterable[int] = (),
        low_may_have: float | None = None,
        read: Callable[[Iterable[int]], Reading] | None = None,
    ) -> None:
        """`spare`: cores beyond `most` that others may use; `own`: process numbers of ours, besides this one."""
        self.threads = most
        self._most, self._spare, self._low_may_have = most, spare, low_may_have
        self._own, self._read = tuple(own), read or reading
        self._before = self._read(self._own)

    def changed(self) -> bool:
        """Whether `threads` is another now; takes a microsecond, and once in INTERVAL_SECONDS 0.1 ms."""
        if time.monotonic() - self._before.at < INTERVAL_SECONDS:
            return False
        after = self._read(self._own)
        used = used_by_others(self._before, after, self._low_may_have)
        self._before = after
        before = self.threads
        self.threads = fitting(before, self._most, used - self._spare)
        return self.threads != before


def reading(own: Iterable[int] = ()) -> Reading:
    """Of now, and of the cores that this process may use."""
    tick = os.sysconf("SC_CLK_TCK")
    cores = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    rows = [line.split() for line in (_PROC / "stat").read_text().splitlines() if line.startswith("cpu")]
    # user, nice, system, idle, waiting for a disk, interrupts, soft interrupts, taken by other virtual machines
    counts = [[int(count) for count in row[1:]] for row in rows if row[0] in cores]
    return Reading(
        time.monotonic(),
        sum(sum(row[:3]) + sum(row[5:8]) for row in counts) / tick,
        sum(row[1] for row in counts) / tick,
        time.process_time() + sum(_seconds(process) for process in own) / tick,
    )


def _seconds(process: int) -> int:
    """CPU time of a process, in ticks; 0 if it has ended."""
    try:
        # The name, in brackets, may contain spaces.
        fields = (_PROC / str(process) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


def readable() -> bool:
    """Whether this system says how its cores are used."""
    return (_PROC / "stat").is_file() and hasattr(os, "sched_getaffinity")


def quota(groups: Path = _CGROUPS, own: Path = _PROC / "self/cgroup") -> float:
    """Cores that a container's limit (`cpu.max` of cgroup v2) leaves this process on average; infinite without one."""
    lines = own.read_text().splitlines() if own.is_file() else []
    # A container sees its own group as the root.
    within = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    files = {groups / "cpu.max", groups / within / "cpu.max"}
    # The file's two words are microseconds in each period, or "max", and the period.
    limits = [file.read_text().split() for file in files if file.is_file()]
    return min((int(most) / int(period) for most, period in limits if most != "max"), default=math.inf)
