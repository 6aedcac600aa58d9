"""`pisa-ray resize` and `PisaTrainer.resize` on runs that are going on; what is left behind by many resizes."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import METHODS, events, plain_net, run, uneven
from test_interrupt import command
from torch import nn

from pisa_ray import SISAD, ConfigError, Data, Geometric, PisaError, PisaTrainer
from pisa_ray.actors import RayFleet, RayResources, Staffing, Wanted, core
from pisa_ray.cli.main import main
from pisa_ray.engine.reports import RoundSpec
from pisa_ray.trainer.config import Config
from pisa_ray.trainer.prepare import prepare


def wait_for(what: Any, seconds: float = 120) -> Any:
    until = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.05)
    return found


@pytest.mark.ray
@pytest.mark.slow
def test_the_command_changes_a_run_that_is_going_on(tmp_path, capsys):
    out = tmp_path / "run"
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    settings = ["--set=workers={min: 1, max: 2}", "--set=evaluate_every=1000"]
    process = subprocess.Popen(
        [*command(out, 100_000), *settings], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        wait_for(lambda: process.poll() is not None or events(out, "worker_started"))
        wait_for(lambda: process.poll() is not None or (out / "metrics.jsonl").exists())
        assert main(["resize", str(out), "1"]) == 0
        assert wait_for(lambda: events(out, "resized"))[0]["workers"] == 1
        assert len(events(out, "worker_left")) == 1
        assert main(["resize", str(out), "2"]) == 0
        wait_for(lambda: len(events(out, "resized")) == 2)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "1 workers now, 2 before" in err
    assert main(["resize", str(out), "2"]) == 2
    assert "no run is going on in" in capsys.readouterr().err
    result = json.loads((out / "result.json").read_text())
    same = ["--set=checkpoint.every=null", "--set=workers=0", f"--set=rounds={result['rounds']}", "--quiet"]
    assert main(["train", command(out, 0)[4], "--out", str(tmp_path / "alone"), *same]) == 0
    assert json.loads((tmp_path / "alone" / "result.json").read_text())["weights_sha256"] == result["weights_sha256"]


def test_bad_sizes_are_refused(tmp_path, capsys):
    assert main(["resize", str(tmp_path), "2"]) == 2
    assert "is not a run directory" in capsys.readouterr().err
    trainer = PisaTrainer(
        model=plain_net,
        data=Data(train="digits"),
        partition=uneven(),
        rounds=1,
        scaling_config=0,
        run_config=tmp_path / "run",
    )
    with pytest.raises(ConfigError, match="workers is 0, but a run can be resized to 1 or more"):
        trainer.resize(0)
    with pytest.raises(ConfigError, match="scaling_config 0 is in one process"):
        trainer.resize(2)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_trainer_can_be_resized_from_another_thread(tmp_path):
    undisturbed = run(tmp_path / "undisturbed", rounds=400, evaluate_every=100)
    trainer = PisaTrainer(
        **arguments(), scaling_config=1, run_config=tmp_path / "run", rounds=400, evaluate_every=100, progress=False
    )
    done: list[Any] = []
    thread = threading.Thread(target=lambda: done.append(trainer.fit()))
    thread.start()
    wait_for(lambda: events(tmp_path / "run", "worker_started"))
    trainer.resize(3)
    thread.join(timeout=300)
    assert done[0].weights_sha256 == undisturbed.weights_sha256
    assert len(events(tmp_path / "run", "resize_requested")) == 1


def arguments() -> dict[str, Any]:
    return {
        "model": plain_net,
        "data": Data(train="digits", test="digits:test"),
        "partition": uneven(),
        "algorithm": METHODS["sisa"],
        "sigma_schedule": Geometric(0.9, 2),
        "batch_size": 16,
        "checkpoint_every": None,
    }


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_nothing_is_left_behind_by_rounds_and_resizes():
    """References, threads and open files of the driver after 40 rounds and after 160, with a resize every ten."""
    from ray._private.worker import global_worker

    job = prepare(
        Config(model=plain_net, data=Data(train="digits"), partition=uneven(), algorithm=SISAD(sigma=60, rho=540))
    ).job
    it = RayFleet(job, Staffing(Wanted(1, 2, look_every=0.0)), RayResources())
    counts = []
    try:
        for round_ in range(1, 161):
            if round_ % 10 == 0:
                it.resize(1 + round_ // 10 % 2)
            it.tend()
            it.begin(RoundSpec(round_, 1.0, False))
            it.end()
            if round_ in (39, 159):
                gc.collect()
                references = len(global_worker.core_worker.get_all_reference_counts())
                files = len(list(Path("/proc/self/fd").iterdir()))
                threads, files = (len(list(Path(f"/proc/self/{name}").iterdir())) for name in ("task", "fd"))
                counts.append((references - len(it.snapshots.window), threads, files))
    finally:
        it.close()
    (references, threads, files), (later, more_threads, more_files) = counts
    assert later <= references + 15  # a few calls may be under way
    assert more_threads <= threads + 4
    assert more_files <= files + 8


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_worker_that_lives_and_never_answers_is_not_waited_for_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(core, "LONGEST_CALL", 3.0)
    with pytest.raises(PisaError, match=r"a worker did not finish the round within 3 s, though its process is alive"):
        run(tmp_path / "run", workers=1, model=Asleep)


class Asleep(nn.Linear):
    """Never comes back from its third batch."""

    def __init__(self) -> None:
        super().__init__(64, 10)
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: Any) -> Any:
        if self.training:
            self.seen += 1
        while self.seen >= 3:
            time.sleep(0.1)
        return super().forward(x)
