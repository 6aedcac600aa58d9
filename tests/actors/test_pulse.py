"""Who is alive: pulses that are asked for, answered, missed, and a pause of the process that asks."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import ray
from ray.exceptions import RayActorError

from pisa_ray.actors import RayResources, crew
from pisa_ray.actors.crew import START_SECONDS, Crew, Process


class Actor:
    """A process that answers pulses, or does not, or is gone."""

    def __init__(self) -> None:
        self.is_frozen = self.is_gone = False
        self.asked = 0
        self.pulse = self

    def options(self, concurrency_group):
        assert concurrency_group == "pulse"  # else it would come after all that was asked for before
        return self

    def remote(self):
        self.asked += 1
        return self


@pytest.fixture
def world(monkeypatch):
    """A clock that the test sets, and a crew that asks processes whose answers are there at once or never."""
    clock = SimpleNamespace(now=1000.0)

    def get(process, timeout=None):
        if process.is_gone:
            raise RayActorError
        return 1

    def wait(processes, num_returns=1, timeout=None):
        done = [p for p in processes if not p.is_frozen]
        if len(done) < num_returns:
            clock.now += timeout
        return done, [p for p in processes if p.is_frozen]

    monkeypatch.setattr(crew.time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(crew, "is_ready", lambda processes: not any(p.is_frozen for p in processes))
    monkeypatch.setattr(ray, "put", lambda job: None)
    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(ray, "wait", wait)
    return SimpleNamespace(clock=clock, crew=Crew(None, RayResources(), lambda kind, **_: None, frozen_after=5.0))


def process(ready=None):
    return Process(Actor(), ready or Actor())


def test_who_answers_is_asked_again_and_again(world):
    one = process()
    for _ in range(100):
        assert world.crew.feel([one])
        world.clock.now += 1.0
    assert one.actor.asked == 100
    assert world.crew.dead([one]) == []


def test_who_does_not_answer_is_frozen_after_a_while(world):
    one, other = process(), process()
    assert world.crew.feel([one, other])
    one.actor.is_frozen = True
    felt = []
    for _ in range(8):
        world.clock.now += 1.0
        felt.append(world.crew.feel([one, other]))
    assert felt == [True] * 5 + [False] * 3  # more than frozen_after seconds since it was asked
    assert world.crew.dead([one, other]) == [one]


def test_who_answers_late_was_not_frozen(world):
    one = process()
    assert world.crew.feel([one])
    for frozen in (True, True, True, True, False, True, True, True, True):
        one.actor.is_frozen = frozen
        world.clock.now += 1.0
        assert world.crew.feel([one])


def test_a_pause_of_this_process_is_no_silence_of_others(world):
    one = process()
    assert world.crew.feel([one])
    one.actor.is_frozen = True
    world.clock.now += 3600.0  # it may be that nobody ran
    assert world.crew.feel([one])
    assert world.crew.dead([one]) == []


def test_who_is_gone_is_dead_and_who_lives_is_not(world):
    one, other = process(), process()
    assert world.crew.feel([one, other])
    one.actor.is_gone = True
    assert world.crew.dead([one, other]) == [one]


def test_who_is_starting_has_longer(world):
    ready = Actor()
    ready.is_frozen = True
    one = Process(Actor(), ready, since=world.clock.now)
    assert world.crew.feel([one])
    for _ in range(100):
        world.clock.now += 1.0
        assert world.crew.feel([one])
    assert one.actor.asked == 0
    assert world.crew.dead([one]) == []
    while world.clock.now < one.since + START_SECONDS:
        world.clock.now += 1.0
        assert world.crew.feel([one])
    world.clock.now += 1.0
    assert not world.crew.feel([one])
