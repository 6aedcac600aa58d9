import numpy as np
import pyarrow as pa
import pytest

from pisa_ray.data import open_source
from pisa_ray.errors import ConfigError

pytestmark = pytest.mark.ray


def test_a_ray_data_set_keeps_its_order_and_is_read_by_workers(ray_session):
    import ray

    def add_id(frame):
        frame["id"] = [int(image[0, 0, 0]) // 6 for image in frame["data"]]
        return frame

    images = ray.data.from_numpy(list(np.arange(40 * 6, dtype=np.uint8).reshape(4, 10, 1, 2, 3)))
    dataset = images.map_batches(add_id, batch_format="pandas")  # makes blocks that are not Arrow
    preserve_order = dataset.context.execution_options.preserve_order
    source = open_source(dataset, input="data", label="id")
    assert dataset.context.execution_options.preserve_order == preserve_order
    assert (source.rows, source.input_shape) == (40, (1, 2, 3))
    assert source.labels().tolist() == list(range(40))

    @ray.remote
    def read(source, rows):
        inputs, targets = source.read(rows).batch(np.arange(len(rows)))
        return inputs.numpy(), targets.numpy()

    assert len(source.piece_rows) == 4
    assert len(source.fingerprint()) == 64
    wanted = np.array([39, 0, 20, 7])
    inputs, targets = ray.get(read.remote(source, wanted))
    assert targets.tolist() == wanted.tolist()
    assert inputs[:, 0, 0, 0].tolist() == [i * 6 % 256 for i in wanted]


def test_fingerprints_do_not_see_blocks(ray_session):
    import ray

    table = pa.table({"x": np.arange(12.0), "y": np.arange(12) % 2})
    prints = {
        open_source(ray.data.from_arrow(table).repartition(blocks), input="x", label="y").fingerprint()
        for blocks in (1, 3)
    }
    assert len(prints) == 1
    other = open_source(ray.data.from_arrow(table.slice(1)), input="x", label="y")
    assert other.fingerprint() not in prints


def test_numbers_are_looked_at_in_the_blocks(ray_session):
    import ray

    values = np.arange(12.0)
    values[7] = np.nan
    blocks = ray.data.from_arrow(pa.table({"x": values, "y": np.arange(12) % 2})).repartition(3)
    source = open_source(blocks, input="x", label="y")
    assert len(source.piece_rows) == 3
    with pytest.raises(ConfigError, match=r"In data\.test, row 7 of column 'x' is nan"):
        source.check("data.test", inputs=True)
    source.check("data.test", inputs=False)


def test_an_empty_ray_data_set_is_refused(ray_session):
    import ray

    with pytest.raises(ConfigError, match="the Ray data set has no rows"):
        open_source(ray.data.from_arrow(pa.table({"x": pa.array([], pa.int64())})), input="x", label="x")
