"""One driver at a time is at work in a folder: the others are told whose it is, and leave nothing."""

from __future__ import annotations

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
