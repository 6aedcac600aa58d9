"""Rows that turn out to be bad while a run goes on end it with one sentence, which names row and column."""

import io

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import Dataset

from pisa_ray import IID, ConfigError, Data, PisaError
from pisa_ray.algorithm import SISA
from pisa_ray.engine.numerics import borrowed_process
from pisa_ray.engine.reports import RoundSpec
from pisa_ray.engine.worker import Worker
from pisa_ray.trainer.config import Config
from pisa_ray.trainer.prepare import prepare

ROWS = 24


def images(bad: int | None = None) -> pa.Table:
    file = io.BytesIO()
    Image.new("L", (2, 2)).save(file, "PNG")
    cells = [b"<html>" if i == bad else file.getvalue() for i in range(ROWS)]
    return pa.table({"x": cells, "y": np.arange(ROWS) % 3})


def job_of(**data):
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    return prepare(
        Config(model=model, data=Data(**data), partition=IID(2), algorithm=SISA(sigma=1.0, rho=1.0), batch_size=4)
    ).job


def refused(sentence: str, call) -> None:
    with pytest.raises(PisaError, match=sentence) as raised:
        call()
    assert not isinstance(raised.value, ConfigError)  # which would say that nothing has begun


def test_a_bad_test_image_is_found_when_it_is_evaluated():
    job = job_of(train=images(), test=images(bad=20), input="x", label="y")
    with borrowed_process(threads=1):
        worker = Worker(job, process_is_ours=False)
        published = worker.model.published()
        refused("row 20 of column 'x' cannot be read as a PNG", lambda: worker.evaluate(published, "test", [0]))


def test_a_bad_training_image_is_found_when_its_shard_is_hosted():
    job = job_of(train=images(bad=20), input="x", label="y")
    home = next(i for i, rows in enumerate(job.shards) if 20 in rows)
    with borrowed_process(threads=1):
        worker = Worker(job, process_is_ours=False)
        worker.host([1 - home])
        with pytest.raises(ConfigError, match="row 20 of column 'x' cannot be read as a PNG"):
            worker.host([home])


class Late(Dataset):
    def __len__(self):
        return ROWS

    def __getitem__(self, i):
        return torch.full((4,), torch.nan if i == 20 else 1.0), i % 3


def test_a_bad_item_of_a_torch_data_set_is_found_in_its_round():
    job = job_of(train=Late())
    home = next(i for i, rows in enumerate(job.shards) if 20 in rows)
    with borrowed_process(threads=1):
        worker = Worker(job, process_is_ours=False)
        worker.host([0, 1])
        published = worker.model.published()
        refused(
            r"^In data\.train, row 20 of column 'input' holds nan",
            lambda: [worker.step(RoundSpec(round_, 1.0, False), published, shards=[home]) for round_ in range(1, 4)],
        )


def test_a_transform_that_leaves_numbers_open_is_named_and_not_sigma():
    rows = pa.array([[float(i)] * 4 for i in range(ROWS)], pa.list_(pa.float32()))
    table = pa.table({"x": rows, "y": np.arange(ROWS) % 3})
    job = job_of(
        train=table, test=table, input="x", label="y", transform=lambda x, training: torch.where(x == 20, torch.nan, x)
    )
    home = next(i for i, rows in enumerate(job.shards) if 20 in rows)
    with borrowed_process(threads=1):
        worker = Worker(job, process_is_ours=False)
        worker.host([0, 1])
        published = worker.model.published()
        said = r"^data\.transform returns inputs that are not finite, in row \d+ of a batch of "
        refused(said, lambda: [worker.step(RoundSpec(r, 1.0, False), published, shards=[home]) for r in range(1, 4)])
        refused(said + str(ROWS), lambda: worker.evaluate(published, "test", [0]))
