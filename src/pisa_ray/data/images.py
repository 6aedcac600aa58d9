"""Encoded images as pixels."""

import io
import math
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image, ImageOps, UnidentifiedImageError

from pisa_ray.data.where import Where
from pisa_ray.errors import ConfigError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")


def is_image(kind: pa.DataType) -> bool:
    """Return whether cells of a type are encoded images: bytes, or struct{bytes, path} as Hugging Face stores them."""
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and is_image(kind.field("bytes").type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def decode(cell: pa.Scalar, where: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Decode a cell's image, upright as its EXIF orientation says.

    Args:
        cell: A cell of a column for which `is_image` holds.
        where: What to call the cell in error messages.
        shape: The shape that the image must have; None: any.

    Returns:
        Pixels, uint8, shape (1 or 3, height, width).

    Raises:
        ConfigError: If there is no image, or it cannot be decoded, is an animation, has an alpha channel, has colours
            other than grey or RGB, or has another shape.
    """
    encoded = _encoded(cell, where)
    try:
        pixels = _pixels(encoded, where, shape)
    except ConfigError:
        raise
    except Exception as error:  # decoders may raise anything for a broken file
        said = type(error).__name__ if isinstance(error, UnidentifiedImageError) else f"{type(error).__name__}: {error}"
        raise ConfigError(
            f"{where} cannot be read as a PNG, JPEG, WEBP or GIF image ({len(encoded):,} bytes; "
            f"{' '.join(said.split())}): write that image again, or drop the row."
        ) from error
    if shape is not None and pixels.shape != shape:
        raise _unlike(where, pixels.shape, shape)
    return pixels


def check_images(column: pa.ChunkedArray, name: str, where: Where) -> None:
    """Refuse cells without an image.

    Raises:
        ConfigError: If there is such a cell.
    """
    encoded = pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column
    if encoded.null_count:
        row = int(pc.index(encoded.is_null(), pa.scalar(value=True)).as_py())
        _encoded(column[row], where.cell(row, name))


def _encoded(cell: pa.Scalar, where: str) -> pa.Buffer:
    in_struct = isinstance(cell, pa.StructScalar)
    encoded = cell["bytes"] if in_struct and cell.is_valid else cell
    if encoded.is_valid:
        return encoded.as_buffer()
    path = cell.as_py().get("path") if in_struct and cell.is_valid else None
    if path:
        raise ConfigError(f"{where} is only a path, {path!r}, without an image: store the images' own bytes.")
    raise ConfigError(f"{where} is null, but every row needs an image: fill in or drop that row.")


def _pixels(encoded: pa.Buffer, where: str, shape: tuple[int, ...] | None) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        opened = Image.open(io.BytesIO(encoded), formats=FORMATS)
    with opened as image:
        if shape is not None and image.width * image.height != math.prod(shape[1:]):  # before the pixels take memory
            bands = 3 if image.mode == "P" else len(image.getbands())
            raise _unlike(where, (bands, image.height, image.width), shape)
        if image.format != "MPO" and getattr(image, "is_animated", False):  # an MPO is a photograph with its preview
            raise ConfigError(f"{where} is an animation, but one picture is expected: store one of its frames.")
        ImageOps.exif_transpose(image, in_place=True)
        palette = image.mode == "P" or image.format == "GIF"
        if not palette and image.mode not in ("L", "RGB"):
            raise ConfigError(
                f"{where} is an image of mode {image.mode}, but grey (L), RGB or a palette of colours (P) is expected: "
                "convert the images."
            )
        if palette and "transparency" in image.info:
            raise ConfigError(f"{where} is an image with transparent parts, but none are expected: convert the images.")
        pixels = np.asarray(image.convert("RGB") if palette else image)
    return pixels[np.newaxis] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _unlike(where: str, shape: tuple[int, ...], first: tuple[int, ...]) -> ConfigError:
    return ConfigError(
        f"{where} is an image of shape {shape}, but the first row has {first}: bring all images to one size and colour "
        "mode."
    )
