"""The optimizers in other people's loops, by the code of docs/optim.md: processes, transformers.Trainer, Lightning."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

PAGE = (Path(__file__).parents[2] / "docs" / "optim.md").read_text()

pytestmark = pytest.mark.slow  # 5 to 20 seconds of imports each


def code(heading: str) -> str:
    """The Python code under a heading of the page."""
    return re.search(rf"## {heading}\n.*?```python[^\n]*\n(.*?)```", PAGE, re.S).group(1)


def test_processes_of_ddp_stay_together_and_learn(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(
        code("DistributedDataParallel") + "torch.save((loss.item(), net.module.state_dict()), f'{rank}.pt')\n"
    )
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    surroundings = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False, env=surroundings)
    assert done.returncode == 0, done.stderr
    (loss, net), (other_loss, other) = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert max(loss, other_loss) < 1.5
    assert all(torch.equal(net[name], other[name]) for name in net)
    assert list(torch.load(tmp_path / "net.pt")) == list(net)


def test_transformers_trainer_takes_it_and_goes_on_from_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    straight: dict[str, Any] = {}
    torch.manual_seed(1)
    exec(code("transformers.Trainer"), straight)  # noqa: S102
    losses = [row["loss"] for row in straight["trainer"].state.log_history if "loss" in row]
    assert losses[-1] < losses[0] - 0.5
    again: dict[str, Any] = {}
    torch.manual_seed(1)
    resumed = code("transformers.Trainer").replace(".train()", ".train(resume_from_checkpoint='out/checkpoint-15')")
    exec(resumed, again)  # noqa: S102
    for one, other in zip(straight["model"].parameters(), again["model"].parameters(), strict=True):
        assert torch.equal(one, other)


def test_lightning_takes_it_and_goes_on_from_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    found: dict[str, Any] = {"__name__": "lightning_example"}
    exec(code("Lightning"), found)  # noqa: S102
    fit = found["fit"]
    assert float(fit.callback_metrics["loss"]) < 1.5
    assert fit.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.1)

    def ended(epochs: int, checkpoint: str | None) -> list[torch.Tensor]:
        torch.manual_seed(0)
        quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "accelerator": "cpu"}
        trainer, net = found["lightning"].Trainer(max_epochs=epochs, **quiet), found["Digits"]()
        trainer.fit(net, torch.utils.data.DataLoader(found["rows"], batch_size=16), ckpt_path=checkpoint)
        trainer.save_checkpoint(f"{epochs}.ckpt")
        return [p.detach() for p in net.parameters()]

    ended(3, None)
    assert all(map(torch.equal, ended(6, "3.ckpt"), ended(6, None)))
