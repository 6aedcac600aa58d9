from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
import torch
from every import every
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import TensorDataset

from pisa_ray.data import (
    IID,
    ByColumn,
    ByFeature,
    Dirichlet,
    Distorted,
    FeatureNoise,
    Indices,
    LabelSkew,
    Noise,
    Partition,
    QuantitySkew,
    Rotate,
    Source,
    hold_out,
    open_source,
)
from pisa_ray.errors import ConfigError


def source_of(labels) -> Source:
    labels = np.asarray(labels)
    table = pa.table({"x": np.zeros(len(labels)), "y": labels, "site": [f"s{label}" for label in labels]})
    return open_source(table, input="x", label="y")


@st.composite
def sources(draw) -> Source:
    classes, rows = draw(st.integers(1, 8)), draw(st.integers(40, 300))
    return source_of(np.random.default_rng(draw(st.integers(0, 9))).integers(0, classes, rows) * 3 - 4)


some = st.one_of(
    st.builds(IID, st.integers(1, 12)),
    st.builds(LabelSkew, st.integers(1, 12), st.integers(1, 1)),
    st.builds(Dirichlet, st.integers(1, 6), st.floats(0.05, 10), st.integers(1, 3)),
    st.builds(QuantitySkew, st.integers(1, 6), st.floats(0.3, 10), st.integers(1, 3)),
    st.builds(FeatureNoise, st.integers(1, 12), st.just(0.1)),
    st.builds(ByFeature, st.integers(1, 12), st.sampled_from([None, "x", "site"])),
    st.builds(Distorted, st.builds(IID, st.integers(1, 12)), st.just(Rotate(36))),
)


@pytest.mark.parametrize("kind", every(Partition).values(), ids=every(Partition))
@settings(deadline=None, max_examples=10)
@given(source=sources(), seed=st.integers(0, 2**32))
def test_shards_of_every_kind_are_disjoint_sorted_and_determined_by_the_seed(kind, source, seed):
    check_shards(kind, source, seed)


@settings(deadline=None)
@given(source=sources(), kind=some, seed=st.integers(0, 2**32))
def test_shards_are_disjoint_sorted_and_determined_by_the_seed(source, kind, seed):
    together = check_shards(kind, source, seed)
    if not isinstance(kind, LabelSkew):
        assert sorted(together) == list(range(source.rows))


def check_shards(kind, source, seed):
    shards = kind.split(source, seed)
    again = kind.split(source, seed)
    assert len(shards) == len(again)
    for rows, same in zip(shards, again, strict=True):
        assert rows.dtype == np.int64
        assert len(rows) >= getattr(kind, "min_rows", 1)
        assert (np.diff(rows) > 0).all()
        np.testing.assert_array_equal(rows, same)
    together = np.concatenate(shards)
    assert len(np.unique(together)) == len(together)
    return together


@pytest.mark.parametrize("kind", [IID(4), LabelSkew(4, 2), Dirichlet(4), QuantitySkew(4), FeatureNoise(4, 1.0)])
def test_another_seed_cuts_differently(kind):
    source = source_of(np.arange(400) % 5)
    first, second = kind.split(source, 0), kind.split(source, 1)
    assert any(not np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_iid_sizes_differ_by_one_row_at_most():
    assert sorted(len(rows) for rows in IID(7).split(source_of([0] * 50), 0)) == [7] * 6 + [8]


@settings(deadline=None)
@given(labels=st.integers(1, 5), shards=st.integers(1, 30), seed=st.integers(0, 1000))
def test_label_skew(labels, shards, seed):
    values = np.repeat([2, 3, 5, 7, 11], 60)
    source = source_of(np.random.default_rng(0).permutation(values))
    all_labels = source.labels()
    parts = LabelSkew(shards, labels).split(source, seed)
    held = [np.unique(all_labels[rows]) for rows in parts]
    for i, names in enumerate(held):
        assert [2, 3, 5, 7, 11][i % 5] in names
        assert len(names) == labels
    for label in np.unique(np.concatenate(held)):
        counts = [
            int((all_labels[rows] == label).sum()) for rows, names in zip(parts, held, strict=True) if label in names
        ]
        assert sum(counts) == 60  # a label that is held at all is used up, in equal parts
        assert max(counts) - min(counts) <= 1


def test_dirichlet_is_the_more_uneven_the_smaller_alpha():
    source = source_of(np.arange(3000) % 10)
    labels = source.labels()

    def unevenness(alpha):
        counts = np.stack([np.bincount(labels[rows], minlength=10) for rows in Dirichlet(5, alpha).split(source, 0)])
        return (counts / counts.sum(1, keepdims=True)).std()

    assert unevenness(0.1) > unevenness(1) > unevenness(100)
    sizes = [len(rows) for rows in QuantitySkew(5, 0.3).split(source, 0)]
    assert max(sizes) > 3 * min(sizes)


def test_dirichlet_stands_a_tiny_alpha():
    shards = Dirichlet(3, 1e-6, min_rows=1).split(source_of(np.arange(600) % 10), 0)
    assert sum(map(len, shards)) == 600


def test_by_column_has_one_shard_for_each_value_in_sorted_order():
    source = source_of([3, 1, 2, 1, 3, 3])
    assert [rows.tolist() for rows in ByColumn("site").split(source, 5)] == [[1, 3], [2], [0, 4, 5]]


def test_feature_noise_is_iid_with_noise():
    assert FeatureNoise(5, 0.4).distortions == Distorted(IID(5), Noise(0.4)).distortions == (Noise(0.4),)
    source = source_of([0] * 20)
    for noisy, plain in zip(FeatureNoise(3, 1.0).split(source, 4), IID(3).split(source, 4), strict=True):
        np.testing.assert_array_equal(noisy, plain)


def test_a_language_a_shard_is_a_column():
    table = pa.table(
        {
            "text": pa.array([[1, 2], [3, 4], [5, 6], [7, 8], [9, 0]], pa.list_(pa.int64(), 2)),
            "y": [0, 1, 0, 1, 0],
            "language": ["fr", "de", "fr", "en", "de"],
        }
    )
    source = open_source(table, input="text", label="y")
    assert [rows.tolist() for rows in ByColumn("language").split(source, 0)] == [[1, 4], [3], [0, 2]]
    coded = table.set_column(2, "language", table["language"].dictionary_encode())
    source = open_source(coded, input="text", label="y")
    assert [rows.tolist() for rows in ByColumn("language").split(source, 0)] == [[1, 4], [3], [0, 2]]


@settings(deadline=None)
@given(
    rows=st.integers(1, 60),
    features=st.integers(1, 5),
    dtype=st.sampled_from([torch.uint8, torch.float32, torch.float64, torch.bfloat16, torch.bool]),
    seed=st.integers(0, 99),
    piece=st.integers(1, 30),
    data=st.data(),
)
def test_by_feature_gives_every_shard_a_range_of_the_mean_input(rows, features, dtype, seed, piece, data):
    shards = data.draw(st.integers(1, rows))
    inputs = torch.from_numpy(np.random.default_rng(seed).integers(0, 30, (rows, features))).to(dtype)
    source = open_source(TensorDataset(inputs, torch.zeros(rows, dtype=torch.int64)))
    source.piece_rows = tuple(min(piece, rows - start) for start in range(0, rows, piece))
    parts = ByFeature(shards).split(source, seed)
    assert sorted(np.concatenate(parts)) == list(range(rows))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    means = inputs.double().mean(1).numpy()
    for lower, upper in pairwise(parts):
        assert means[lower].max() <= means[upper].min()
        equal = means[lower].max() == means[upper].min()
        if equal:  # in the order of the rows
            border = means[upper].min()
            assert lower[means[lower] == border].max() < upper[means[upper] == border].min()


def test_by_feature_may_go_by_a_column_of_numbers_or_text():
    table = pa.table({"x": np.zeros(5), "y": np.zeros(5), "age": [50, 20, 40, 10, 30], "name": list("edcba")})
    source = open_source(table, input="x", label="y")
    assert [rows.tolist() for rows in ByFeature(2, "age").split(source, 0)] == [[1, 3, 4], [0, 2]]
    assert [rows.tolist() for rows in ByFeature(2, column="name").split(source, 1)] == [[2, 3, 4], [0, 1]]
    with pytest.raises(ConfigError, match=r"partition.column is 'agge', but the table has no such column"):
        ByFeature(2, "agge").split(source, 0)


def test_indices_are_taken_as_they_are():
    shards = Indices(((5, 0), (2,))).split(source_of([0] * 6), 0)
    assert [rows.tolist() for rows in shards] == [[0, 5], [2]]


@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=5), share=st.floats(0, 0.999), seed=st.integers(0, 99))
def test_hold_out_keeps_a_training_row_in_every_shard(sizes, share, seed):
    shards = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    training, validation = hold_out(shards, share, seed)
    for rows, kept, held in zip(shards, training, validation, strict=True):
        assert len(kept) >= 1
        assert abs(len(held) - share * len(rows)) <= 1
        assert sorted([*kept, *held]) == rows.tolist()
        assert (np.diff(kept) > 0).all()
    for once, again in zip(validation, hold_out(shards, share, seed)[1], strict=True):
        np.testing.assert_array_equal(once, again)


ROWS = [0, 1, 2, 3, 4, 5] * 10


@pytest.mark.parametrize(
    ("make", "labels", "sentence"),
    [
        (lambda: IID(0), ROWS, "IID.shards is 0, but it must be a whole number of at least 1."),
        (lambda: ByFeature(0), ROWS, "ByFeature.shards is 0, but it must be a whole number of at least 1."),
        (lambda: LabelSkew(2, 0), ROWS, "LabelSkew.labels is 0, but it must be a whole number of at least 1."),
        (
            lambda: LabelSkew(2, 7),
            ROWS,
            "partition.labels is 7, but the data have 6 different labels: use labels <= 6.",
        ),
        (
            lambda: LabelSkew(4),
            [0, 1, 1, 1, 1],
            "partition.shards is 4, but that leaves shard 2 without rows because its labels are too rare: "
            "use fewer shards or more labels a shard.",
        ),
        (
            lambda: LabelSkew(2),
            [0.5, 1.5],
            "The partition goes by label, but data.label is a column of real numbers: use IID, QuantitySkew or "
            "ByColumn, or integer labels.",
        ),
        (lambda: Dirichlet(2, 0.0), ROWS, "Dirichlet.alpha is 0.0, but it must be a finite number above 0."),
        (
            lambda: QuantitySkew(2, float("nan")),
            ROWS,
            "QuantitySkew.alpha is nan, but it must be a finite number above 0.",
        ),
        (
            lambda: Dirichlet(2, 1.0, 0),
            ROWS,
            "Dirichlet.min_rows is 0, but it must be a whole number of at least 1.",
        ),
        (
            lambda: IID(61),
            ROWS,
            "partition.shards is 61, which takes one row a shard, but the data have 60 rows: use shards <= 60.",
        ),
        (
            lambda: ByFeature(61),
            ROWS,
            "partition.shards is 61, which takes one row a shard, but the data have 60 rows: use shards <= 60.",
        ),
        (
            lambda: QuantitySkew(7),
            ROWS,
            "partition.shards is 7, which takes 70 rows for at least 10 a shard, but the data have 60 rows: "
            "use shards <= 6 or smaller min_rows.",
        ),
        (
            lambda: QuantitySkew(6, 0.01),
            ROWS,
            "partition.alpha is 0.01, but 1000 random cuts into 6 shards all left one with fewer than 10 rows: "
            "use a larger alpha, fewer shards or a smaller min_rows.",
        ),
        (
            lambda: Dirichlet(6, 0.01),
            [0] * 60,
            "partition.alpha is 0.01, but 1000 random cuts into 6 shards all left one with fewer than 10 rows: "
            "use a larger alpha, fewer shards or a smaller min_rows.",
        ),
        (
            lambda: FeatureNoise(2, -1.0),
            ROWS,
            "FeatureNoise.level is -1.0, but it must be a finite number of at least 0.",
        ),
        (
            lambda: Indices(()),
            ROWS,
            "Indices.shards is (), but it must be a list with each shard's row numbers.",
        ),
        (
            lambda: Indices(((1,), ())),
            ROWS,
            "Indices.shards[1] is (), but it must be a list of at least one row number.",
        ),
        (
            lambda: Indices(((0, 1.5),)),
            ROWS,
            "Indices.shards[0] is (0, 1.5), but it must be a list of at least one row number.",
        ),
        (
            lambda: Indices(((3, 60),)),
            ROWS,
            "partition.shards has rows 3 to 60 in shard 0, but the data have rows 0 to 59: use only these.",
        ),
        (
            lambda: Indices(((3, 4), (5, 3))),
            ROWS,
            "partition.shards lists row 3 more than once, but shards must not share rows: list each row at most once.",
        ),
    ],
)
def test_error_sentences(make, labels, sentence):
    with pytest.raises(ConfigError) as error:
        make().split(source_of(labels), 0)
    assert str(error.value) == sentence
