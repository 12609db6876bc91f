"""How many threads compute beside other programs, by what the kernel counts."""

import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.free_cores import FreeCores, Reading, fitting, quota, reading, used_by_others

needs_proc = pytest.mark.skipif(not Path("/proc/stat").is_file(), reason="only Linux says how its cores are used")


def after(seconds: float, everything: float, low: float = 0.0, own: float = 0.0) -> Reading:
    """A reading so long after START, with what was used since."""
    return Reading(START.at + seconds, START.everything + everything, START.low + low, START.own + own)


START = Reading(at=-1000.0, everything=500.0, low=50.0, own=70.0)


def test_what_a_program_uses_itself_leaves_the_others():
    assert used_by_others(START, after(2, everything=3.0, own=1.0)) == pytest.approx(1.0)
    # The kernel's counts are coarser than a program's own.
    assert used_by_others(START, after(2, everything=1.9, own=2.0)) == 0


@pytest.mark.parametrize(("low", "counted"), [(0.0, 1.0), (0.2, 2.0), (1.0, 3.0), (3.0, 3.0)])
def test_programs_of_low_priority_count_with_what_they_could_use_up_to_what_they_may_have(low: float, counted: float):
    assert used_by_others(START, after(1, everything=1.0 + low, low=low), low_may_have=2.0) == pytest.approx(counted)


def test_time_of_low_priority_that_is_a_programs_own_is_not_the_others():
    assert used_by_others(START, after(1, everything=1.0, low=1.0, own=1.0)) == 0


@pytest.mark.parametrize(
    ("now", "most", "used", "threads"),
    [
        (2, 2, 0.0, 2),
        (2, 2, 0.45, 2),
        (2, 2, 0.7, 1),
        (1, 2, 1.0, 1),
        (1, 2, 0.45, 1),
        (1, 2, 0.2, 2),
        (2, 2, 2.0, 1),
        (7, 7, 3.0, 4),
        (1, 7, 3.0, 4),
        (4, 7, -2.0, 7),
    ],
)
def test_a_thread_is_given_up_for_each_core_that_others_use(now: int, most: int, used: float, threads: int):
    assert fitting(now, most, used) == threads


@given(st.integers(1, 64), st.floats(-8, 80))
def test_the_number_settles_at_once_and_stays_within_bounds(most: int, used: float):
    for now in range(1, most + 1):
        settled = fitting(now, most, used)
        assert 1 <= settled <= most
        assert fitting(settled, most, used) == settled


def test_a_program_that_comes_and_goes_takes_a_thread_and_gives_it_back():
    said = [START, after(1, 1.0, own=1.0), after(2, 3.0, own=2.0), after(3, 4.0, own=3.0)]
    free = FreeCores(2, read=lambda own: said.pop(0))
    assert [(free.changed(), free.threads) for _ in range(3)] == [(False, 2), (True, 1), (True, 2)]


def test_a_new_reading_waits_until_it_can_say_something():
    said = [Reading(time.monotonic() + 1000, 0, 0, 0)]
    free = FreeCores(2, read=lambda own: said.pop(0))
    assert not free.changed()


def test_others_may_use_what_is_spare():
    said = [START, after(1, 3.0, own=1.0), after(2, 6.0, own=2.0)]
    free = FreeCores(2, spare=2, read=lambda own: said.pop(0))
    assert (free.changed(), free.threads) == (False, 2)


@needs_proc
def test_a_busy_process_is_another_program_or_ones_own():
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            before, mine = reading(), reading([busy.pid])
            while reading([busy.pid]).own - mine.own < 0.3:
                pass
            now, now_mine = reading(), reading([busy.pid])
        finally:
            busy.kill()
    assert now.everything - before.everything > 0.2
    assert now_mine.own - mine.own > now.own - before.own


@needs_proc
def test_a_process_that_has_ended_has_no_time():
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    assert reading([ended.pid]).own == pytest.approx(reading().own, abs=1)


@needs_proc
def test_only_cores_that_this_process_may_use_are_read(request: pytest.FixtureRequest):
    before = os.sched_getaffinity(0)
    if len(before) == 1:
        pytest.skip("there is one core")
    request.addfinalizer(lambda: os.sched_setaffinity(0, before))
    every = reading().everything
    os.sched_setaffinity(0, {min(before)})
    assert reading().everything < every


@pytest.mark.parametrize(
    ("root", "inside", "cores"),
    [
        (None, None, math.inf),
        ("max 100000", None, math.inf),
        ("150000 100000", "max 100000", 1.5),
        ("max 100000", "50000 100000", 0.5),
    ],
)
def test_a_containers_limit_is_read(tmp_path: Path, root: str | None, inside: str | None, cores: float):
    own = tmp_path / "cgroup"
    own.write_text("1:cpu:/\n0::/user/mine\n")
    for directory, limit in ((tmp_path / "groups", root), (tmp_path / "groups/user/mine", inside)):
        directory.mkdir(parents=True)
        if limit:
            (directory / "cpu.max").write_text(f"{limit}\n")
    assert quota(tmp_path / "groups", own) == cores


def test_a_system_without_control_groups_has_no_limit(tmp_path: Path):
    assert quota(tmp_path / "none", tmp_path / "neither") == math.inf
