import copy
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, Subset, TensorDataset

from pisa_ray.data import open_source
from pisa_ray.errors import ConfigError

ROWS = 23
RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (ROWS, 12), np.uint8)
LABELS = RANDOM.integers(0, 4, ROWS)


def fixed_lists(values: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def make_table() -> pa.Table:
    columns = {
        "image": fixed_lists(PIXELS),
        "label": pa.array(LABELS),
        "site": pa.array([f"site {i % 3}" for i in range(ROWS)]),
        "a": pa.array(np.arange(ROWS, dtype=np.int32)),
        "b": pa.array(np.arange(ROWS) / 2),
        "yes": pa.array(LABELS > 1),
        "lists": pa.array(PIXELS.astype(np.float32).tolist(), pa.list_(pa.float32())),
    }
    return pa.table(columns).replace_schema_metadata({"shape": json.dumps([3, 2, 2])})


def encode(pixels: np.ndarray, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    pq.write_table(make_table(), tmp_path / "train.parquet", row_group_size=5)
    return tmp_path / "train.parquet"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "parts"
    (folder / "sub").mkdir(parents=True)
    table = make_table()
    pq.write_table(table.slice(0, 9), folder / "a.parquet", row_group_size=4)
    pq.write_table(table.slice(0, 0), folder / "b.parquet")
    pq.write_table(table.slice(9), folder / "sub" / "c.parquet", row_group_size=100)
    (folder / "_SUCCESS.parquet").write_text("")
    (folder / "notes.txt").write_text("")
    return folder


@pytest.mark.parametrize("kind", ["file", "str", "folder", "uri", "folder_uri", "table"])
def test_all_kinds_of_tables_give_the_same_rows(kind, file, folder):
    spec = {
        "file": file,
        "str": str(file),
        "folder": folder,
        "uri": file.as_uri(),
        "folder_uri": folder.as_uri() + "/",
        "table": make_table(),
    }[kind]
    source = open_source(spec, input="image", label="label")
    assert (source.rows, source.input_shape, source.input_dtype) == (ROWS, (3, 2, 2), torch.uint8)
    np.testing.assert_array_equal(source.labels(), LABELS)
    assert source.column("site").tolist() == [f"site {i % 3}" for i in range(ROWS)]
    np.testing.assert_array_equal(source.column("b"), np.arange(ROWS) / 2)
    assert np.concatenate(list(source.pieces())).tolist() == list(range(ROWS))
    wanted = np.array([17, 3, 22, 3, 0])  # neither sorted nor unique
    rows = copy.deepcopy(source).read(wanted)
    inputs, targets = rows.batch(np.arange(5))
    assert inputs.dtype == torch.uint8
    assert targets.dtype == torch.int64
    np.testing.assert_array_equal(inputs, PIXELS[wanted].reshape(-1, 3, 2, 2))
    np.testing.assert_array_equal(targets, LABELS[wanted])
    view = rows.take(np.array([4, 1]))
    assert (len(rows), len(view)) == (5, 2)
    np.testing.assert_array_equal(view.batch(np.array([1]))[1], LABELS[[3]])
    assert len(source.read(np.array([], dtype=np.int64))) == 0
    with pytest.raises(IndexError):
        source.read(np.array([ROWS]))


def test_only_the_row_groups_and_columns_that_are_needed_are_read(file, monkeypatch):
    source = open_source(file, input="image", label="label")
    calls = []
    read = pq.ParquetFile.read_row_group

    def spy(self, group, columns=None):
        calls.append((group, columns))
        return read(self, group, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", spy)
    source.read(np.array([21, 6, 5, 20]))
    assert calls == [(1, ["image", "label"]), (4, ["image", "label"])]
    calls.clear()
    source.column("site")
    assert calls == [(group, ["site"]) for group in range(5)]


def test_a_batch_is_the_callers_own(file):
    rows = open_source(file, input="image", label="label").read(np.arange(ROWS))
    rows.batch(np.arange(ROWS))[0].zero_()
    np.testing.assert_array_equal(rows.batch(np.arange(ROWS))[0].reshape(ROWS, -1), PIXELS)


def test_lists_keep_their_length_where_the_metadata_shape_does_not_fit():
    table = make_table()
    for metadata in (None, {"shape": "[5, 5]"}, {"shape": "oops"}):
        source = open_source(table.replace_schema_metadata(metadata), input="lists", label="yes")
        assert (source.input_shape, source.input_dtype) == ((12,), torch.float32)
        inputs, targets = source.read(np.arange(ROWS)).batch(np.arange(ROWS))
        np.testing.assert_array_equal(inputs, PIXELS)
        np.testing.assert_array_equal(targets, (LABELS > 1).astype(np.int64))


@pytest.mark.parametrize("fixed", [True, False])
def test_labels_may_be_sequences(fixed, tmp_path):
    """A row's targets are then a list, as language models need; partitions by label cannot be."""
    tokens = RANDOM.integers(0, 50, (ROWS, 4)).astype(np.int32)
    column = fixed_lists(tokens) if fixed else pa.array(tokens.tolist(), pa.list_(pa.int32()))
    pq.write_table(pa.table({"x": fixed_lists(PIXELS), "y": column}), tmp_path / "t.parquet", row_group_size=5)
    source = open_source(tmp_path / "t.parquet", input="x", label="y")
    rows = np.array([11, 3, 3, 0])

    _, targets = source.read(rows).batch(np.arange(4))

    assert targets.dtype == torch.int64
    assert np.array_equal(targets.numpy(), tokens[rows])
    with pytest.raises(ConfigError, match=r"data\.label is 'y', a column of lists, so a row has no label of its own"):
        source.labels()


def test_tensor_extension_types_bring_their_own_shape():
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(PIXELS.reshape(ROWS, 3, 2, 2))
    source = open_source(pa.table({"x": tensors, "y": LABELS}), input="x", label="y")
    assert source.input_shape == (3, 2, 2)
    np.testing.assert_array_equal(source.read(np.arange(4)).batch(np.arange(4))[0].reshape(4, -1), PIXELS[:4])


def test_columns_of_numbers_become_float_features_and_float_labels_stay_real():
    source = open_source(make_table(), input=["a", "yes"], label="b")
    assert (source.input_shape, source.input_dtype) == ((2,), torch.float32)
    inputs, targets = source.read(np.arange(ROWS)).batch(np.array([2]))
    assert inputs.tolist() == [[2.0, float(LABELS[2] > 1)]]
    assert (targets.dtype, targets.tolist()) == (torch.float32, [1.0])
    assert source.labels().dtype == np.float32
    assert open_source(make_table(), input="a", label="b").input_shape == (1,)


@pytest.mark.parametrize("struct", [False, True])
@pytest.mark.parametrize(("mode", "shape"), [("L", (1, 4, 6)), ("RGB", (3, 4, 6))])
def test_images_are_decoded(struct, mode, shape, tmp_path):
    pixels = RANDOM.integers(0, 256, (7, *shape), np.uint8)
    images = [encode(image[0] if mode == "L" else image.transpose(1, 2, 0), "PNG") for image in pixels]
    column = [{"bytes": image, "path": None} for image in images] if struct else images
    pq.write_table(pa.table({"image": column, "label": list(range(7))}), tmp_path / "x.parquet", row_group_size=3)
    source = open_source(tmp_path / "x.parquet", input="image", label="label")
    assert (source.input_shape, source.input_dtype) == (shape, torch.uint8)
    np.testing.assert_array_equal(source.read(np.arange(7)[::-1]).batch(np.arange(7))[0], pixels[::-1])


def test_jpeg_images_are_decoded():
    data = encode(np.full((8, 8, 3), 90, np.uint8), "JPEG")
    source = open_source(pa.table({"image": [data], "label": [0]}), input="image", label="label")
    assert source.input_shape == (3, 8, 8)
    assert (source.read(np.array([0])).batch(np.array([0]))[0].int() - 90).abs().max() <= 2


def test_digits():
    train, test = open_source("digits"), open_source("digits:test")
    assert (train.rows, test.rows, train.input_shape, train.input_dtype) == (1437, 360, (64,), torch.float32)
    inputs, _ = train.read(np.arange(1437)).batch(np.arange(1437))
    assert inputs.min() == 0
    assert inputs.max() == 1
    assert set(np.unique(train.labels())) == set(np.unique(test.labels())) == set(range(10))
    assert train.fingerprint() != test.fingerprint()


class Squares(Dataset):
    """A map-style dataset with a `targets` attribute where asked for."""

    def __init__(self, rows: int, **attributes):
        self.rows = rows
        self.__dict__.update(attributes)

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, i: int):
        return np.full((2,), i * i, np.int16), i % 3


def test_torch_datasets():
    targets = [i % 3 for i in range(9)]
    for dataset in (Squares(9, targets=targets), Squares(9, labels=torch.tensor(targets))):
        source = open_source(dataset)
        assert (source.rows, source.input_shape, source.input_dtype) == (9, (2,), torch.int16)
        assert source.labels().tolist() == targets
        rows = source.read(np.array([8, 2, 5])).take(np.array([2, 0]))
        inputs, got = rows.batch(np.array([1, 0]))
        assert inputs.tolist() == [[64, 64], [25, 25]]
        assert (got.dtype, got.tolist()) == (torch.int64, [2, 2])
    subset = open_source(Subset(Squares(9, targets=targets), [5, 7]))
    assert subset.labels().tolist() == [2, 1]
    assert subset.read(np.array([1])).batch(np.array([0]))[0].tolist() == [[49, 49]]


def test_tensor_datasets():
    inputs, targets = torch.arange(12, dtype=torch.uint8).reshape(6, 2), torch.arange(6) / 4
    source = open_source(TensorDataset(inputs, targets.double()))
    assert (source.input_shape, source.input_dtype) == ((2,), torch.uint8)
    x, y = source.read(np.array([4, 1])).batch(np.arange(2))
    assert x.tolist() == [[8, 9], [2, 3]]
    assert (y.dtype, y.tolist()) == (torch.float32, [1.0, 0.25])
    np.testing.assert_array_equal(source.labels(), targets)


def test_fingerprints_see_content_and_not_where_it_lies(file, folder, tmp_path):
    def fingerprint(spec):
        return open_source(spec, input="a", label="label").fingerprint()

    (tmp_path / "copy.parquet").write_bytes(file.read_bytes())
    assert fingerprint(tmp_path / "copy.parquet") == fingerprint(file.as_uri()) == fingerprint(file)
    folder.rename(tmp_path / "moved")
    assert fingerprint(tmp_path / "moved") != fingerprint(file)
    table = make_table()
    twice = pa.concat_tables([table, table]).combine_chunks()
    chunked = pa.concat_tables([twice.slice(ROWS, 7), table.slice(7, 1), twice.slice(8, ROWS - 8)])
    changed = table.set_column(3, "a", pa.array(np.arange(ROWS, dtype=np.int32) + 1))
    assert fingerprint(table) == fingerprint(chunked) != fingerprint(changed)
    pq.write_table(changed, file, row_group_size=5)
    assert fingerprint(file) != fingerprint(tmp_path / "copy.parquet")
    assert open_source(Squares(4)).fingerprint() != open_source(Squares(5)).fingerprint()


class Wrong(Squares):
    def __getitem__(self, i: int):
        return Image.new("L", (2, 2)), 0


class Three(Squares):
    def __getitem__(self, i: int):
        return torch.zeros(2), 0, 0


def with_column(values, kind=None) -> pa.Table:
    return make_table().append_column("x", pa.array(values, kind))


PNG, SMALL = encode(np.zeros((4, 4), np.uint8), "PNG"), encode(np.zeros((3, 4), np.uint8), "PNG")
RGBA = encode(np.zeros((4, 4, 4), np.uint8), "PNG")


@pytest.mark.parametrize(
    ("spec", "input_", "label", "sentence"),
    [
        ("no/such.parquet", "image", "label", "The data 'no/such.parquet' do not exist: give the path"),
        ("what://ever", "image", "label", "The data's address 'what://ever' cannot be opened"),
        (make_table().slice(0, 0), "image", "label", "the table has no rows"),
        (make_table(), "img", "label", "data.input is 'img', but the table has no such column: name one of 'image',"),
        (make_table(), ["a", "c"], "label", "data.input is 'c', but the table has no such column"),
        (make_table(), "image", "lab", "data.label is 'lab', but the table has no such column"),
        (make_table(), None, "label", "data.input is missing"),
        (make_table(), "image", None, "data.label is missing"),
        (make_table(), "site", "label", "text columns are not supported yet"),
        (make_table(), "image", "site", "data.label is 'site', a text column, but labels are integers from 0"),
        (with_column([{"u": 1}] * ROWS), "image", "x", "data.label is 'x', a column of struct<u: int64>, but integers"),
        (
            make_table(),
            ["a", "image"],
            "label",
            r"data.input is \['a', 'image'\], but only columns of single numbers can be put together, and 'image' is "
            "one of .*: leave it out",
        ),
        (with_column([{"u": 1}] * ROWS), "x", "label", "data.input is 'x', a column of struct<u: int64>, but images"),
        (with_column([None, *range(ROWS - 1)]), "x", "label", "In the table, row 0 of column 'x' is null"),
        (with_column([b"GIF"] * ROWS), "x", "label", "row 0 of column 'x' cannot be read as a PNG"),
        (with_column([RGBA] * ROWS), "x", "label", "row 0 of column 'x' is an image of mode RGBA"),
        (Squares(0), None, None, "The Squares has no items"),
        (Wrong(3), None, None, r"convert images with ToTensor\(\)"),
        (Three(3), None, None, "items cannot be stacked into a batch"),
        (42, None, None, "the data is 42, but it must be a path or a list of paths"),
    ],
)
def test_errors_when_opening(spec, input_, label, sentence):
    with pytest.raises(ConfigError, match=sentence):
        open_source(spec, input=input_, label=label)


@pytest.mark.parametrize(
    ("spec", "input_", "sentence"),
    [
        (with_column([None, *range(ROWS - 1)]), "x", "^In data.test, row 0 of column 'x' is null"),
        (make_table().slice(0, 0), "image", "^data.test has no rows"),
        (make_table(), "img", "^data.input is 'img', but data.test has no such column: name one of 'image',"),
        (Squares(0), None, "^data.test has no items"),
    ],
)
def test_errors_name_the_argument_whose_data_it_is(spec, input_, sentence):
    with pytest.raises(ConfigError, match=sentence):
        open_source(spec, input=input_, label="label" if input_ else None, name="data.test")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("a.parquet", "write it again"), ("a.csv", r"only Parquet files are read.* the \.csv file .*DataFrame")],
)
def test_a_file_of_another_format_is_not_to_be_written_again(tmp_path, name, remedy):
    (tmp_path / name).write_text("a,y\n1,0\n")
    with pytest.raises(ConfigError, match=rf"{name} cannot be read as a Parquet file \(.*\): {remedy}"):
        open_source(tmp_path / name, input="a", label="y")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ([PNG] * (ROWS - 1) + [SMALL], r"row 22 of column 'x' is an image of shape \(1, 3, 4\), but the first row has"),
        ([PNG] * (ROWS - 1) + [RGBA], "row 22 of column 'x' is an image of mode RGBA"),
        ([PNG] * (ROWS - 1) + [b""], "row 22 of column 'x' cannot be read as a PNG, JPEG, WEBP or GIF"),
        ([[1, 2]] * (ROWS - 1) + [[1]], "row 22 of column 'x' has 1 numbers, but the first row has 2"),
        ([[1, 2]] * (ROWS - 1) + [[1, None]], "row 22 of column 'x' has a null in its list"),
    ],
)
def test_errors_when_reading_name_the_row(values, sentence):
    source = open_source(with_column(values), input="x", label="label")
    with pytest.raises(ConfigError, match=sentence):
        source.read(np.array([22, 0]))


def test_nulls_in_parquet_are_found_when_opening(tmp_path):
    for values in ([1, None], [[1, 2], None], [PNG, None]):
        pq.write_table(pa.table({"x": values, "y": [0, 1]}), tmp_path / "x.parquet")
        with pytest.raises(ConfigError, match=r"In .*x.parquet, row 1 of column 'x' is null"):
            open_source(tmp_path / "x.parquet", input="x", label="y")


def test_errors_of_files(tmp_path):
    with pytest.raises(ConfigError, match=r"has no \*.parquet files"):
        open_source(tmp_path, input="x", label="y")
    (tmp_path / "b.parquet").write_text("no")
    with pytest.raises(ConfigError, match=r"b.parquet cannot be read as a Parquet file"):
        open_source(tmp_path, input="x", label="y")
    pq.write_table(pa.table({"x": [1], "y": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"x": [0.5], "y": [1]}), tmp_path / "b.parquet")
    with pytest.raises(ConfigError, match=r"b.parquet has no column 'x' of type int64, but .*a.parquet has"):
        open_source(tmp_path, input="x", label="y")


def test_errors_of_columns():
    table = open_source(with_column([[1]] * ROWS), input="image", label="label")
    with pytest.raises(ConfigError, match=r"partition.column is 'q', but the table has no such column"):
        table.column("q")
    with pytest.raises(ConfigError, match="Column 'x' is of type list<item: int64>, but only numbers or text"):
        table.column("x")
    with pytest.raises(ConfigError, match="a Squares has no columns"):
        open_source(Squares(3)).column("x")
    for dataset in (Squares(3), Squares(3, targets=[1])):
        with pytest.raises(ConfigError, match="add an attribute `targets`"):
            open_source(dataset).labels()
