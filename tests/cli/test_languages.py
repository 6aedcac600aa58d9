"""The heterogeneity study's languages: words become rows, split by word, cut by language, and are trained on."""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pisa_ray.cli.config import checked
from pisa_ray.cli.train import train
from pisa_ray.data import ByColumn, open_source

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "heterogeneity"
MODULES = ("languages", "plots", "rows", "tables")


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, as a module; its neighbours can be imported while the test runs."""
    monkeypatch.syspath_prepend(SCRIPT)
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    spec = importlib.util.spec_from_file_location("heterogeneity_study", SCRIPT / "__main__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def languages(study: ModuleType) -> ModuleType:
    return sys.modules["languages"]


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of wordfreq: each language has the words of two syllables of its own, and all have "hotel"."""

    def top_n_list(code: str, n: int) -> list[str]:
        first = "abdefgik"[["de", "en", "es", "fr", "it", "nl", "pl", "pt"].index(code)]
        syllables = [f"{a}{b}{first}" for a in "lmnrst" for b in "aeiou"]
        return ["hotel", "don't", "the", *map("".join, itertools.product(syllables, repeat=2))][:n]

    monkeypatch.setitem(sys.modules, "wordfreq", SimpleNamespace(top_n_list=top_n_list))


@pytest.mark.parametrize(
    ("word", "folded"),
    [
        ("Größe", "grosse"),
        ("łódź", "lodz"),
        ("coração", "coracao"),
        ("œuvre", "oeuvre"),
        ("niño", "nino"),
        ("l'eau", None),
        ("4ever", None),
        ("дом", None),
    ],
)
def test_words_are_folded_to_a_to_z(languages: ModuleType, word: str, folded: str | None) -> None:
    assert languages.fold(word) == folded


def test_the_rows_of_a_word(languages: ModuleType) -> None:
    assert list(languages.rows_of("abz")) == [
        ([0, 0, 0, 0, 0, 0, 0, 0], 1),
        ([0, 0, 0, 0, 0, 0, 0, 1], 2),
        ([0, 0, 0, 0, 0, 0, 1, 2], 26),
        ([0, 0, 0, 0, 0, 1, 2, 26], 0),
    ]
    assert list(languages.rows_of("abcdefghij"))[9] == ([2, 3, 4, 5, 6, 7, 8, 9], 10)


def test_short_folded_and_repeated_words_do_not_count(languages: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = ["está", "the", "esta", "d'or", "luß", "Haus", "more"]
    monkeypatch.setitem(sys.modules, "wordfreq", SimpleNamespace(top_n_list=lambda code, n: listed[:n]))
    monkeypatch.setattr(languages, "WORDS", 3)
    assert languages.frequent_words("xx") == ["esta", "luss", "haus"]


def _spelt(path: Path) -> dict[str, set[str]]:
    """The words of each language, read back from the rows at whose end a word ends."""
    found: dict[str, set[str]] = {}
    for row in pq.read_table(path).to_pylist():
        if row["next"] == 0:
            word = "".join(chr(96 + symbol) for symbol in row["context"] if symbol)
            found.setdefault(row["language"], set()).add(word)
    return found


@pytest.mark.usefixtures("words")
def test_the_files_hold_each_word_on_one_side_and_a_shard_a_language(languages: ModuleType, tmp_path: Path) -> None:
    for name in ("one", "two"):
        languages.write_words(tmp_path / name)
    train_rows, test_rows = (_spelt(tmp_path / "one" / f"{side}.parquet") for side in ("train", "test"))

    assert sorted(train_rows) == sorted(test_rows) == sorted(languages.LANGUAGES.values())
    for name in train_rows:
        assert len(train_rows[name] | test_rows[name]) == 901
        assert 0.1 < len(test_rows[name]) / 901 < 0.3
    everywhere = set.union(*train_rows.values())
    assert not everywhere & set.union(*test_rows.values())
    in_test = hashlib.sha256(b"hotel").digest()[0] % 5 == 0
    assert all(("hotel" in found) != in_test for found in train_rows.values())

    source = open_source(tmp_path / "one" / "train.parquet", input="context", label="next")
    assert source.input_shape == (languages.CONTEXT,)
    shards = ByColumn("language").split(source, seed=0)
    column = source.column("language")
    assert [set(column[rows]) for rows in shards] == [{name} for name in sorted(languages.LANGUAGES.values())]

    for side in ("train", "test"):
        one, two = (tmp_path / name / f"{side}.parquet" for name in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


@pytest.mark.usefixtures("words")
def test_files_that_are_there_are_kept(languages: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    languages.write_words(tmp_path)
    before = [path.stat().st_mtime_ns for path in sorted(tmp_path.iterdir())]
    monkeypatch.setitem(sys.modules, "wordfreq", None)  # not even looked for
    languages.write_words(tmp_path)
    assert [path.stat().st_mtime_ns for path in sorted(tmp_path.iterdir())] == before


def test_a_missing_package_is_named_before_anything_starts(
    study: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wordfreq", None)
    monkeypatch.setattr(sys, "argv", ["heterogeneity", "--only", "languages", "--out", str(tmp_path)])
    monkeypatch.setattr(study, "start_ray", lambda _: pytest.fail("Ray was started"))
    with pytest.raises(SystemExit, match="pip install wordfreq"):
        study.main()
    assert list(tmp_path.iterdir()) == []


def test_a_study_says_which_settings_it_lacks(study: ModuleType, tmp_path: Path) -> None:
    alone = study.Heterogeneity(study.PRESETS["small"], tmp_path, tmp_path)
    for name, partition in (("contradictions", r"Dirichlet\(0.1\)"), ("few_exchanges", "one label")):
        with pytest.raises(SystemExit, match=f"no settings found on MNIST, {partition}, .* without --only"):
            getattr(alone, name)()


@pytest.mark.usefixtures("words")
def test_the_model_learns_each_language(languages: ModuleType, study: ModuleType, tmp_path: Path) -> None:
    languages.write_words(tmp_path / "languages")
    dataset = study.DATASETS["languages"]
    values = {
        **dataset.base,
        "data": dataset.base["data"] | {"validation": 0.1},
        "partition": dataset.partition("one language"),
        "algorithm": dataset.candidates["sync Adam"][0]["algorithm"],
        "workers": 0,
        "rounds": 60,
    }
    result = train(checked(values, tmp_path), tmp_path / "run", progress=False)

    following = np.asarray(pq.read_table(tmp_path / "languages" / "test.parquet")["next"])
    commonest = np.bincount(following).max() / len(following)
    assert result.metrics["test_accuracy"] > 1.5 * commonest
    assert result.metrics["validation_worst_shard_accuracy"] > 1.5 * commonest


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("ray_session", "words")
def test_the_study_runs_and_resumes(
    study: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = study.DATASETS["languages"]
    few: dict[str, list[dict[str, Any]]] = {a: whole.candidates[a][:2] for a in ("SISA-D", "FedAvg")}
    short = replace(whole, base=whole.base | {"rounds": 10}, candidates=few)
    monkeypatch.setitem(study.DATASETS, "languages", short)
    before = {"MNIST": {"one label": {"SISA": {"settings": {}, "tried": []}}}}
    (tmp_path / "settings.json").write_text(json.dumps(before))
    texts, runs = [], []
    for _ in range(2):
        study.Heterogeneity(study.PRESETS["small"], tmp_path, tmp_path).languages()
        texts.append(study.write_tables(tmp_path).read_text())
        runs.append({path: path.stat().st_mtime_ns for path in tmp_path.glob("**/metrics.jsonl")})
    assert texts[0] == texts[1]
    assert runs[0] == runs[1]
    assert len(runs[0]) == 2 * (4 + 2)  # two partitions; two settings each of two algorithms, then the better ones
    assert texts[0].count("|  | one language | IID |") == 2  # test accuracy, and the worst shard's
    chosen = json.loads((tmp_path / "settings.json").read_text())
    assert chosen["MNIST"] == before["MNIST"]
    assert set(chosen["languages"]) == {"one language", "IID"}
    assert all(len(found["tried"]) == 2 for found in chosen["languages"]["one language"].values())
