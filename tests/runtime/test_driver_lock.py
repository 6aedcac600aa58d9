"""One driver at a time: the lock on a run directory, and directories that cannot be written."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading

import pytest
from runs import plain_net, run

from pisa_ray import ConfigError
from pisa_ray.trainer.run_directory import RunDirectory


def test_the_lock_is_held_while_a_run_goes_on(tmp_path):
    seen, path = [], tmp_path / "run"

    def looking():
        seen.append(RunDirectory(path).is_running())
        return plain_net()

    run(path, model=looking, rounds=1)
    assert seen[-1]
    assert not RunDirectory(path).is_running()


def test_a_drivers_death_releases_the_lock(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from pisa_ray.trainer.run_directory import RunDirectory\n"
        "with RunDirectory(Path(sys.argv[1])).lock():\n"
        "    import subprocess; subprocess.Popen(['sleep', '600'], close_fds=False)\n"  # is not handed the lock
        "    print('held', flush=True); time.sleep(600)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, str(tmp_path)]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    try:
        assert driver.stdout.readline() == "held\n"
        directory = RunDirectory(tmp_path)
        assert directory.is_running()
        with pytest.raises(ConfigError, match=f"in use by the run of process {driver.pid}:"), directory.lock():
            pass
        driver.kill()
        driver.wait()
        assert not directory.is_running()
        with directory.lock():
            pass
    finally:
        os.killpg(driver.pid, signal.SIGKILL)
        driver.stdout.close()


def test_of_many_drivers_one_gets_the_lock(tmp_path):
    held, refused, most = [], [], []
    start = threading.Barrier(8)

    def drive():
        directory = RunDirectory(tmp_path / "run")
        start.wait()
        for _ in range(20):
            try:
                with directory.lock():
                    held.append(1)
                    most.append(len(held))
                    held.pop()
            except ConfigError:
                refused.append(1)

    threads = [threading.Thread(target=drive) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(most) == {1}


def test_a_refused_start_leaves_no_folder(tmp_path):
    directory = RunDirectory(tmp_path / "a" / "b")
    with pytest.raises(RuntimeError), directory.lock():
        raise RuntimeError
    assert not (tmp_path / "a").exists()


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("mount"), reason="root may write anywhere, mount is missing")
def test_a_read_only_folder_is_refused_before_round_1(tmp_path):
    below = tmp_path / "read-only"
    below.mkdir()
    if os.geteuid() == 0:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(below)], check=False, capture_output=True
        )
        if mounted.returncode:
            pytest.skip("no file system may be mounted here")
    else:
        below.chmod(0o500)
    try:
        with pytest.raises(ConfigError, match=r"the run directory .* cannot be written .*: use another run_config"):
            run(below / "run")
    finally:
        if os.geteuid() == 0:
            subprocess.run(["umount", str(below)], check=True)
