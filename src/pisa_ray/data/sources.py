"""Opens training data of any supported kind."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa
import torch

from pisa_ray.data.base import Source
from pisa_ray.data.digits import digits_table
from pisa_ray.data.parquet import ParquetSource
from pisa_ray.data.ray_dataset import RaySource
from pisa_ray.data.tables import ArrowSource
from pisa_ray.data.torch_dataset import TorchSource
from pisa_ray.errors import ConfigError

if TYPE_CHECKING:
    import ray.data

DataSpec: TypeAlias = "str | Path | pa.Table | ray.data.Dataset | torch.utils.data.Dataset[Any] | Sequence[Any]"


def open_source(
    spec: "DataSpec",
    *,
    input: str | Sequence[str] | None = None,  # noqa: A002
    label: str | None = None,
    integers: bool = False,
) -> Source:
    """Opens data of any supported kind and checks what can be checked from its metadata.

    Args:
        spec: One of: a Parquet file, or a folder of Parquet files (path, or a URI that pyarrow opens, e.g. s3://...); a
            `pyarrow.Table`; a `ray.data.Dataset`; a map-style torch dataset of (input, target) items, each a pure
            function of its index; "digits" (1,437 training images of 8x8 grey pixels, as 64 features in 0..1) or
            "digits:test" (the other 360).
        input: For tables: the input column, or several columns of single numbers that become float32 features.
        label: For tables: the column of labels (integers or booleans) or of regression targets (floats).
        integers: Whether several input columns of single integers stay integers.

    Returns:
        The opened source.

    Raises:
        ConfigError: If the data are missing, empty or of a kind that cannot be used.
    """
    if isinstance(spec, str) and spec in ("digits", "digits:test"):
        return ArrowSource(digits_table(spec), input="features", label="label")
    if isinstance(spec, str | Path):
        return ParquetSource(spec, input=input, label=label, integers=integers)
    if isinstance(spec, pa.Table):
        return ArrowSource(spec, input=input, label=label, integers=integers)
    ray_data = sys.modules.get("ray.data")  # whoever made a Ray data set has imported it; nobody else needs it
    if ray_data is not None and isinstance(spec, ray_data.Dataset):
        return RaySource(spec, input=input, label=label, integers=integers)
    if hasattr(spec, "__len__") and hasattr(spec, "__getitem__"):
        return TorchSource(spec)
    raise ConfigError(
        f"The data are a {type(spec).__name__}, but a path, a pyarrow.Table, a ray.data.Dataset, a torch dataset with "
        "__len__ and __getitem__, or 'digits' is expected: convert them to one of these."
    )
