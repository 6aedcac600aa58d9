"""An address of Ray is read, and one where no Ray answers is refused within seconds. Without Ray."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from pisa_ray import ConfigError
from pisa_ray.actors import address as module
from pisa_ray.actors.address import Address


@pytest.mark.parametrize(
    ("given", "environ", "text"),
    [
        (None, {}, "local"),
        (None, {"RAY_ADDRESS": ""}, "local"),
        ("", {}, "local"),
        (None, {"RAY_ADDRESS": " 10.0.0.1:6379 "}, "10.0.0.1:6379"),
        ("local", {"RAY_ADDRESS": "10.0.0.1:6379"}, "local"),
        ("auto", {}, "auto"),
        ("head.cluster:6379", {}, "head.cluster:6379"),
        ("[fd00::1]:6379", {}, "[fd00::1]:6379"),
    ],
)
def test_the_address_is_the_one_given_or_that_of_the_environment(given, environ, text):
    assert Address.of(given, environ).text == text


#: What is no address; \u00b2 and \uff16 are digits for some.
NONE = ["foo", ":6379", "10.0.0.1:", "10.0.0.1:ray", "10.0.0.1:0", "10.0.0.1:-1", "10.0.0.1:65536", "a:" + "9" * 5000]


@pytest.mark.parametrize(
    "text", [*NONE, "10.0.0.1:\u00b2", "10.0.0.1:\uff16", "a\0b:6379", "LOCAL", "10.0.0.1:6379/", "10.0.0.1 6379"]
)
@pytest.mark.parametrize("source", ["ray_address", "RAY_ADDRESS"])
def test_what_is_no_address_is_refused_by_the_name_of_what_gave_it(text, source):
    arguments = (text, {}) if source == "ray_address" else (None, {"RAY_ADDRESS": text})
    with pytest.raises(ConfigError, match=r"an address of Ray is host:port") as error:
        Address.of(*arguments)
    assert str(error.value).startswith(source)


@pytest.mark.parametrize("text", ["ray://127.0.0.1:10001", "ray://", "http://127.0.0.1:8265", "ray://host:x"])
def test_ray_client_is_refused(text):
    with pytest.raises(ConfigError, match="cannot use Ray Client"):
        Address.of(text, {})


def test_host_and_port_of_an_address():
    assert Address.of("[fd00::1]:6379", {}).host_and_port() == ("fd00::1", 6379)


@pytest.fixture
def server():
    """A server on this machine that answers with what a test says, to one connection after another."""
    it, answers = socket.create_server(("127.0.0.1", 0)), [b""]
    held = []

    def serve():
        while True:
            try:
                connection, _ = it.accept()
            except OSError:
                return
            held.append(connection)
            if answers[0] is not None:
                connection.sendall(answers[0])
                connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield Address(f"127.0.0.1:{it.getsockname()[1]}", "RAY_ADDRESS"), answers
    it.shutdown(socket.SHUT_RDWR)
    it.close()
    thread.join()
    for connection in held:
        connection.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"-ERR unknown command\r\n",
        b"\0\0",
        b"\0" * 9,
    ],
)
def test_another_server_at_the_address_is_told_from_a_ray(server, answer):
    address, answers = server
    answers[0] = answer
    with pytest.raises(ConfigError, match=r"RAY_ADDRESS is '127.0.0.1:\d+', but no Ray can be reached there"):
        address.probe()


def test_a_server_that_says_nothing_is_not_waited_for(server, monkeypatch):
    address, answers = server
    answers[0] = None
    monkeypatch.setattr(module, "PROBE", 0.05)
    with pytest.raises(ConfigError, match=r"no Ray can be reached there \(timed out\)"):
        address.probe()


def test_a_server_that_speaks_as_grpc_does_is_accepted(server):
    address, answers = server
    answers[0] = bytes([0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 5, 0, 0, 64, 0])
    address.probe()


def test_an_address_where_nobody_listens_is_refused_at_once():
    with socket.create_server(("127.0.0.1", 0)) as it:
        port = it.getsockname()[1]
    start = time.monotonic()
    with pytest.raises(ConfigError, match="no Ray can be reached there"):
        Address(f"127.0.0.1:{port}", "ray_address").probe()
    assert time.monotonic() - start < module.PROBE


def test_auto_where_no_ray_runs_says_so(monkeypatch):
    monkeypatch.setattr(module.services, "canonicalize_bootstrap_address", lambda text: None)
    with pytest.raises(ConfigError, match="no Ray runs on this machine"):
        Address("auto", "RAY_ADDRESS").probe()
