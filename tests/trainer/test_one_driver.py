"""One driver at a time is at work in a folder: the others are told whose it is, and leave nothing."""

from __future__ import annotations

import errno
import fcntl
import os

import pytest

from pisa_ray.errors import ConfigError
from pisa_ray.trainer.run_lock import RunLock


def test_while_one_holds_it_nobody_else_can(tmp_path):
    one, other = RunLock(tmp_path / "run"), RunLock(tmp_path / "run")
    assert not other.is_held()
    with one.hold():
        one.check_free()  # it is its own
        assert other.is_held()
        for refused in (other.check_free, other.hold().__enter__):
            with pytest.raises(ConfigError, match=rf"is in use by the run of process {os.getpid()}"):
                refused()
        assert other.is_held()
    assert not other.is_held()
    other.check_free()
    with other.hold():
        assert one.is_held()


def test_a_file_that_is_left_of_a_driver_that_died_keeps_nobody_out(tmp_path):
    (tmp_path / ".lock").write_text("1 elsewhere")
    lock = RunLock(tmp_path)
    assert not lock.is_held()
    with lock.hold():
        assert (tmp_path / ".lock").read_text() == f"{os.getpid()} {os.uname().nodename}"
    assert list(tmp_path.iterdir()) == []


def test_an_error_inside_lets_it_go(tmp_path):
    with pytest.raises(KeyError), RunLock(tmp_path / "a" / "run").hold():
        raise KeyError
    assert list(tmp_path.iterdir()) == []  # folders that were made for it are gone


def after_the_lock(monkeypatch, then):
    """Let something happen once, between a file's being locked and a look at what has its name."""
    lock, left = fcntl.flock, [then]

    def flock(handle, how):
        lock(handle, how)
        if left:
            left.pop()()

    monkeypatch.setattr(fcntl, "flock", flock)


def test_a_file_that_a_driver_took_away_as_it_ended_is_no_lock(tmp_path, monkeypatch):
    file = tmp_path / ".lock"
    after_the_lock(monkeypatch, file.unlink)
    with RunLock(tmp_path).hold():
        assert file.exists()
        assert RunLock(tmp_path).is_held()


def test_a_file_that_was_replaced_is_no_lock_though_another_link_to_it_remains(tmp_path, monkeypatch):
    file = tmp_path / ".lock"

    def replace():
        file.rename(tmp_path / "link")
        file.write_text("77 elsewhere")

    after_the_lock(monkeypatch, replace)
    with pytest.raises(ConfigError, match="in use by the run of process 77 on elsewhere:"), RunLock(tmp_path).hold():
        pass
    assert file.read_text() == "77 elsewhere"


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_a_file_system_has_no_locks_nobody_is_kept_out(tmp_path, monkeypatch, number):
    def flock(handle, how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with RunLock(tmp_path).hold():
        assert not RunLock(tmp_path).is_held()
    assert list(tmp_path.iterdir()) == []
