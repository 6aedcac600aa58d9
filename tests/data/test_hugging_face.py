"""Data sets of the package `datasets` are read as they are: selected, shuffled, formatted, with images and arrays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from pisa_ray import ConfigError, Data
from pisa_ray.data import open_source

hf = pytest.importorskip("datasets")

N = 12
RANDOM = np.random.default_rng(0)
X, Y = RANDOM.normal(size=(N, 3)).astype(np.float32), RANDOM.integers(0, 3, N)
IMAGES = RANDOM.integers(0, 255, (N, 4, 5, 3)).astype(np.uint8)
DATASET = hf.Dataset.from_dict({"x": X.tolist(), "y": Y.tolist(), "a": X[:, 0].tolist(), "b": X[:, 1].tolist()})


def rows(dataset, inputs="x"):
    source = open_source(dataset, input=inputs, label="y")
    x, y = source.read(np.arange(source.rows)).batch(np.arange(source.rows))
    return x.numpy(), y.numpy(), source.labels()


@pytest.mark.parametrize("form", [None, "torch", "numpy", "arrow", "pandas"])
def test_rows_are_the_same_in_any_format(form):
    x, y, labels = rows(DATASET if form is None else DATASET.with_format(form))
    np.testing.assert_array_equal(x.astype(np.float32), X)
    np.testing.assert_array_equal(y, Y)
    np.testing.assert_array_equal(labels, Y)
    np.testing.assert_array_equal(rows(DATASET.with_format("torch", columns=["y"]), ["a", "b"])[0], X[:, :2])


def test_what_is_selected_and_shuffled_is_read_so():
    np.testing.assert_array_equal(rows(DATASET.select([3, 1]))[0].astype(np.float32), X[[3, 1]])
    shuffled = DATASET.shuffle(seed=1).select(range(5))
    np.testing.assert_array_equal(rows(shuffled)[1], shuffled["y"])
    assert open_source(shuffled, input="x", label="y").rows == 5


def test_names_of_classes_are_their_numbers():
    named = DATASET.cast_column("y", hf.ClassLabel(names=["cat", "dog", "eel"]))
    np.testing.assert_array_equal(rows(named)[2], Y)


def test_images_are_decoded_also_from_paths(tmp_path):
    for i, pixels in enumerate(IMAGES):
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    paths = [str(tmp_path / f"{i}.png") for i in range(N)]
    features = hf.Features(x=hf.Image(), y=hf.Value("int64"))
    for images in ([Image.fromarray(pixels) for pixels in IMAGES], paths):
        x, _, _ = rows(hf.Dataset.from_dict({"x": images, "y": Y.tolist()}, features=features))
        np.testing.assert_array_equal(x, IMAGES.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("shape", [(4, 5), (2, 3, 4)])
def test_arrays_keep_shape_and_type(shape):
    kind = {2: hf.Array2D, 3: hf.Array3D}[len(shape)](shape, "uint8")
    arrays = RANDOM.integers(0, 255, (N, *shape)).astype(np.uint8)
    features = hf.Features(x=kind, y=hf.Value("int64"))
    dataset = hf.Dataset.from_dict({"x": arrays, "y": Y.tolist()}, features=features)
    for spec, chosen in ((dataset.select([2, 0]), [2, 0]), (dataset.data.table, range(N))):
        x, _, _ = rows(spec)
        assert x.dtype == np.uint8
        np.testing.assert_array_equal(x, arrays[chosen])


def test_a_transform_of_the_users_makes_the_items():
    def double(batch):
        return {"x": [2 * torch.tensor(x) for x in batch["x"]], "y": batch["y"]}

    source = open_source(DATASET.with_transform(double), input="x", label="y")
    x, y = source.read(np.arange(N)).batch(np.arange(N))
    np.testing.assert_allclose(x, 2 * X, rtol=1e-6)
    np.testing.assert_array_equal(y, Y)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (
            hf.DatasetDict(train=DATASET, test=DATASET),
            "data.train is a DatasetDict of the splits 'train', 'test'",
        ),
        (DATASET.to_iterable_dataset(), "data.train is an IterableDataset, whose rows come one after another"),
        (
            hf.IterableDatasetDict(train=DATASET.to_iterable_dataset()),
            "data.train is an IterableDatasetDict of the splits",
        ),
    ],
)
def test_splits_and_streams_are_refused_with_a_remedy(spec, sentence):
    with pytest.raises(ConfigError) as error:
        Data(train=spec, input="x", label="y").open()
    assert str(error.value).startswith(sentence)
