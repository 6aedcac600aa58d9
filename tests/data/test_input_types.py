"""Which column type becomes which tensor, and the setting that says otherwise."""

import io

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from pisa_ray import Data
from pisa_ray.data import Noise, default_preprocess, open_source
from pisa_ray.errors import ConfigError

ROWS = 6
NUMBERS = np.arange(ROWS * 4).reshape(ROWS, 4) % 11


def model_inputs(data: Data) -> torch.Tensor:
    """What the model gets of all rows."""
    opened = data.open()
    x, _ = opened.train.read(np.arange(ROWS)).batch(np.arange(ROWS))
    return opened.preprocess(x, training=True)


def table(x: pa.Array, **columns) -> pa.Table:
    return pa.table({"x": x, "y": [i % 2 for i in range(ROWS)], **columns})


INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
REALS = [pa.float16(), pa.float32(), pa.float64()]


@pytest.mark.parametrize("kind", INTEGERS)
@pytest.mark.parametrize("lists", [pa.list_, lambda kind: pa.list_(kind, 4), pa.large_list])
def test_lists_of_integers_stay_integers(kind, lists):
    x = model_inputs(Data(train=table(pa.array(NUMBERS.tolist(), lists(kind))), input="x", label="y"))
    assert x.dtype == torch.int64
    assert x.tolist() == NUMBERS.tolist()
    assert torch.nn.Embedding(11, 3)(x).shape == (ROWS, 4, 3)


@pytest.mark.parametrize("kind", [*REALS, pa.bool_()])
def test_lists_of_real_numbers_and_of_booleans_become_float32(kind):
    values = (NUMBERS % 2).astype(kind.to_pandas_dtype())
    x = model_inputs(Data(train=table(pa.array(list(values), pa.list_(kind))), input="x", label="y"))
    assert x.dtype == torch.float32
    assert x.tolist() == (NUMBERS % 2).tolist()


@pytest.mark.parametrize("kind", [*INTEGERS, *REALS, pa.bool_()])
def test_columns_of_single_numbers_become_one_row_of_float32(kind):
    values = (NUMBERS[:, 0] % 2).astype(kind.to_pandas_dtype())
    for columns in ("x", ["x", "y"]):
        x = model_inputs(Data(train=table(pa.array(values, kind)), input=columns, label="y"))
        assert (x.dtype, x.shape[1]) == (torch.float32, 1 if columns == "x" else 2)


def test_columns_of_single_integers_stay_exact_integers_where_that_is_asked_for():
    large = table(pa.array([2**24 + 1 + i for i in range(ROWS)]))
    assert model_inputs(Data(train=large, input=["x", "y"], label="y")).tolist()[0][0] == 2**24  # float32 has 24 bits
    x = model_inputs(Data(train=large, input=["x", "y"], label="y", dtype="int64"))
    assert (x.dtype, x.tolist()[0]) == (torch.int64, [2**24 + 1, 0])


def test_categories_that_are_numbers_are_numbers():
    categories = pa.array(NUMBERS[:, 0] % 2).dictionary_encode()
    x = model_inputs(Data(train=table(categories), input=["x", "y"], label="x"))
    assert (x.dtype, x.tolist()[1]) == (torch.float32, [0.0, 1.0])


def test_images_of_bytes_are_scaled_or_stay_bytes_where_that_is_asked_for():
    pixels = np.arange(ROWS * 16, dtype=np.uint8).reshape(ROWS, 4, 4)
    files = []
    for image in pixels:
        Image.fromarray(image).save(file := io.BytesIO(), "PNG")
        files.append(file.getvalue())
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(pixels[:, None].copy())
    for x in (pa.array(files), tensors):
        scaled = model_inputs(Data(train=table(x), input="x", label="y"))
        assert torch.equal(scaled, torch.from_numpy(pixels[:, None]).float() * (1 / 255))
        as_they_are = model_inputs(Data(train=table(x), input="x", label="y", dtype="int64"))
        assert as_they_are.dtype == torch.int64
        assert as_they_are.tolist() == pixels[:, None].tolist()


@pytest.mark.parametrize(
    ("stored", "got"),
    [
        *((kind, torch.int64) for kind in (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8)),
        *((kind, torch.float32) for kind in (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool)),
        (torch.complex64, torch.complex64),
        (torch.complex128, torch.complex64),
    ],
)
def test_tensors_keep_their_kind(stored, got):
    data = TensorDataset(torch.from_numpy(NUMBERS).to(stored), torch.arange(ROWS))
    assert model_inputs(Data(train=data)).dtype == got
    if not stored.is_complex:
        assert model_inputs(Data(train=data, dtype="float32")).dtype == torch.float32


def test_integers_that_are_scaled_are_real_numbers():
    data = TensorDataset(torch.from_numpy(NUMBERS), torch.arange(ROWS))
    assert model_inputs(Data(train=data, scale=0.5)).tolist() == (NUMBERS / 2).tolist()
    assert model_inputs(Data(train=data, mean=(1.0,), std=(2.0,))).dtype == torch.float32
    assert model_inputs(Data(train=data, dtype="float32")).tolist() == NUMBERS.tolist()


def test_a_transform_gets_what_is_stored():
    data = TensorDataset(torch.from_numpy(NUMBERS).short(), torch.arange(ROWS))
    assert model_inputs(Data(train=data, transform=lambda x, training: x)).dtype == torch.int16


REAL = TensorDataset(torch.rand(ROWS, 2), torch.arange(ROWS))
WHOLE = TensorDataset(torch.zeros(ROWS, 2, dtype=torch.int32), torch.arange(ROWS))
PIXELS = TensorDataset(torch.zeros(ROWS, 1, 1, 2, dtype=torch.uint8), torch.arange(ROWS))
HALF = table(pa.array([0.5] * ROWS))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (Data(train=REAL, dtype="int64"), "data.dtype is int64, but the inputs are real numbers: store integers"),
        (Data(train=HALF, input=["x", "y"], label="y", dtype="int64"), "data.dtype is int64, but the inputs are real"),
        (Data(train=WHOLE, dtype="int64", scale=2.0), "data.dtype is int64, but data.scale, mean and std make real"),
        (Data(train=WHOLE, dtype="int64", transform=abs), "data.transform replaces data.dtype, but both are given"),
        (Data(train=WHOLE, test=REAL), "data.test has inputs that are real numbers, but data.train has integers"),
        (Data(train=REAL, validation=WHOLE), "data.validation has inputs that are integers, but data.train has real"),
        (Data(train=PIXELS, test=TensorDataset(torch.rand(2, 1, 1, 2), torch.arange(2))), "data.train has images of b"),
    ],
)
def test_types_that_contradict_each_other_are_refused(data, sentence):
    with pytest.raises(ConfigError, match=sentence):
        data.open()


@pytest.mark.parametrize(
    ("targets", "sentence"),
    [
        (torch.arange(ROWS) / 2, "data.test has labels of type float32, but data.train has int64"),
        (torch.zeros(ROWS, 3, dtype=torch.int64), r"data.test has labels of shape \(3,\), but data.train has \(\)"),
    ],
)
def test_targets_are_of_one_kind_in_all_splits(targets, sentence):
    with pytest.raises(ConfigError, match=sentence):
        Data(train=REAL, test=TensorDataset(torch.rand(ROWS, 2), targets)).open()


def test_noise_is_refused_on_integers():
    x = default_preprocess(open_source(WHOLE))(WHOLE.tensors[0], training=True)
    with pytest.raises(ConfigError, match=r"but the model's inputs are integers, which noise would make real numbers"):
        Noise(0.1).check(x)


@pytest.mark.parametrize("dtype", ["half", int, torch.float16])
def test_other_types_are_refused_at_once(dtype):
    with pytest.raises(ConfigError, match=r"^Data.dtype is .*, but it must be 'float32' or 'int64' or None\.$"):
        Data(train=WHOLE, dtype=dtype)
