"""The first signal asks a run to stop after its round, the second stops it at once, and then all is as before."""

from __future__ import annotations

import signal
import threading

import pytest

from pisa_ray.trainer import interrupt
from pisa_ray.trainer.interrupt import StopRequests


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_the_first_asks_and_the_second_stops(first, second, monkeypatch):
    monkeypatch.setattr(interrupt, "TWICE", -1.0)  # no two are one
    with StopRequests() as asked:
        assert not asked()
        signal.raise_signal(first)
        assert asked()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(second)


def test_handlers_are_put_back():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with StopRequests():
        assert all(signal.getsignal(number) != handler for number, handler in before.items())
    assert {number: signal.getsignal(number) for number in before} == before


def test_outside_the_main_thread_nothing_is_caught_and_nothing_breaks():
    seen = []

    def elsewhere():
        with StopRequests() as asked:
            seen.append(asked())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join(10)
    assert seen == [False]
