"""A table of rows for shards that join a run."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pisa_ray.data.digits import digits_table


@pytest.fixture(scope="module")
def extra(tmp_path_factory) -> Path:
    """Rows like the training data's, to join."""
    path = tmp_path_factory.mktemp("data") / "extra.parquet"
    pq.write_table(digits_table("digits:test").slice(0, 60), path, row_group_size=25)
    return path
