"""What asks a run to stop, and what does not. Without a run."""

from __future__ import annotations

import signal

import pytest

from pisa_ray.trainer import interrupt
from pisa_ray.trainer.interrupt import StopRequests

ALL = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """The time that passes is what a test says."""
    now = [0.0]
    monkeypatch.setattr(interrupt.time, "monotonic", lambda: now[0])
    before = {number: signal.getsignal(number) for number in ALL}
    yield now
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ALL)
def test_the_first_signal_asks_and_the_second_stops_at_once(number, clock):
    with StopRequests() as stop:
        assert not stop()
        signal.raise_signal(number)
        assert stop()
        clock[0] += 2
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)


@pytest.mark.parametrize("number", ALL)
def test_a_signal_that_comes_to_the_process_and_to_its_group_is_one(number, clock):
    with StopRequests() as stop:
        signal.raise_signal(number)
        clock[0] += 0.01
        signal.raise_signal(number)
        assert stop()


def test_another_signal_stops_at_once_however_soon():
    with StopRequests():
        signal.raise_signal(signal.SIGUSR1)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in ALL]
    with StopRequests():
        assert [signal.getsignal(number) for number in ALL] != before
    assert [signal.getsignal(number) for number in ALL] == before


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda number, frame: None])
def test_a_signal_that_is_ignored_or_handled_by_others_is_left_to_them(number, handler):
    signal.signal(number, handler)
    with StopRequests() as stop:
        signal.raise_signal(number)
        assert not stop()
        assert signal.getsignal(number) is handler


def test_a_run_within_another_one_hears_all_signals():
    with StopRequests() as outer, StopRequests() as inner:
        signal.raise_signal(signal.SIGUSR1)
        assert inner()
        assert not outer()
