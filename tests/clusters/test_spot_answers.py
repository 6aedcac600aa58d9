"""The spot watcher goes on watching, whatever the metadata service answers."""

from __future__ import annotations

import json
import socket
import threading
from argparse import Namespace
from datetime import UTC, datetime

import pytest
import spot_drain
from spot_drain import Metadata, seconds_left


def http(text: str | bytes, status: str = "200 OK") -> bytes:
    body = text.encode() if isinstance(text, str) else text
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


#: The raw answer to a request for the notice.
NONSENSE = {
    "a list": http('["terminate"]'),
    "a number": http("5"),
    "a text": http('"terminate"'),
    "null": http("null"),
    "an empty object": http("{}"),
    "no action": http('{"time": "2026-01-01T00:00:00Z"}'),
    "an action that is a number": http('{"action": 5}'),
    "an action that is a list": http('{"action": ["terminate"]}'),
    "an unknown action": http('{"action": "tango\\u0000\\n"}'),
    "HTML": http("<html>sign in</html>"),
    "nothing": http(""),
    "not UTF-8": http(b"\xff\xfe\x00"),
    "deep": http("[" * 60000),
    "huge": http("[" + " " * 200_000 + "]"),
    "NaN": http("NaN"),
    "a redirect to nowhere": b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
    "a loop": b"HTTP/1.1 302 Found\r\nLocation: /latest/meta-data/spot/instance-action\r\nContent-Length: 0\r\n\r\n",
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
    "a cut answer": b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{",
    "a bad length": b"HTTP/1.1 200 OK\r\nContent-Length: -x\r\n\r\n{}",
    "a bad chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a closed connection": b"",
    "an error": http("sorry", "503 Service Unavailable"),
    "forbidden": http("no", "403 Forbidden"),
}


@pytest.fixture
def service():
    """A metadata service whose answers are the bytes in a list, one a connection, the last for ever."""
    server, answers = socket.create_server(("127.0.0.1", 0)), [b""]

    def serve():
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.recv(4096)
                connection.sendall(answers.pop(0) if len(answers) > 1 else answers[0])

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}", answers
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()


@pytest.mark.parametrize("kind", NONSENSE)
def test_the_watcher_survives_any_answer_and_drains_at_the_next_that_is_a_notice(kind, service, monkeypatch, capsys):
    url, answers = service
    notice = {"action": "terminate", "time": "2026-01-01T00:02:00Z"}
    loops = 12 if kind == "a loop" else 1  # as often as a redirect is followed
    answers[:] = [NONSENSE[kind]] * loops + [http("", "404 Not Found"), http(json.dumps(notice))]
    drained = []
    monkeypatch.setattr(spot_drain, "drain", lambda options, notice: bool(drained.append(notice)) or True)
    spot_drain.watch(Namespace(metadata=url, every=0))
    assert drained == [notice]
    assert capsys.readouterr().out.count("does not answer as expected") == 1


def test_an_answer_that_drips_for_ever_is_not_waited_for(service, monkeypatch):
    url, answers = service
    answers[:] = [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"]
    monkeypatch.setattr(spot_drain, "PATIENCE", -1.0)
    with pytest.raises(ValueError, match="without an end"):
        Metadata(url).notice()


def test_a_failure_while_draining_does_not_end_the_watcher(service, monkeypatch):
    url, answers = service
    answers[:] = [http('{"action": "stop"}')]
    results = [RuntimeError("unforeseen"), False, True]

    def drain(options, notice):
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(spot_drain, "drain", drain)
    spot_drain.watch(Namespace(metadata=url, every=0))
    assert results == []


def test_a_log_that_cannot_be_written_does_not_end_the_watcher(monkeypatch):
    class Full:
        def write(self, text):
            raise OSError(28, "No space left on device")

        def flush(self):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("sys.stdout", Full())
    spot_drain.say("unheard")


@pytest.mark.parametrize(
    ("time", "left"),
    [
        (5, 0),
        (None, 0),
        (["2026-01-01T00:01:00Z"], 0),
        ("", 0),
        ("soon", 0),
        ("2026-01-01T00:01:00", 60),  # no zone: UTC
        ("2026-01-01T01:01:00+01:00", 60),
        ("0001-01-01T00:00:00+14:00", 0),
        ("2026-01-01", 0),
        ("20260101T000100Z", 60),
    ],
)
def test_a_time_of_any_kind_is_understood_or_now(time, left):
    assert seconds_left({"time": time}, datetime(2026, 1, 1, tzinfo=UTC)) == left
