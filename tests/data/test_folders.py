"""Which files below a folder are data, and columns whose values stand in the folders' names."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pisa_ray.data import ByColumn, folders, open_source
from pisa_ray.errors import ConfigError


def write(path: Path, rows: int = 4, **columns) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = {"a": np.arange(rows) + 0.5, "y": np.arange(rows) % 2, **columns}
    pq.write_table(pa.table(table), path)
    return path


def opened(path: Path, input_="a", label="y"):
    return open_source(path, input=input_, label=label)


@pytest.mark.parametrize(
    "place",
    [
        ".ipynb_checkpoints/part-0-checkpoint.parquet",
        "_temporary/0/part-0.parquet",
        "deep/er/.git/part-0.parquet",
        "site=a/.cache/part-0.parquet",
        "_delta_log/part-0.parquet",
        "._part-0.parquet",
        "_metadata.parquet",
        ".hidden.PARQUET",
    ],
)
@pytest.mark.parametrize("address", [str, Path.as_uri])
def test_what_tools_hide_below_a_data_folder_is_no_data(place, address, tmp_path):
    write(tmp_path / "part-0.parquet")
    write(tmp_path / place, 100)
    assert open_source(address(tmp_path), input="a", label="y").rows == 4


@pytest.mark.parametrize("place", ["part-1.PARQUET", "_year=2020/p.parquet", "deep/er/x.Parquet", ".x=1/y.parquet"])
def test_what_is_not_hidden_is_data(place, tmp_path):
    write(tmp_path / "part-0.parquet")
    write(tmp_path / place, 100)
    assert opened(tmp_path).rows == 104


def test_a_data_folder_may_itself_be_hidden(tmp_path):
    write(tmp_path / ".cache" / "_mine" / "part-0.parquet")
    assert opened(tmp_path / ".cache" / "_mine").rows == 4
    assert opened(tmp_path / ".cache" / "_mine" / "part-0.parquet").rows == 4


def test_each_folder_is_data_once_whatever_links_lead_to_it(tmp_path):
    write(tmp_path / "data" / "part-0.parquet")
    (tmp_path / "data" / "self").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "deep").mkdir()
    (tmp_path / "data" / "deep" / "up").symlink_to("../..")
    assert opened(tmp_path / "data").rows == 4
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert opened(tmp_path / "link").rows == 4


def test_a_folder_with_too_many_other_files_is_refused_and_not_walked_through(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "MOST_ENTRIES", 20)
    write(tmp_path / "part-0.parquet")
    for i in range(30):
        (tmp_path / f"{i}.jpg").touch()
    with pytest.raises(ConfigError, match=r"has more than 20 files and folders below it: give the folder"):
        opened(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_refused(tmp_path):
    write(tmp_path / "part-0.parquet")
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(ConfigError, match="cannot be reached"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("values", "read"),
    [
        (["lyon", "bonn", "gent"], ["bonn", "gent", "lyon"]),
        (["2", "10", "-1"], [-1, 2, 10]),
        (["007", "7", "x"], ["007", "7", "x"]),
        (["0.5", "1", "-2.25"], [-2.25, 0.5, 1.0]),
        (["a b", "a/b", "=c"], ["=c", "a b", "a/b"]),
        (["9" * 30, "1", "2"], [1.0, 2.0, 1e30]),
    ],
)
def test_folders_named_after_values_give_a_column(values, read, tmp_path):
    for i, value in enumerate(values):
        folder = "site=" + value.replace("/", "%2F").replace("=", "%3D").replace(" ", "%20")
        write(tmp_path / folder / "part-0.parquet", i + 2)
    source = opened(tmp_path)
    column = source.column("site")
    assert sorted(set(column.tolist())) == read
    assert sorted(len(rows) for rows in ByColumn("site").split(source, 0)) == [2, 3, 4]


def test_a_folders_number_is_an_input_or_a_label_like_any_other(tmp_path):
    for year in (1999, 2001):
        for kind in (0, 1):
            write(tmp_path / f"year={year}" / f"kind={kind}" / "part-0.parquet", 3)
    source = opened(tmp_path, ["a", "year"], "kind")
    inputs, targets = source.read(np.array([11, 0, 4])).batch(np.arange(3))
    assert inputs.tolist() == [[2.5, 2001.0], [0.5, 1999.0], [1.5, 1999.0]]
    assert targets.tolist() == [1, 0, 1]
    only = open_source(tmp_path, input="year", label="kind")
    assert only.read(np.array([0, 11])).batch(np.arange(2))[0].tolist() == [[1999.0], [2001.0]]


def test_a_column_of_the_files_themselves_counts_and_not_the_folders_name(tmp_path):
    write(tmp_path / "y=5" / "part-0.parquet")
    assert opened(tmp_path).labels().tolist() == [0, 1, 0, 1]


def test_a_column_that_only_some_files_have_is_not_taken_from_folders(tmp_path):
    write(tmp_path / "site=a" / "part-0.parquet")
    write(tmp_path / "site=b" / "part-0.parquet", site=["q"] * 4)
    with pytest.raises(ConfigError, match=r"'site', but .* has no such column"):
        opened(tmp_path).column("site")


def test_a_folder_that_stands_for_a_missing_value_is_refused_where_it_is_asked_for(tmp_path):
    write(tmp_path / "site=a" / "part-0.parquet")
    write(tmp_path / f"site={folders.NULL}" / "part-0.parquet")
    source = opened(tmp_path)
    with pytest.raises(ConfigError, match=r"PARTITION__/part-0\.parquet names no value: move that file"):
        source.column("site")


def test_rows_that_lie_in_no_such_folder_are_refused(tmp_path):
    write(tmp_path / "site=a" / "part-0.parquet")
    write(tmp_path / "part-1.parquet")
    source = opened(tmp_path)  # who asks for no site is not concerned
    with pytest.raises(ConfigError, match=r"'site' comes from folders such as site=VALUE, but part-1.parquet lies"):
        source.column("site")
    write(tmp_path / "year=1" / "part-1.parquet")
    with pytest.raises(ConfigError, match=r"'year' comes from folders"):
        opened(tmp_path, ["a", "year"])
