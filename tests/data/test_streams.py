import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pisa_ray.data import BatchStream, generator, key

sizes = st.integers(1, 40)


@given(seed=st.integers(0, 2**64), shard=st.integers(0, 1000), rows=sizes, batch_size=sizes)
def test_every_epoch_covers_every_row_exactly_once(seed, shard, rows, batch_size):
    stream = BatchStream(seed, shard, rows, batch_size)
    assert stream.size == min(rows, batch_size)
    line = np.concatenate([stream.positions(count) for count in range(3 * rows)])  # size >= 1: three epochs at least
    assert line.dtype == np.int64
    for epoch in range(len(line) // rows):
        assert sorted(line[epoch * rows : (epoch + 1) * rows]) == list(range(rows))


@given(rows=sizes, batch_size=sizes, counts=st.lists(st.integers(0, 200), max_size=20))
def test_any_order_of_calls_gives_the_answers_of_a_fresh_stream(rows, batch_size, counts):
    stream = BatchStream(7, 3, rows, batch_size)
    for count in counts:
        batch = stream.positions(count)
        assert len(batch) == stream.size
        np.testing.assert_array_equal(batch, BatchStream(7, 3, rows, batch_size).positions(count))


def test_full_batch_keeps_the_order():
    stream = BatchStream(0, 0, 5, None)
    assert stream.size == 5
    np.testing.assert_array_equal(stream.positions(11), np.arange(5))


def test_callers_cannot_spoil_the_cache():
    stream = BatchStream(0, 0, 10, 5)
    before = stream.positions(0).copy()
    stream.positions(0)[:] = -1
    np.testing.assert_array_equal(stream.positions(0), before)


def test_seed_shard_and_epoch_each_change_the_permutation():
    lines = {
        tuple(BatchStream(seed, shard, 50, 50).positions(k)) for seed in (0, 1) for shard in (0, 1) for k in (0, 1)
    }
    assert len(lines) == 8


def test_keys_are_fixed_for_all_time():
    # A change of these numbers changes every result that anybody has published.
    assert key(0, "batches", 1, 2) == 11089364309538225047
    assert generator(0, "batches", 1, 2).permutation(8).tolist() == [1, 2, 4, 7, 3, 5, 0, 6]


def test_keys_tell_names_apart():
    names = [(0, "a"), (0, "a", 0), (0, "a", 0, 0), (0, "a", 1, 23), (0, "a", 12, 3), (0, "a', 1"), (1, "a"), (-1, "a")]
    assert len({key(*name) for name in names}) == len(names)
    assert all(0 <= key(*name) < 2**64 for name in names)
    assert key(np.int64(3), "a", np.int32(1)) == key(3, "a", 1)
