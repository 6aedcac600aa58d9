"""What a run has learned: its model in evaluation mode, last or best, with the preparation of its inputs."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image
from torch import nn

import pisa_ray
from pisa_ray import IID, SISAD, ConfigError, Data, Groups, PisaTrainer
from pisa_ray.cli.main import main
from pisa_ray.trainer.settings import Run


class Net(nn.Module):
    """With running statistics, a counter and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(36, 3)
        )

    def forward(self, x):
        return self.body(x)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Colour images of bytes, whose means and deviations are those of the training file."""
    folder, luck = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, rows in (("train", 60), ("test", 30)):
        labels = luck.integers(0, 3, rows)
        level = 90 + 40 * labels[:, None, None, None]
        level = 90 + 40 * labels[:, None, None, None]
        pixels = np.clip(luck.normal(level, 20, (rows, 8, 8, 3)), 0, 255).astype(np.uint8)
        cells = []
        for image in pixels:
            Image.fromarray(image).save(cell := io.BytesIO(), format="PNG")
            cells.append(cell.getvalue())
        pq.write_table(pa.table({"image": cells, "label": labels}), folder / f"{split}.parquet")
    return Data(train=folder / "train.parquet", test=folder / "test.parquet", input="image", label="label")


def run(folder: Path, data: Data, **changes):
    arguments = {
        "model": Net,
        "partition": IID(3),
        "rounds": 6,
        "batch_size": 8,
        "evaluate_every": 1,
        "checkpoint_every": 1,
        "scaling_config": 0,
        "run_config": folder / "run",
        "progress": False,
    }
    return PisaTrainer(data=data, **arguments | changes).fit()


def accuracy(trained: pisa_ray.Trained, data: Data) -> float:
    test = data.open().test
    inputs, targets = test.read(np.arange(test.rows)).batch(np.arange(test.rows))
    return float((trained(inputs).argmax(1) == targets).double().mean())


def by(metric: str, order: str, path: Path) -> Run:
    return Run(path, keep=1, best_by=metric, order=order)


def test_predictions_are_those_of_the_evaluation(tmp_path, images):
    result = run(tmp_path, images)
    trained = pisa_ray.load(result.path, trust=True)
    assert not trained.model.training
    assert trained.round == 6
    assert accuracy(trained, images) == pytest.approx(result.metrics["test_accuracy"], abs=1e-12)
    assert accuracy(result.load_model(), images) == accuracy(trained, images)
    assert trained.preprocess.mean is not None  # recorded, though nobody gave it
    assert trained.preprocess == result.load_model().preprocess


@pytest.mark.parametrize("order", ["max", "min"])
def test_the_best_weights_are_those_of_their_round(tmp_path, images, order):
    result = run(tmp_path, images, run_config=by("test_loss", order, tmp_path / "run"))
    rows = {row["round"]: row for row in result.history}
    trained = result.load_model(best=True)
    assert trained.round == (max if order == "max" else min)(rows, key=lambda round_: rows[round_]["test_loss"])
    assert accuracy(trained, images) == pytest.approx(rows[trained.round]["test_accuracy"], abs=1e-12)
    assert trained.model.body[1].num_batches_tracked == trained.round
    assert all(p.is_leaf and p.grad is None for p in trained.model.parameters())


def test_frozen_groups_have_best_weights_too(tmp_path, images):
    method = Groups(groups={"body.0.*": None, "rest": SISAD()})
    run(tmp_path, images, algorithm=method, run_config=by("test_loss", "min", tmp_path / "run"))
    trained = pisa_ray.load(tmp_path / "run", best=True, model=Net)
    assert accuracy(trained, images) > 0


def test_the_best_weights_of_groups_without_a_name(tmp_path, images):
    groups = {"first": (lambda slot: slot.name.startswith("body.0"), None), "rest": SISAD()}
    result = run(tmp_path, images, algorithm=Groups(groups=groups), run_config=by("test_loss", "min", tmp_path / "run"))
    assert accuracy(result.load_model(best=True), images) > 0


def test_a_model_of_the_library_needs_nothing_but_the_run(tmp_path, monkeypatch):
    config = {"data": {"dataset": "digits"}, "partition": {"kind": "iid", "shards": 2},
              "model": {"kind": "mlp", "hidden": [8]}, "rounds": 2, "workers": 0}  # fmt: skip
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    assert main(["train", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "run"), "--quiet"]) == 0
    (tmp_path / "c.yaml").unlink()
    trained = pisa_ray.load(tmp_path / "run")
    assert trained(np.zeros((5, 64), dtype=np.float32)).shape == (5, 10)


def test_a_transform_is_the_preparation(tmp_path):
    result = run(tmp_path, Data(train="digits", transform=halved), model=lambda: nn.Linear(64, 10))
    assert result.load_model().preprocess(torch.ones(2, 64), training=False)[0, 0] == 0.5
    trained = pisa_ray.load(result.path, model=lambda: nn.Linear(64, 10), transform=halved)
    assert torch.equal(trained(torch.ones(2, 64)), result.load_model()(torch.ones(2, 64)))


def halved(x, training):
    return x / 2


def test_what_cannot_be_loaded_is_said(tmp_path, images):
    with pytest.raises(ConfigError, match="is not a run directory"):
        pisa_ray.load(tmp_path)
    result = run(tmp_path, images, model=lambda: nn.Sequential(Net()).eval())
    with pytest.raises(ConfigError, match=r"^model was the function .*<lambda>.* cannot name: give model=\.$"):
        pisa_ray.load(result.path)
    with pytest.raises(ConfigError, match=r"^best is True, but the run kept no checkpoint by a metric"):
        result.load_model(best=True)
    with pytest.raises(ConfigError, match="does not fit the model"):
        pisa_ray.load(result.path, model=lambda: nn.Linear(3, 2))
    result.model_path.unlink()
    with pytest.raises(ConfigError, match=r"has no model.safetensors yet: let the run end, or resume it\.$"):
        pisa_ray.load(result.path, model=Net)
    (result.path / "partition.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"partition.json does not say what the model's inputs are"):
        pisa_ray.load(result.path, model=Net)


def test_code_of_a_run_needs_trust(tmp_path, images):
    with pytest.raises(ConfigError, match=r"model.factory is 'test_trained:Net', code that .* trust=True to run it"):
        pisa_ray.load(run(tmp_path, images).path)
