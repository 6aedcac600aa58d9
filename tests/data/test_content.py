"""What identifies data: their content, not where it lies, what its files are called or when they were written."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pyarrow import fs
from torch.utils.data import Subset, TensorDataset

from pisa_ray.data import open_source
from pisa_ray.data.fingerprints import hash_files
from pisa_ray.data.torch_dataset import evenly_spaced


def table(seed=0, rows=40):
    rng = np.random.default_rng(seed)
    return pa.table({"a": rng.normal(size=rows), "y": rng.integers(0, 3, rows)})


def known(path):
    return open_source(path, input="a", label="y").fingerprint()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data").mkdir()
    for k in range(3):
        pq.write_table(table(k), tmp_path / "data" / f"part-{k}.parquet", row_group_size=15)
    return tmp_path / "data"


def test_the_same_bytes_are_the_same_data_wherever_they_lie(folder, tmp_path, monkeypatch):
    before = known(folder)
    copy = shutil.copytree(folder, tmp_path / "elsewhere" / "other name")
    assert known(copy) == known(str(copy)) == known(copy.as_uri()) == before
    for k in range(3):  # in the same order
        (copy / f"part-{k}.parquet").rename(copy / f"x{k}.PARQUET")
        os.utime(copy / f"x{k}.PARQUET", (k, k))
    assert known(copy) == before
    (tmp_path / "link").symlink_to(copy)
    monkeypatch.chdir(tmp_path)
    assert known("link") == before
    (copy / "deeper").mkdir()
    (copy / "x2.PARQUET").rename(copy / "deeper" / "x2.parquet")
    (copy / "x0.PARQUET").rename(copy / "a.parquet")
    (copy / "x1.PARQUET").rename(copy / "b.parquet")
    assert known(copy) == before


def test_one_file_and_a_folder_of_it_are_the_same_data(folder, tmp_path):
    (tmp_path / "one").mkdir()
    file = shutil.copy(folder / "part-0.parquet", tmp_path / "one" / "z.parquet")
    assert known(tmp_path / "one") == known(file) == known(folder / "part-0.parquet")


def shuffled(rows):
    return rows.take(np.random.default_rng(1).permutation(rows.num_rows))


def relabelled(rows):
    """One label is another one, of those that there are: all statistics are the same."""
    y = rows["y"].to_numpy().copy()
    at = np.flatnonzero(y == 1)[3]
    y[at] = 2
    return rows.set_column(1, "y", pa.array(y))


@pytest.mark.parametrize("compression", ["none", "snappy"])
@pytest.mark.parametrize("change", [shuffled, relabelled])
def test_data_that_look_alike_are_not_the_same(tmp_path, change, compression):
    options = {"compression": compression, "use_dictionary": False}
    pq.write_table(table(rows=200), tmp_path / "before.parquet", **options)
    pq.write_table(change(table(rows=200)), tmp_path / "after.parquet", **options)
    assert known(tmp_path / "before.parquet") != known(tmp_path / "after.parquet")


def test_files_in_another_order_are_other_data(folder):
    before = known(folder)
    (folder / "part-0.parquet").rename(folder / "part-9.parquet")
    assert known(folder) != before


def test_values_that_stand_in_the_names_of_folders_are_content(folder, tmp_path):
    for site in ("bonn", "lyon"):
        shutil.copytree(folder, tmp_path / "sites" / f"site={site}")
    before = known(tmp_path / "sites")
    (tmp_path / "sites" / "site=lyon").rename(tmp_path / "sites" / "site=rome")
    assert known(tmp_path / "sites") != before
    (tmp_path / "sites" / "site=rome").rename(tmp_path / "sites" / "site=lyon")
    assert known(tmp_path / "sites") == before


@pytest.mark.parametrize("sizes", [[0], [1], [63], [64], [65], [150], [10, 0, 100], [1, 1, 1], [70, 70]])
def test_small_files_are_read_whole_and_large_ones_in_pieces(tmp_path, sizes):
    rng = np.random.default_rng(0)
    files = []
    for k, size in enumerate(sizes):
        (tmp_path / str(k)).write_bytes(rng.bytes(size))
        files.append(str(tmp_path / str(k)))
    local = fs.LocalFileSystem()
    before, total = hash_files(local, files, most=64, pieces=4), sum(sizes)
    assert before == hash_files(local, files, most=64, pieces=4)
    noticed = []
    for at in range(total):
        k, first = 0, 0
        while at >= first + sizes[k]:
            first, k = first + sizes[k], k + 1
        content = bytearray((tmp_path / str(k)).read_bytes())
        content[at - first] ^= 1
        (tmp_path / str(k)).write_bytes(content)
        noticed.append(hash_files(local, files, most=64, pieces=4) != before)
        content[at - first] ^= 1
        (tmp_path / str(k)).write_bytes(content)
    assert sum(noticed) == min(total, 64)
    if total:
        assert noticed[0]
        assert noticed[-1]


def test_items_of_torch_data_sets_are_compared_all_over():
    x, y = torch.randn(500, 3), torch.arange(500) % 3
    whole = TensorDataset(x, y)
    before = open_source(whole).fingerprint()
    assert open_source(TensorDataset(x.clone(), y.clone())).fingerprint() == before
    other = x.clone()
    other[123, 1] += 1
    assert open_source(TensorDataset(other, y)).fingerprint() != before
    parts = Subset(whole, range(500)), Subset(TensorDataset(other, y), range(500))
    assert open_source(parts[0]).fingerprint() == open_source(Subset(whole, range(500))).fingerprint()
    at = evenly_spaced(500, 16)[7]
    other[at] += 1
    assert open_source(parts[0]).fingerprint() != open_source(parts[1]).fingerprint()


@pytest.mark.parametrize("rows", [1, 2, 15, 16, 17, 1000])
def test_evenly_spaced_rows_have_both_ends(rows):
    found = evenly_spaced(rows, 16)
    assert (found[0], found[-1]) == (0, rows - 1)
    assert len(found) == min(rows, 16)
