"""Outside the main thread Python catches no signals: a run there hears none, and nothing breaks."""

from __future__ import annotations

import signal
import threading

from pisa_ray.trainer.interrupt import StopRequests


def test_outside_the_main_thread_nothing_is_caught_and_nothing_breaks():
    seen, before = [], signal.getsignal(signal.SIGTERM)

    def elsewhere():
        with StopRequests() as asked:
            seen.append((asked(), signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join(10)
    assert seen == [(False, before)]
    assert signal.getsignal(signal.SIGTERM) is before
