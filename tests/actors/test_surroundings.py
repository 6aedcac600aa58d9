"""What Ray needs of a machine is looked at before Ray is started. Without Ray."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from types import SimpleNamespace

import pytest

from pisa_ray import ConfigError
from pisa_ray.actors import surroundings
from pisa_ray.actors.surroundings import check_surroundings


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An environment in which a Ray can be started."""
    monkeypatch.setattr(surroundings.tempfile, "tempdir", "/tmp")  # noqa: S108 - pytest's own is long
    return {"HOME": str(tmp_path)}


def test_a_usable_home_is_accepted_and_nothing_is_left_there(home, tmp_path):
    check_surroundings(home)
    assert list((tmp_path / ".ray").iterdir()) == []


@pytest.mark.parametrize("text", ["/proc/1", "/proc", "/dev/null", "/nowhere\0", "/" + "x" * 5000])
def test_a_home_that_cannot_be_written_is_refused_by_name(home, text):
    with pytest.raises(ConfigError, match=r"^HOME is .*auth_token.*set HOME to a folder"):
        check_surroundings(home | {"HOME": text})


def test_without_home_it_is_the_user_s_and_one_who_has_none_is_refused(monkeypatch, tmp_path):
    environ = {"RAY_TMPDIR": "/tmp"}  # noqa: S108
    monkeypatch.setattr(surroundings.pwd, "getpwuid", lambda user: SimpleNamespace(pw_dir=str(tmp_path)))
    check_surroundings(environ)
    assert (tmp_path / ".ray").is_dir()

    def unknown(user):
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr(surroundings.pwd, "getpwuid", unknown)
    with pytest.raises(ConfigError, match=r"^HOME is not set, and user \d+ has no home"):
        check_surroundings(environ)


@pytest.mark.parametrize("key", ["RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"])
def test_home_does_not_matter_where_the_token_is_given(home, key):
    check_surroundings(home | {"HOME": "/proc/1", key: "x"})


def test_home_does_not_matter_where_no_token_is_wanted_or_there_is_one(home, tmp_path):
    check_surroundings(home | {"HOME": "/proc/1", "RAY_AUTH_MODE": "disabled"})
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("secret")
    check_surroundings(home)
    assert (tmp_path / ".ray" / "auth_token").read_text() == "secret"


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
@pytest.mark.parametrize(
    ("folder", "why"),
    [
        ("/scratch/gone", "No such file"),
        ("/proc/nowhere", "No such file"),
        ("/proc/1", "must write there"),
        ("/dev/null", "Not a directory"),
        ("/tmp/\0", "null byte"),  # noqa: S108
        ("", "must write there|too long"),
    ],
)
def test_a_temporary_folder_that_cannot_be_used_is_refused_by_name(home, name, folder, why, monkeypatch):
    monkeypatch.chdir("/proc")  # what is relative is there
    with pytest.raises(ConfigError, match=why) as error:
        check_surroundings(home | {name: folder})
    assert str(error.value).startswith(f"{name} is {folder!r}")
    assert "set RAY_TMPDIR" in str(error.value)


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_a_temporary_folder_that_is_too_long_for_sockets_is_refused_by_name(home, name, tmp_path):
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    with pytest.raises(ConfigError, match=rf"^{name} is .* characters too long for the sockets"):
        check_surroundings(home | {name: str(folder)})


def test_letters_of_several_bytes_count_as_such(home):
    folder = Path("/tmp") / ("é" * 20)  # noqa: S108
    folder.mkdir(exist_ok=True)
    try:
        with pytest.raises(ConfigError, match="characters too long"):
            check_surroundings(home | {"TMPDIR": str(folder)})
    finally:
        folder.rmdir()


def test_ray_s_own_variable_goes_before_the_common_one(home):
    check_surroundings(home | {"RAY_TMPDIR": "/tmp", "TMPDIR": "/scratch/gone"})  # noqa: S108


def test_a_folder_of_ray_that_belongs_to_somebody_else_is_refused(home, tmp_path, monkeypatch):
    def refused(folder):
        if folder.name == "ray":
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(surroundings, "_try", refused)
    os.makedirs("/tmp/ray", exist_ok=True)  # noqa: S108
    with pytest.raises(ConfigError, match="Permission denied"):
        check_surroundings({"RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": "/tmp"})  # noqa: S108


@pytest.mark.parametrize(("limit", "fine"), [(64, False), (256, False), (1024, True), (resource.RLIM_INFINITY, True)])
def test_few_open_files_are_refused(home, limit, fine, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda which: (64, limit))
    if fine:
        check_surroundings(home)
    else:
        with pytest.raises(ConfigError, match=rf"a process may have {limit} open files here"):
            check_surroundings(home)
