"""Opening training data of any supported kind."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pisa_ray.data.base import Source
from pisa_ray.data.columns import Columns
from pisa_ray.data.digits import digits_table
from pisa_ray.data.objects import as_data
from pisa_ray.data.parquet import ParquetSource
from pisa_ray.data.ray_dataset import RaySource
from pisa_ray.data.tables import ArrowSource
from pisa_ray.data.torch_dataset import TorchSource, with_columns


def open_source(
    spec: Any,
    *,
    input: str | Sequence[str] | None = None,  # noqa: A002
    label: str | None = None,
    integers: bool = False,
    name: str | None = None,
) -> Source:
    """Open data of any supported kind, and check what their metadata show.

    Args:
        spec: One of the following. A Parquet file or a folder of Parquet files (a path, or a URI that pyarrow opens,
            e.g. s3://...), a list of these, or a pattern such as "data/*.parquet". A `pyarrow.Table`, a DataFrame, a
            dictionary of arrays, or a list of rows that are dictionaries. A `ray.data.Dataset`. A pair of arrays
            (inputs, targets). A map-style torch dataset of items (input, target) or of dictionaries, each a pure
            function of its index. A Hugging Face data set. "digits" (1,437 training images of 8x8 grey pixels, as 64
            features in 0..1) or "digits:test" (the other 360).
        input: In tables, the input column, or several columns of single numbers that become float32 features.
        label: In tables, the column of labels (integers or booleans) or of regression targets (floats).
        integers: Whether several input columns of single integers stay integers.
        name: What to call the data in error messages; None: the name of their kind.

    Returns:
        The opened source.

    Raises:
        ConfigError: If the data are missing, empty or of a kind that cannot be used.
    """
    if isinstance(spec, str) and spec in ("digits", "digits:test"):
        return ArrowSource(digits_table(spec), Columns("features", "label"))
    columns = Columns(input, label, integers)
    ray_data = sys.modules.get("ray.data")  # a Ray data set exists only if ray.data has been imported
    if ray_data is not None and isinstance(spec, ray_data.Dataset):
        return RaySource(spec, columns)
    data = as_data(spec, name or "the data")
    if isinstance(data, str | Path) or (isinstance(data, list) and isinstance(data[0], str)):
        return ParquetSource(data, columns)
    if isinstance(data, pa.Table):
        return ArrowSource(data, columns, name or "the table")
    return TorchSource(with_columns(data, columns), name)
