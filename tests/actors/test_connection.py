"""Nothing that hangs in Ray hangs a run. Ray's calls are played."""

from __future__ import annotations

import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import ray

from pisa_ray import ConfigError, PisaError
from pisa_ray.actors import connection, last_word, session
from pisa_ray.actors.address import Address
from pisa_ray.actors.calls import sent
from pisa_ray.actors.connection import Connection, Watch, check_ray
from pisa_ray.actors.last_word import SUDDEN, LastWord
from pisa_ray.actors.ray_processes import vital_processes
from pisa_ray.actors.session import RayResources, ray_session
from pisa_ray.errors import RayLostError, StoppedWaitingError

PATIENCE = 30

ERRORS = [ValueError("bad"), OSError(28, "No space left on device"), RuntimeError(), AssertionError("x"), SystemExit(1)]


@pytest.fixture
def played(monkeypatch):
    """A Ray whose start and end are what a test says; the process that hangs in it goes on all the same."""
    monkeypatch.setattr(connection, "check_surroundings", lambda: None)
    monkeypatch.setattr(connection.atexit, "register", lambda *_: None)
    monkeypatch.setattr(connection, "raylet_of_this_machine", lambda: None)
    monkeypatch.setattr(connection, "_hanging", [])
    monkeypatch.setattr(ray, "init", lambda **_: None)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    return monkeypatch


@pytest.fixture
def stuck():
    """A call that does not end before the test."""
    end = threading.Event()
    yield lambda **_: end.wait(PATIENCE)
    end.set()


def new() -> Connection:
    return Connection(Address("local", "RAY_ADDRESS"), {})


def test_a_start_that_hangs_is_given_up_and_no_other_ray_is_used_in_the_process(played, stuck):
    played.setattr(ray, "init", stuck)
    played.setattr(connection, "START", 0.2)
    with pytest.raises(ConfigError, match=r"Ray cannot be started here within 0\.2 s"):
        new().open(lambda: False)
    with pytest.raises(RayLostError, match="go on in a new one"), ray_session(1, 1, RayResources()):
        pass


def test_a_request_to_stop_is_heard_while_ray_starts(played, stuck):
    played.setattr(ray, "init", stuck)
    with pytest.raises(StoppedWaitingError, match="while Ray was starting"):
        new().open(lambda: True)


def test_an_interruption_is_heard_while_ray_starts(played, stuck):
    played.setattr(ray, "init", stuck)

    def interrupt() -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        new().open(interrupt)


@pytest.mark.parametrize(
    "error", [*ERRORS, KeyError("gcs"), ray.exceptions.RaySystemError("gcs"), TimeoutError("\n two\n lines")]
)
def test_whatever_ray_raises_while_it_starts_becomes_a_sentence(played, error):
    def fail(**_):
        raise error

    played.setattr(ray, "init", fail)
    with pytest.raises(ConfigError, match=r"^Ray cannot be started here: .+") as raised:
        new().open(lambda: False)
    assert "\n" not in str(raised.value)


def test_an_end_that_hangs_is_not_waited_for_and_what_is_left_ends_with_the_process(played, stuck):
    later, left = [], subprocess.Popen(["/bin/sleep", "60"], start_new_session=True)
    played.setattr(connection.atexit, "register", lambda *call: later.append(call))
    played.setattr(connection.os, "_exit", later.append)
    played.setattr(ray, "shutdown", stuck)
    played.setattr(connection, "END", 0.2)
    played.setattr(connection, "_status", [])
    it = new()
    it.open(lambda: False)
    it._last_word = word = LastWord([left.pid])
    it.close()
    assert connection.is_hanging()
    assert left.poll() is None  # else Ray's core would end this process with a status of its own
    connection.ends_with(130)
    ((leave, *arguments),) = later
    leave(*arguments)
    assert later[1:] == [130]
    word.close()  # as the end of the process would
    assert left.wait(PATIENCE) == -9


def test_what_ray_starts_is_in_sessions_of_its_own_and_gone_with_a_start_that_failed(played):
    pids = []

    def start(**_):
        command = [sys.executable, "-S", "-c", "import os, time; print(os.getsid(0), flush=True); time.sleep(60)"]
        process = connection.services.ConsolePopen(command, stdout=subprocess.PIPE)
        pids.append((process, int(process.stdout.readline())))
        raise RuntimeError("no luck")

    played.setattr(ray, "init", start)
    with pytest.raises(ConfigError, match="no luck"):
        new().open(lambda: False)
    ((process, session_),) = pids
    assert session_ == process.pid
    assert process.wait(PATIENCE) == -9
    process.stdout.close()


@pytest.mark.parametrize("name", ["gcs_server", "raylet"])
def test_a_process_of_ray_that_dies_while_ray_starts_is_noticed(played, stuck, name):
    def start(**_):
        connection.services.ConsolePopen([name], executable="/bin/false")
        stuck()

    played.setattr(ray, "init", start)
    with pytest.raises(ConfigError, match=f"its {name} ended at once"):
        new().open(lambda: False)


def test_a_ray_that_nobody_waits_for_starts_no_more_processes(played):
    go_on, ended = threading.Event(), threading.Event()

    def start(**_):
        go_on.wait(PATIENCE)
        try:
            with pytest.raises(RuntimeError, match="nobody waits"):
                connection.services.ConsolePopen(["/bin/sleep", "60"])
        finally:
            ended.set()

    played.setattr(ray, "init", start)
    with pytest.raises(StoppedWaitingError):
        new().open(lambda: True)
    go_on.set()
    assert ended.wait(PATIENCE)


def test_a_process_that_others_have_a_say_in_is_not_ended(raylet, played):
    played.setattr(connection, "NOTICE", 0.0)
    played.setattr(connection.os, "_exit", lambda status: pytest.fail("ended"))
    watch = Watch([], None)
    raylet.close()
    assert watch.gone.wait(PATIENCE)
    time.sleep(3 * connection.LOOK)
    watch.close()


@pytest.fixture
def raylet(played):
    """A watched raylet, by its end of the connection."""
    ours, its = socket.socketpair()
    played.setattr(connection, "raylet_of_this_machine", lambda: ours)
    played.setattr(connection, "vital_processes", lambda started, raylet: [])
    yield its
    its.close()
    ours.close()


def test_a_run_hears_that_the_raylet_is_gone(raylet):
    watch = Watch([], lambda text: None)
    check_ray()
    raylet.close()
    assert watch.gone.wait(PATIENCE)
    with pytest.raises(RayLostError, match=r"Ray's processes on this machine are gone .* a resume goes on"):
        check_ray()
    assert connection.is_gone()
    watch.close()
    check_ray()


def test_a_run_that_hangs_in_a_call_to_a_dead_ray_is_recorded_and_ended(raylet, played):
    ended, told = threading.Event(), []
    played.setattr(connection, "NOTICE", 0.1)
    played.setattr(connection.os, "_exit", lambda status: (told.append(status), ended.set()))
    watch = Watch([], told.append)
    raylet.close()
    assert ended.wait(PATIENCE)
    assert told == [connection.GONE, 1]
    watch.close()


def test_a_run_that_has_ended_is_not_ended_by_the_watch(raylet):
    watch = Watch([], lambda text: pytest.fail("told"))
    watch.close()
    raylet.close()
    time.sleep(3 * connection.LOOK)
    check_ray()


@pytest.mark.parametrize(
    "call", [ray.nodes, ray.cluster_resources, lambda: ray.get_actor("nobody"), lambda: ray.kill(5)]
)
def test_an_error_from_inside_ray_becomes_a_sentence_whatever_its_class(played, call):
    played.setattr(ray, "is_initialized", lambda: True)
    with pytest.raises(PisaError, match=r"^Ray failed: ."), ray_session(1, 1, RayResources()):
        call()


def test_an_error_that_is_not_ray_s_stays_what_it_is(played):
    played.setattr(ray, "is_initialized", lambda: True)
    with pytest.raises(ZeroDivisionError), ray_session(1, 1, RayResources()):
        1 / 0  # noqa: B018


def test_what_ray_raises_and_nobody_sees_to_becomes_a_sentence(played):
    played.setattr(ray, "is_initialized", lambda: True)
    with pytest.raises(PisaError, match=r"^Ray failed: .*the GCS is away"), ray_session(1, 1, RayResources()):
        raise ray.exceptions.RaySystemError("the GCS is away")


def test_ray_client_is_refused(played):
    played.setattr(session.ray_client.ray, "is_connected", lambda: True)
    with pytest.raises(ConfigError, match="Ray Client"), ray_session(1, 1, RayResources()):
        pass


VITAL = ["/ray/gcs_server", "/ray/raylet", "ray::RuntimeEnvAgent", "ray::DashboardAgent"]


@pytest.mark.parametrize("name", [*VITAL, "ray::IDLE", "redis-server", "python"])
def test_the_end_of_a_process_that_ray_cannot_do_without_is_noticed(name):
    vital = name in VITAL
    process = subprocess.Popen([name, "60"], executable="/bin/sleep")
    found = vital_processes([process.pid], None)
    assert len(found) == vital
    poll = select.poll()
    for file in found:
        poll.register(file, select.POLLIN)
    assert poll.poll(0) == []
    process.kill()
    if vital:
        assert poll.poll(PATIENCE * 1000)
    process.wait(PATIENCE)
    for file in found:
        os.close(file)


def test_agents_are_found_as_children_of_their_raylet():
    script = "exec 3>&1; /bin/bash -c 'echo $$ >&3; exec -a ray::RuntimeEnvAgent sleep 60' & wait"
    raylet = subprocess.Popen(["/bin/sh", "-c", script], stdout=subprocess.PIPE)
    agent = int(raylet.stdout.readline())
    until = time.monotonic() + PATIENCE
    while not Path(f"/proc/{agent}/cmdline").read_bytes().startswith(b"ray::"):  # it has its name after the exec
        assert time.monotonic() < until
    (found,) = vital_processes([raylet.pid], None)
    os.kill(agent, signal.SIGKILL)
    poll = select.poll()
    poll.register(found, select.POLLIN)
    assert poll.poll(PATIENCE * 1000)
    os.close(found)
    raylet.wait(PATIENCE)
    raylet.stdout.close()


LAST = """
import os, runpy, sys
word = runpy.run_path(sys.argv[1])["LastWord"]([int(sys.argv[3])])
if sys.argv[2] == "closed":
    word.close()
os._exit(7)
"""


@pytest.mark.parametrize("how", ["closed", "sudden"])
def test_a_sudden_end_has_a_sentence_and_leaves_no_process(how):
    other = subprocess.Popen(["/bin/sleep", "60"], start_new_session=True)
    done = subprocess.run(
        [sys.executable, "-S", "-c", LAST, last_word.__file__, how, str(other.pid)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 7
    assert done.stderr.strip() == (SUDDEN if how == "sudden" else "")
    assert other.wait(PATIENCE) == -9


def test_no_shell_is_no_error(monkeypatch):
    def missing(*_, **__):
        raise FileNotFoundError(2, "No such file or directory", "/bin/sh")

    monkeypatch.setattr(subprocess, "Popen", missing)
    LastWord().close()


@pytest.mark.parametrize(
    "error",
    [TypeError("cannot pickle '_thread.lock' object"), AttributeError("x"), pickle.PicklingError("y"), OSError()],
)
def test_what_cannot_be_sent_to_workers_is_refused(monkeypatch, error):
    def put(value):
        raise error

    monkeypatch.setattr(ray, "put", put)
    with pytest.raises(ConfigError, match="cannot be sent to workers"):
        sent(object())


def test_an_object_store_that_is_full_is_told(monkeypatch):
    def put(value):
        raise ray.exceptions.ObjectStoreFullError

    monkeypatch.setattr(ray, "put", put)
    with pytest.raises(PisaError, match="Ray cannot hold"):
        sent(object())
