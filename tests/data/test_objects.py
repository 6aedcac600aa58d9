"""What people have their data in: it is read as the table or the pairs that it is, or refused with a remedy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, IterableDataset, TensorDataset

from pisa_ray import ConfigError, Data
from pisa_ray.data import open_source

N = 12
RANDOM = np.random.default_rng(0)
X, Y = RANDOM.normal(size=(N, 3)).astype(np.float32), RANDOM.integers(0, 3, N)
FRAME = pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "c": X[:, 2], "y": Y})
COLUMNS = ["a", "b", "c"]


class Rows(torch.utils.data.Dataset):
    """Items are dictionaries."""

    def __len__(self):
        return N

    def __getitem__(self, i):
        return {"x": X[i], "y": int(Y[i]), "a": X[i, 0], "b": X[i, 1], "c": X[i, 2]}


class Speaker:
    """What speaks Arrow and is none of ours."""

    def __arrow_c_stream__(self, requested_schema=None):
        return pa.Table.from_pandas(FRAME).__arrow_c_stream__(requested_schema)


SAME = {
    "a DataFrame": (FRAME, COLUMNS),
    "a DataFrame with an index": (FRAME.set_index(pd.Index(range(1000, 1000 + N))), COLUMNS),
    "an Arrow table": (pa.Table.from_pandas(FRAME), COLUMNS),
    "a record batch": (pa.RecordBatch.from_pandas(FRAME), COLUMNS),
    "what speaks Arrow": (Speaker(), COLUMNS),
    "a dictionary of arrays": ({"x": X, "y": Y}, "x"),
    "a dictionary of tensors": ({"x": torch.tensor(X), "y": torch.tensor(Y)}, "x"),
    "a dictionary of lists": ({"x": X.tolist(), "y": Y.tolist()}, "x"),
    "a dictionary of columns": ({"a": X[:, 0], "b": X[:, 1], "c": X[:, 2], "y": FRAME["y"]}, COLUMNS),
    "a dictionary with arrays as cells": ({"x": list(X), "y": list(Y)}, "x"),
    "rows": ([{"x": x, "y": int(y)} for x, y in zip(X, Y, strict=True)], "x"),
    "rows of lists": ([{"x": x.tolist(), "y": y} for x, y in zip(X, Y, strict=True)], "x"),
    "items that are dictionaries": (Rows(), "x"),
    "items with several numbers": (Rows(), COLUMNS),
    "a pair of arrays": ((X, Y), None),
    "a pair of tensors": ((torch.tensor(X, requires_grad=True), torch.tensor(Y)), None),
    "a pair of a DataFrame and a column": ((FRAME[COLUMNS], FRAME["y"]), None),
    "a pair of lists": ((X.tolist(), Y.tolist()), None),
    "a list of pairs": (list(zip(X, Y, strict=True)), None),
}


@pytest.mark.parametrize("name", SAME)
def test_the_same_rows_come_of_every_kind(name):
    spec, inputs = SAME[name]
    source = open_source(spec, input=inputs, label=None if inputs is None else "y")
    assert source.rows == N
    x, y = source.read(np.arange(N)).batch(np.arange(N))
    np.testing.assert_array_equal(x.float(), torch.tensor(X))
    np.testing.assert_array_equal(y, torch.tensor(Y))
    assert y.dtype == torch.int64


def test_images_and_integers_keep_shape_and_type():
    images = RANDOM.integers(0, 255, (N, 3, 4, 5)).astype(np.uint8)
    for spec in ({"x": images, "y": Y}, [{"x": image, "y": y} for image, y in zip(images, Y, strict=True)]):
        source = open_source(spec, input="x", label="y")
        x, _ = source.read(np.arange(N)).batch(np.arange(N))
        assert source.input_shape == (3, 4, 5)
        np.testing.assert_array_equal(x, images)
    tokens = open_source({"x": np.tile(np.arange(8), (N, 1)), "y": np.tile(np.arange(8), (N, 1))}, input="x", label="y")
    assert (tokens.input_shape, tokens.input_dtype, tokens.target_shape) == ((8,), torch.int64, (8,))


def write(folder: Path, parts: int = 3) -> list[Path]:
    paths = [folder / f"part-{i}.parquet" for i in range(parts)]
    for i, path in enumerate(paths):
        pq.write_table(pa.Table.from_pandas(FRAME[i::parts]), path)
    return paths


def test_a_list_of_files_and_a_pattern_are_the_files_in_order(tmp_path):
    paths = write(tmp_path)
    whole = open_source(tmp_path, input=COLUMNS, label="y")
    for spec in (paths, [str(path) for path in paths], tuple(paths), str(tmp_path / "part-*.parquet")):
        source = open_source(spec, input=COLUMNS, label="y")
        assert source.fingerprint() == whole.fingerprint()
        np.testing.assert_array_equal(source.labels(), whole.labels())
    other = open_source([paths[2], paths[0]], input=COLUMNS, label="y")
    np.testing.assert_array_equal(other.labels(), [*Y[2::3], *Y[0::3]])


def test_a_file_whose_name_is_a_pattern_is_that_file(tmp_path):
    path = tmp_path / "part[0].parquet"
    pq.write_table(pa.Table.from_pandas(FRAME), path)
    assert open_source(path, input=COLUMNS, label="y").rows == N


def test_labels_of_data_sets_put_together():
    both = ConcatDataset([TensorDataset(torch.tensor(X), torch.tensor(Y))] * 2)
    np.testing.assert_array_equal(open_source(both).labels(), [*Y, *Y])


class Streamed(IterableDataset):
    def __iter__(self):
        yield torch.zeros(3), 0


class Texts(Rows):
    targets = ("cat",) * N

    def __getitem__(self, i):
        return X[i], int(Y[i])


class DatasetDict(dict):
    """Named as that of Hugging Face's, which need not be installed."""


PAIRS = TensorDataset(torch.tensor(X), torch.tensor(Y))
REFUSED = [
    (
        DataLoader(PAIRS, 4),
        "data.train is a DataLoader, but every shard makes its own batches: give the loader's dataset",
    ),
    (Streamed(), "data.train is a Streamed, whose rows come one after another, but shards need rows by number: write"),
    (iter([(X[0], 0)]), "data.train is a list_iterator, whose rows come one after another"),
    ((row for row in X), "data.train is a generator, whose rows come one after another"),
    (X, "data.train is a ndarray, which has no targets: give a pair (inputs, targets)."),
    (torch.tensor(X), "data.train is a Tensor, which has no targets"),
    (FRAME["a"], "data.train is a Series, which has no targets"),
    ((X, Y[:-1]), "data.train is a pair (inputs, targets) with 12 and 11 rows, but each input needs its target."),
    ((X, np.array(["cat"] * N)), "data.train is a pair whose parts are not both arrays of numbers"),
    ((X, np.array(3)), "data.train is a pair (inputs, targets) with 12 and no rows"),
    ((X, Y, Y), "data.train is a tuple of ndarray, but its items must be paths, or rows (input, target): put data"),
    ([FRAME, FRAME], "data.train is a list of DataFrame, but its items must be paths, or rows"),
    (
        [PAIRS, PAIRS],
        "data.train is a list of TensorDataset, but its items must be paths, or rows (input, target): put",
    ),
    ([], "data.train is an empty list, but at least one row is needed."),
    ({"x": X, "y": Y[:-1]}, "data.train has columns of different lengths ({'x': 12, 'y': 11}): give each row a value"),
    ({"x": X, "y": 3}, "data.train['y'] is 3 that cannot be a column"),
    ({"x": X, "y": Y + 1j}, "data.train['y'] is a ndarray that cannot be a column"),
    ({0: X, 1: Y}, "data.train is a dictionary with the key 0, but a column's name is a text."),
    ([{"x": X[0], "y": 0}, {"x": X[1]}], "data.train is a list of rows with 'x', 'y', but row 1 has others"),
    ([{"x": X[0], "y": 0}, 7], "data.train is a list of rows with 'x', 'y', but row 1 has others"),
    (pd.DataFrame({"x": [1, "a"], "y": [0, 1]}), "data.train is a DataFrame that cannot be read as a table"),
    (
        DatasetDict(train=FRAME, test=FRAME),
        "data.train is a DatasetDict of the splits 'train', 'test': give one of them,",
    ),
    (None, "data.train is None, but it must be a path or a list of paths, a DataFrame"),
    ("", "data.train is '', but it must be a path"),
    (b"rows.parquet", "data.train is b'rows.parquet', but it must be a path"),
    (3, "data.train is 3, but it must be a path"),
    (True, "data.train is True, but it must be a path"),
    (TensorDataset, "data.train is the class TensorDataset, but it must be a path"),
    (len, "data.train is a builtin_function_or_method, but it must be a path"),
    (range(3), "data.train is a range, but it must be a path"),
    ("nothing/*.parquet", "data.train is 'nothing/*.parquet', but no file has such a name: give a path, or a pattern"),
    (["nothing.parquet"], "The data 'nothing.parquet' do not exist"),
    (["a", 3], "data.train is a list of str, int, but its items must be paths"),
    ([open], "data.train is a list of builtin_function_or_method, but its items must be paths"),
]


@pytest.mark.parametrize(("spec", "sentence"), REFUSED, ids=[sentence[:50] for _, sentence in REFUSED])
def test_what_cannot_be_cut_into_shards_is_refused_with_a_remedy(spec, sentence):
    with pytest.raises(ConfigError) as error:
        Data(train=spec, input="x", label="y").open()
    assert str(error.value).startswith(sentence)
    assert "\n" not in str(error.value).strip()


def test_what_is_said_of_missing_columns():
    for spec, inputs, label, sentence in (
        (Rows(), None, None, "data.input is missing, but the items of the Rows are dictionaries: name one of 'x', 'y'"),
        (Rows(), "x", None, "data.label is missing, but the items of the Rows are dictionaries: name one of"),
        (Rows(), "z", "y", "data.input is 'z', but the items of the Rows have no such key: name one of 'x', 'y'"),
        (
            FRAME,
            None,
            None,
            "data.input is missing, but the table is given in columns: name one of 'a', 'b', 'c', 'y'.",
        ),
    ):
        with pytest.raises(ConfigError) as error:
            open_source(spec, input=inputs, label=label)
        assert str(error.value).startswith(sentence)


def test_labels_that_are_texts_are_refused():
    with pytest.raises(
        ConfigError, match=r"^The labels that the Texts gives in its attribute `targets` are no numbers"
    ):
        open_source(Texts()).labels()


def test_sources_of_splits_are_named():
    pair = (X, Y)
    for name in ("test", "validation"):
        with pytest.raises(ConfigError, match=rf"^data\.{name} is a ndarray, which has no targets"):
            Data(train=pair, **{name: X}).open()
