"""CSV files as `pisa-ray data csv` reads them."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from usual_files import write_csv

from pisa_ray.cli.main import main


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def made(text: str | bytes, *more: str, label: str = "y", out: str = "out.parquet") -> pa.Table:
    Path("in.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert main(["data", "csv", "--from", "in.csv", "--label", label, "--out", out, *more]) == 0
    return pq.read_table(out)


def test_numbers_become_features_and_text_stays_beside_them() -> None:
    write_csv(Path("a.csv"))
    table = made(Path("a.csv").read_text(), label="income")
    assert table.column_names == ["features", "city", "label"]
    assert table["features"].to_pylist() == [[20, 1], [30.5, 0], [41, 1]]
    assert table["city"].to_pylist() == ["Lyon", "Bern", "Lyon"]
    assert table["label"].to_pylist() == [0, 1, 1]
    known = table.schema.metadata
    assert (known[b"feature_names"], known[b"class_names"]) == (b'["age", "member"]', b'["high", "low"]')


@pytest.mark.parametrize(
    ("cells", "labels", "kind"),
    [
        ("b a b", [1, 0, 1], pa.int64()),
        ("2 0 2", [2, 0, 2], pa.int64()),
        ("0.5 -1 1e3", [0.5, -1, 1000], pa.float64()),
        ("true false true", [1, 0, 1], pa.int64()),
        ("2020-01-02 2020-01-01 2020-01-02", [1, 0, 1], pa.int64()),
    ],
)
def test_labels_are_classes_or_numbers(cells: str, labels: list[float], kind: pa.DataType) -> None:
    table = made("x,y\n" + "".join(f"1,{cell}\n" for cell in cells.split()))
    assert table["label"].to_pylist() == labels
    assert table["label"].type == kind


@pytest.mark.parametrize(
    "data",
    [
        "\ufeffx,y\n1,a\n".encode(),
        b"x,y\r\n1,a\r\n",
        b"y,x\na,1",
        b'x,y\n"1","a"\n',
        gzip.compress(b"x,y\n1,a\n", mtime=0),
    ],
)
def test_a_file_may_be_written_in_several_ways(data: bytes) -> None:
    table = made(data)
    assert (table["features"].to_pylist(), table["label"].to_pylist()) == ([[1]], [0])


def test_quoted_cells_may_have_commas_and_ends_of_lines() -> None:
    assert made('x,y,z\n1,"a, b","c\nd"\n')["z"].to_pylist() == ["c\nd"]


REFUSED = {
    "empty": (b"", "cannot be read as a CSV file"),
    "no rows": (b"x,y\n", "has no rows"),
    "no such column": (b"x,z\n1,2\n", '--label is \'y\', but in.csv has the columns "x", "z"'),
    "other separator": (b"x;y\n1;2\n", 'the columns "x;y"'),
    "two columns of one name": (b"x,x,y\n1,2,a\n", "has two columns 'x'"),
    "short row": (b"x,y\n1,a\n2\n", "Expected 2 columns, got 1"),
    "latin 1": ("x,y\n1,a\n2,\u00e9\n".encode("latin-1"), "in.csv, line 3: this is not text in UTF-8"),
    "UTF-16": ("x,y\n1,a\n".encode("utf-16"), "line 1: this is not text in UTF-8"),
    "no numbers": (b"x,y\nb,a\n", "has no column of numbers"),
    "empty number": (b"x,y\n1,a\n,b\n", "row 2 below the first line: column 'x' is missing"),
    "infinite number": (b"x,y\ninf,a\n", "column 'x' is inf"),
    "NaN": (b"x,y\nnan,a\n1,a\n", "row 1 below the first line: column 'x' is"),
    "number for no float32": (b"x,y\n1e39,a\n", "column 'x' is 1e+39"),
    "empty label": (b"x,y\n1,a\n1,\n", "row 2 below the first line: column 'y' is ''"),
    "no label": (b"x,y\n1,1\n1,\n", "row 2 below the first line: column 'y' is missing"),
    "negative class": (b"x,y\n1,1\n1,-1\n", "row 2 below the first line: column 'y' is -1"),
    "infinite label": (b"x,y\n1,0.5\n1,inf\n", "column 'y' is inf"),
    "text called label": (b"x,y,label\n1,a,b\n", "has a column of text 'label'"),
    "damaged": (gzip.compress(b"x,y\n1,a\n")[:-5], "cannot be unpacked"),
    "NUL": (b"x,y\n1,\0\n\0,1\n", "has no column of numbers"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_in_one_sentence(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    data, expected = REFUSED[case]
    Path("in.csv").write_bytes(data)
    assert main(["data", "csv", "--from", "in.csv", "--label", "y", "--out", "out.parquet"]) == 2
    said = capsys.readouterr().err
    assert expected in said
    assert said.count("\n") == 1
    assert not Path("out.parquet").exists()


def test_classes_and_features_are_those_of_the_file_before(capsys: pytest.CaptureFixture[str]) -> None:
    made("x,y\n1,c\n1,a\n1,b\n", out="train.parquet")
    assert made("x,y\n2,b\n2,c\n", "--like", "train.parquet")["label"].to_pylist() == [1, 2]
    command = ["data", "csv", "--from", "in.csv", "--label", "y", "--out", "new.parquet", "--like", "train.parquet"]
    for text, expected in (("x,y\n1,d\n", "a class of the file of --like"), ("z,y\n1,a\n", "has the features")):
        Path("in.csv").write_text(text)
        assert main(command) == 2
        assert expected in capsys.readouterr().err


@given(st.lists(st.text(st.sampled_from('x,y\n"1.a\r;-e\0\u00e9 '), max_size=8), max_size=6), st.booleans())
def test_any_text_is_data_or_refused(lines: list[str], header: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "in.csv", Path(folder) / "out.parquet"
        source.write_text("\n".join(["x,y"] * header + lines), newline="")
        status = main(["data", "csv", "--from", str(source), "--label", "y", "--out", str(out)])
        assert status in (0, 2)
        assert out.exists() == (status == 0)
