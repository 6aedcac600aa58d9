"""`pisa-ray data`: the usual files of data sets become the Parquet files that examples read, or are refused whole."""

from __future__ import annotations

import errno
import gzip
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from usual_files import idx, png, write_adult, write_cifar10, write_csv, write_images, write_mnist

from pisa_ray.cli.data import KINDS
from pisa_ray.cli.data.adult import COLUMNS
from pisa_ray.cli.main import main
from pisa_ray.data import open_source

WRITERS: dict[str, Callable[[Path], object]] = {
    "mnist": write_mnist,
    "fashion-mnist": write_mnist,
    "cifar10": write_cifar10,
    "adult": write_adult,
    "images": write_images,
    "csv": write_csv,
}
LABEL = ["--label", "income"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def made(name: str, *more: str, out: str = "out.parquet") -> pa.Table:
    """What the command makes of the files in `in`."""
    assert main(["data", name, "--from", "in", "--out", out, *more]) == 0
    return pq.read_table(out)


def refused(capsys: pytest.CaptureFixture[str], name: str, *more: str, status: int = 2) -> str:
    """The one line that it is refused with; nothing is written."""
    before = sorted(Path().rglob("*"))
    capsys.readouterr()
    assert main(["data", name, "--from", "in", "--out", "new/out.parquet", *more]) == status
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert [path for path in sorted(Path().rglob("*")) if path != Path("new")] == before
    return said


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_what_is_made_can_be_opened_as_the_examples_do(
    name: str, split: str, capsys: pytest.CaptureFixture[str]
) -> None:
    WRITERS[name](Path("in"))
    more = LABEL if name == "csv" else [] if name == "images" else ["--split", split]
    table = made(name, *more, out=f"data/{name}/{split}.parquet")
    shown = capsys.readouterr().out
    assert f"data/{name}/{split}.parquet: {table.num_rows} rows, 0." in shown
    assert all(f"  {field.name} " in shown and str(field.type) in shown for field in table.schema)
    column = "features" if name in ("adult", "csv") else "image"
    source = open_source(f"data/{name}/{split}.parquet", input=column, label="label")
    shape = {"cifar10": (3, 32, 32), "adult": (123,), "csv": (2,), "images": (3, 4, 4)}.get(name, (1, 28, 28))
    assert source.input_shape == shape
    inputs, labels = source.read(np.arange(source.rows)).batch(np.arange(source.rows))
    assert inputs.shape == (table.num_rows, *shape)
    np.testing.assert_array_equal(labels, table["label"])
    assert not any(field.nullable for field in table.schema if field.name in (column, "label"))


def test_mnist_is_mixed_once_and_fashion_mnist_is_not() -> None:
    images, labels = write_mnist(Path("in"), side=2)
    order = np.random.default_rng(1234).permutation(len(labels))
    for name, rows in (("mnist", order), ("fashion-mnist", np.arange(len(labels)))):
        table = made(name, out=f"{name}.parquet")
        assert table["label"].to_pylist() == labels[rows].tolist()
        assert table["image"].to_pylist() == images[rows].reshape(-1, 4).tolist()
    assert made("mnist", "--split", "test")["label"].to_pylist() == labels.tolist()


def test_images_of_cifar10_lose_nothing() -> None:
    images = write_cifar10(Path("in"))
    table = made("cifar10")
    assert table["label"].to_pylist() == [3, 9] * 5
    source = open_source("out.parquet", input="image", label="label")
    np.testing.assert_array_equal(source.read(np.arange(2)).batch(np.arange(2))[0], images)


def test_adult_has_the_features_of_a9a() -> None:
    """As LIBSVM's files say them, for the first row of adult.data (its line begins: -1 3:1 11:1 14:1 19:1)."""
    write_adult(Path("in"))
    table = made("adult")
    ones = [(np.flatnonzero(row) + 1).tolist() for row in table["features"].to_pylist()[:2]]
    assert ones[0] == [3, 11, 14, 19, 39, 42, 55, 64, 67, 73, 75, 76, 80, 83]
    assert len(ones[1]) == len(COLUMNS) - 3  # three words are not known
    assert table["label"].to_pylist() == [0, 1] * 8
    assert made("adult", "--split", "test", out="t.parquet")["label"].to_pylist() == [0, 1]


@pytest.mark.parametrize("rename", [str.upper, lambda name: name.replace("-idx", ".idx")])
def test_names_of_idx_files_may_be_written_in_either_way(rename: Callable[[str], str]) -> None:
    write_mnist(Path("in"))
    for path in list(Path("in").iterdir()):
        path.rename(path.with_name(rename(path.name)))
    assert made("mnist").num_rows == 20


def test_what_is_packed_is_known_by_its_bytes_not_by_its_name() -> None:
    write_adult(Path("in"))
    data = Path("in/adult.data").read_bytes()
    Path("in/adult.data").write_bytes(gzip.compress(data))
    assert made("adult").num_rows == 16
    Path("in/adult.data").unlink()
    Path("in/ADULT.DATA.GZ").write_bytes(data)
    assert made("adult", out="b.parquet").num_rows == 16


def spoiled(name: str, change: Callable[[bytes], bytes]) -> Callable[[], None]:
    def spoil() -> None:
        path = Path("in") / name
        path.write_bytes(change(path.read_bytes()))

    return spoil


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte.gz"
SPOILED = {
    "mnist: no file": (lambda: Path("in", IMAGES).unlink(), f"has no file {IMAGES}"),
    "mnist: a folder in its place": (lambda: (Path("in", IMAGES).unlink(), Path("in", IMAGES).mkdir()), "has no file"),
    "mnist: empty": (spoiled(IMAGES, lambda data: b""), "begins with nothing"),
    "mnist: wrong magic": (spoiled(IMAGES, lambda data: b"\0\0\x0d" + data[3:]), "begins with 00000d03"),
    "mnist: header cut": (spoiled(IMAGES, lambda data: data[:9]), "ends within its header"),
    "mnist: cut": (spoiled(IMAGES, lambda data: data[:-1]), "15,679 bytes after its header, which says 20 x 28 x 28"),
    "mnist: too long": (spoiled(IMAGES, lambda data: data + b"0"), "15,681 bytes"),
    "mnist: no images": (spoiled(IMAGES, lambda data: idx(np.zeros((0, 28, 28), np.uint8))), "0 bytes"),
    "mnist: huge": (spoiled(IMAGES, lambda data: data[:4] + b"\xff" * 12 + data[16:]), "4294967295 x 4294967295"),
    "mnist: fewer labels": (spoiled(LABELS, lambda data: idx(np.zeros(3, np.uint8))), "has 3 labels"),
    "mnist: a class too many": (spoiled(LABELS, lambda data: idx(np.full(20, 10, np.uint8))), "class 10 of image 0"),
    "mnist: packed and cut": (spoiled(LABELS, lambda data: data[:-9]), "cannot be unpacked"),
    "mnist: packed and damaged": (spoiled(LABELS, lambda data: data[:10] + b"xxxx" + data[14:]), "cannot be unpacked"),
    "cifar10: pickles": (
        lambda: (Path("in/data_batch_1.bin").unlink(), Path("in/data_batch_1").write_bytes(b"cos\nsystem\n")),
        "binary version",
    ),
    "cifar10: no file": (lambda: Path("in/data_batch_3.bin").unlink(), "has no file data_batch_3.bin"),
    "cifar10: cut": (spoiled("data_batch_5.bin", lambda data: data[:-1]), "6,145 bytes"),
    "cifar10: empty": (spoiled("data_batch_5.bin", lambda data: b""), "0 bytes"),
    "cifar10: a class too many": (spoiled("data_batch_2.bin", lambda data: b"\x0a" + data[1:]), "class 10 of image 0"),
    "adult: no file": (lambda: Path("in/adult.data").unlink(), "has no file adult.data"),
    "adult: empty": (spoiled("adult.data", lambda data: b"\n\n"), "has no rows"),
    "adult: cut": (spoiled("adult.data", lambda data: data[:300]), "line 3: there are"),
    "adult: unknown word": (spoiled("adult.data", lambda data: data.replace(b"Wife", b"Spouse")), "is 'Spouse'"),
    "adult: unknown class": (spoiled("adult.data", lambda data: data.replace(b">50K", b"50K")), "the income is '50K'"),
    "adult: no number": (spoiled("adult.data", lambda data: data.replace(b"39,", b"3.9,")), "age is '3.9'"),
    "adult: other digits": (spoiled("adult.data", lambda data: data.replace(b"39,", "\u0663,".encode())), "age is"),
    "adult: not UTF-8": (spoiled("adult.data", lambda data: data.replace(b"Wife", b"W\xeffe")), "line 2: this is not"),
    "images: an empty class": (lambda: [p.unlink() or 0 for p in Path("in").rglob("*.PNG")], "has no images"),
    "images: no class": (lambda: [shutil.rmtree(p) for p in Path("in").iterdir()], "has no sub-folders"),
    "images: outside of classes": (lambda: Path("in/x.png").write_bytes(png(0)), "lies in no folder of a class"),
    "images: text": (lambda: Path("in/dog/notes.txt").write_text("x"), "is not an image file"),
    "images: folder in a class": (lambda: Path("in/dog/more.png").mkdir(), "is not an image file"),
    "images: cut": (spoiled("dog/1.PNG", lambda data: data[:40]), "cannot be read as a PNG"),
    "images: empty": (spoiled("dog/0.PNG", lambda data: b""), "cannot be read as a PNG"),
    "images: another size": (spoiled("dog/1.PNG", lambda data: png(1, side=5)), "(3, 5, 5), but the first row has"),
    "images: grey": (spoiled("dog/1.PNG", lambda data: png(1, mode="L")), "(1, 4, 4)"),
    "images: alpha": (spoiled("cat/0.PNG", lambda data: png(1, mode="RGBA")), "mode RGBA"),
}  # fmt: skip


@pytest.mark.parametrize("case", SPOILED)
def test_a_damaged_file_is_refused_and_nothing_is_written(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = case.split(":", maxsplit=1)[0]
    spoil, expected = SPOILED[case]
    WRITERS[name](Path("in"))
    spoil()  # type: ignore[operator]
    assert expected in refused(capsys, name)


ASKED = {
    "a split of a CSV file": (["csv", "--split", "test", *LABEL], "--split is for"),
    "a split of images": (["images", "--split", "train"], "--split is for"),
    "a label of MNIST": (["mnist", "--label", "x"], "--label COLUMN"),
    "no label of a CSV file": (["csv"], "--label COLUMN"),
    "a file that MNIST is to be like": (["mnist", "--like", "x.parquet"], "--like is for"),
    "a file that is not there": (["images", "--like", "x.parquet"], "--like is 'x.parquet'"),
    "no Parquet file": (["images", "--like", "there.parquet"], "--like is 'there.parquet'"),
    "a file of odd names": (["images", "--like", "odd.parquet"], "its class_names are not a list of names"),
    "another ending": (["mnist", "--out", "x.csv"], "ends in .parquet"),
    "a file that is there": (["mnist", "--out", "there.parquet"], "there.parquet is there already"),
    "a folder that is there": (["mnist", "--out", "folder.parquet"], "folder.parquet is there already"),
    "a link to nowhere": (["mnist", "--out", "link.parquet"], "link.parquet is there already"),
    "a file for a folder": (["adult", "--out", "there.parquet/x.parquet"], "its folder cannot be made"),
    "no folder": (["mnist", "--from", "nowhere"], "--from is 'nowhere'"),
    "a file for a folder of files": (["mnist", "--from", "there.parquet"], "--from is 'there.parquet'"),
    "an odd name": (["images", "--from", "\udcff"], "--from is"),
    "no CSV file": (["csv", "--from", "nowhere", *LABEL], "nowhere cannot be read"),
    "a name of thousands of characters": (["mnist", "--from", "x" * 5000], "cannot be a path"),
}


@pytest.mark.parametrize("case", ASKED)
def test_what_does_not_fit_together_is_refused(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_adult(Path("in"))
    Path("there.parquet").write_bytes(b"precious")
    Path("folder.parquet").mkdir()
    pq.write_table(pa.table({"x": [1]}).replace_schema_metadata({"class_names": "5"}), "odd.parquet")
    Path("link.parquet").symlink_to("nowhere")
    asked, expected = ASKED[case]
    assert expected in refused(capsys, *asked)
    assert Path("there.parquet").read_bytes() == b"precious"


@pytest.mark.parametrize("option", ["--out", "--from"])
def test_an_address_is_no_path(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["data", "mnist", "--from", "in", "--out", "x.parquet", option, "s3://bucket/x.parquet"])
    assert f"argument {option}: it is 's3://bucket/x.parquet', but it must be a path" in capsys.readouterr().err
    assert not Path("s3:").exists()


def test_names_of_classes_may_be_any_that_a_folder_has() -> None:
    write_images(Path("in"))
    for old, new in (("cat", "\u732b"), ("dog", "d\udcffg, \x1b")):
        Path("in", old).rename(Path("in", new))
    assert made("images")["label"].to_pylist() == [0, 0, 1, 1]
    assert made("images", "--like", "out.parquet", out="b.parquet")["label"].to_pylist() == [0, 0, 1, 1]


def test_classes_of_images_are_numbered_as_in_the_file_before(capsys: pytest.CaptureFixture[str]) -> None:
    write_images(Path("in"))
    made("images", out="train.parquet")
    for path in Path("in/cat").iterdir():
        path.unlink()
    Path("in/cat").rmdir()
    assert made("images", out="alone.parquet")["label"].to_pylist() == [0, 0]
    assert made("images", "--like", "train.parquet", out="test.parquet")["label"].to_pylist() == [1, 1]
    Path("in/dog").rename("in/wolf")
    assert "in/wolf is a folder of a class" in refused(capsys, "images", "--like", "train.parquet")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_full_disk_leaves_nothing(
    code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(code, os.strerror(code))

    write_adult(Path("in"))
    monkeypatch.setattr("os.fsync", full)
    assert f"cannot be written ({os.strerror(code)})" in refused(capsys, "adult", status=1)


def test_an_interrupt_leaves_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    write_images(Path("in"))
    monkeypatch.setattr("pisa_ray.cli.data.images.contents", stop)
    refused(capsys, "images", status=130)


@given(st.sampled_from(["mnist", "cifar10", "adult"]), st.integers(0, 60), st.binary(max_size=40), st.booleans())
def test_any_bytes_in_a_file_are_data_or_refused(name: str, place: int, junk: bytes, cut: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "in", Path(folder) / "out.parquet"
        WRITERS[name](source)
        for path in source.iterdir():
            data = path.read_bytes()
            path.write_bytes(data[:place] + junk + (b"" if cut else data[place + len(junk) :]))
        status = main(["data", name, "--from", str(source), "--out", str(out)])
        assert status in (0, 2)
        assert out.exists() == (status == 0)
        assert len(list(Path(folder).iterdir())) == 1 + (status == 0)


def test_it_starts_without_torch_and_ray() -> None:
    write_adult(Path("in"))
    script = (
        "import sys; from pisa_ray.cli.main import main; "
        "assert main(['data', 'adult', '--from', 'in', '--out', 'a.parquet']) == 0; "
        "assert not {'torch', 'ray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
