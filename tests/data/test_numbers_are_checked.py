"""NaN, infinities, nulls and lists of other lengths are found before a run begins, by row and column."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from pisa_ray import SISA, Data, Indices
from pisa_ray.data import ByColumn, ByFeature, open_source
from pisa_ray.errors import ConfigError
from pisa_ray.trainer.config import Config
from pisa_ray.trainer.prepare import prepare

ROWS = 40


def table(**columns) -> pa.Table:
    numbers = np.arange(ROWS)
    return pa.table({"a": numbers / 7, "b": numbers, "y": numbers % 3, "r": numbers / 3, **columns})


def column(value, row: int = 31, kind=np.float64) -> np.ndarray:
    values = np.arange(ROWS).astype(kind)
    values[row] = value
    return values


def lists(value, row: int = 31) -> pa.Array:
    values = np.arange(4.0 * ROWS).reshape(ROWS, 4).tolist()
    values[row] = value
    return pa.array(values, pa.list_(pa.float32()))


NOT_FINITE = [
    (column(np.nan), "is nan, but every number must be finite: fill in or drop that row"),
    (column(np.inf), "is inf, but every number must be finite"),
    (column(-np.inf), "is -inf"),
    (column(1e300), r"is 1e\+300, but every number must be finite and fit into float32"),
    (column(np.nan, kind=np.float32), "is nan"),
    (column(np.inf, kind=np.float16), "is inf"),
    (lists([0, np.nan, 0, 0]), "holds nan"),
    (lists([0, 0, 0, -np.inf]), "holds -inf"),
    (lists([0, 1, 2]), "has 3 numbers, but the first row has 4"),
    (lists([]), "has 0 numbers, but the first row has 4"),
    (lists([0, None, 0, 0]), "has a null in its list"),
    (lists(None), "is null"),
    (lists([0, np.nan, 0, 0]).cast(pa.list_(pa.float32(), 4)), "holds nan"),
]


@pytest.mark.parametrize(
    ("split", "from_file"), [("train", False), ("test", False), ("validation", False), ("train", True)]
)
@pytest.mark.parametrize(("values", "sentence"), NOT_FINITE)
@pytest.mark.parametrize("role", ["input", "label"])
@pytest.mark.filterwarnings("error")
def test_what_is_no_number_is_refused_in_every_split(split, values, sentence, role, from_file, tmp_path: Path):
    good = column(0.0, kind=values.dtype) if isinstance(values, np.ndarray) else lists([0, 0, 0, 0]).cast(values.type)
    tables = {name: table(x=values if name == split else good) for name in ("train", split)}
    if from_file:
        for name, rows in tables.items():
            pq.write_table(rows, tmp_path / f"{name}.parquet", row_group_size=7)
        tables = {name: tmp_path / f"{name}.parquet" for name in tables}
    names = {"input": "x", "label": "y"} if role == "input" else {"input": "a", "label": "x"}
    with pytest.raises(ConfigError, match=f"row 31 of column 'x' {sentence}"):
        Data(**tables, **names).open()


def test_integers_that_int64_cannot_hold_are_no_labels_but_real_inputs():
    large = table(x=column(2**63 + 1, kind=np.uint64))
    with pytest.raises(ConfigError, match="row 31 of column 'x' is 9223372036854775809, but an integer must fit into"):
        Data(train=large, input="a", label="x").open()
    Data(train=large, input="x", label="y").open()


def test_one_of_several_columns_is_named():
    with pytest.raises(ConfigError, match=r"In data\.test, row 31 of column 'a' is nan"):
        Data(train=table(), test=table(a=column(np.nan)), input=["b", "a"], label="y").open()


def test_a_transform_may_fill_in_what_is_missing_but_not_targets():
    filled = {"input": ["a", "b"], "transform": lambda x, training: x.nan_to_num()}
    Data(train=table(a=column(np.nan)), label="y", **filled).open()
    with pytest.raises(ConfigError, match=r"In data\.train, row 31 of column 'r' is nan"):
        Data(train=table(r=column(np.nan)), label="r", **filled).open()


@pytest.mark.parametrize("of", ["input", "target"])
def test_tensor_datasets_are_looked_at_like_tables(of):
    x, y = torch.zeros(2500, 3), torch.zeros(2500)
    (x if of == "input" else y)[1234] = torch.nan
    with pytest.raises(ConfigError, match=f"In data\\.train, row 1234 of column '{of}' holds nan"):
        Data(train=TensorDataset(x, y)).open()


class Late(Dataset):
    """Items that are known only when they are fetched, one of them bad."""

    def __len__(self):
        return ROWS

    def __getitem__(self, i):
        return torch.full((3,), torch.nan if i == 31 else float(i)), i % 3


@pytest.mark.parametrize("of", ["input", "target"])
def test_items_of_a_list_are_looked_at_like_tables(of):
    items = [(torch.zeros(3), torch.zeros(1)) for _ in range(ROWS)]
    items[31][of == "target"][0] = -torch.inf
    with pytest.raises(ConfigError, match=f"In data\\.test, row 31 of column '{of}' holds -inf"):
        Data(train=[(torch.zeros(3), torch.zeros(1))], test=items).open()


def test_items_of_torch_data_sets_are_looked_at_when_they_are_fetched():
    train = Data(train=Late()).open().train
    rows = deepcopy(train).read(np.arange(20, ROWS)).take(np.arange(10, 15))
    assert rows.batch(np.array([0, 2]))[1].tolist() == [0, 2]
    with pytest.raises(
        ConfigError, match=r"In data\.train, row 31 of column 'input' holds nan, but every number must be"
    ):
        rows.batch(np.array([0, 1]))
    Data(train=Late(), transform=lambda x, training: x.nan_to_num()).open().train.read(np.array([31])).batch(
        np.array([0])
    )


def test_columns_that_cut_the_data_must_be_finite():
    source = open_source(table(s=column(np.nan)), input="a", label="y")
    for partition in (ByColumn("s"), ByFeature(3, "s")):
        with pytest.raises(ConfigError, match="row 31 of column 's' is nan"):
            partition.split(source, 0)


@pytest.mark.parametrize("first", [[], None])
def test_a_first_list_must_say_how_long_lists_are(first, tmp_path):
    pq.write_table(table(x=lists(first, 0)), tmp_path / "t.parquet")
    wrong = "an empty list" if first is not None else "null"
    for names in ({"input": "x", "label": "y"}, {"input": "a", "label": "x"}):
        with pytest.raises(ConfigError, match=f"row 0 of column 'x' is {wrong}"):
            open_source(tmp_path / "t.parquet", **names)


@pytest.mark.parametrize("statistics", [True, False])
@pytest.mark.parametrize("name", ["x", "x.path", "a.b", "a.bytes"])
def test_nulls_are_named_with_and_without_statistics(statistics, name, tmp_path):
    values = [None if i in (31, 33) else i for i in range(ROWS)]
    pq.write_table(table(**{name: values}), tmp_path / "t.parquet", row_group_size=10, write_statistics=statistics)
    with pytest.raises(ConfigError, match=f"row 31 of column '{name}' is null"):
        Data(train=tmp_path / "t.parquet", input=["a", name], label="y").open()
    Data(train=tmp_path / "t.parquet", input=["a", "b"], label="y").open()


def test_what_the_metadata_prove_and_images_are_not_read(tmp_path, monkeypatch):
    """Only columns that may hold what is no number are read before the start, each once."""
    read, asked = pq.ParquetFile.read_row_group, []

    def spy(self, group, columns=None):
        asked.append((group, columns))
        return read(self, group, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", spy)
    pq.write_table(table(image=[b"never decoded"] * ROWS), tmp_path / "t.parquet", row_group_size=20)
    open_source(tmp_path / "t.parquet", input=["b", "y"], label="y").check("it", inputs=True)
    assert asked == []
    open_source(tmp_path / "t.parquet", input=["a", "b"], label="r").check("it", inputs=True)
    assert asked == [(0, ["a", "r"]), (1, ["a", "r"])]


def test_inputs_of_pinned_shards_are_not_looked_at_here(tmp_path):
    """They may not leave their places; labels are, since shards are cut by them."""
    pq.write_table(table(a=column(np.nan)), tmp_path / "a.parquet")
    data = Data(train=tmp_path / "a.parquet", input=["a", "b"], label="y")
    with pytest.raises(ConfigError, match="row 31 of column 'a' is nan"):
        data.open()
    assert data.open(pinned=True).train.rows == ROWS
    pinned = prepare(
        Config(
            model=lambda: torch.nn.Linear(2, 3),
            data=data,
            partition=Indices([range(10), range(10, ROWS)]),
            algorithm=SISA(sigma=1, rho=1),
            pin_to={"site": ["lyon", "bonn"]},
            batch_size=4,
        )
    )
    assert pinned.job.pin_to
    pq.write_table(table(r=column(np.nan)), tmp_path / "r.parquet")
    with pytest.raises(ConfigError, match="row 31 of column 'r' is nan"):
        Data(train=tmp_path / "r.parquet", input="a", label="r").open(pinned=True)
