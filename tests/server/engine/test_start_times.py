"""What a start says of its own time."""

from server.engine.start_times import Startup


def test_every_phase_has_its_seconds_and_together_they_are_the_whole():
    times = iter([103.0, 103.5, 120.0])
    startup = Startup(lambda: next(times), began=100.0)
    for phase in ("imports", "base model", "engine"):
        startup.ended(phase)
    assert str(startup) == "after 20.0 s: imports 3.0, base model 0.5, engine 16.5"


def test_by_default_the_start_of_the_process_counts():
    startup = Startup()
    startup.ended("all")
    assert str(startup).startswith("after ")
    assert "after 0.0 s" not in str(startup)
