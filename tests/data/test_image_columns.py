"""Images as they come from cameras, scanners, browsers and half-finished downloads."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from pisa_ray.data import open_source
from pisa_ray.errors import ConfigError

RANDOM = np.random.default_rng(0)
COLOURS = RANDOM.integers(0, 256, (8, 6, 3), np.uint8)
PICTURE = Image.fromarray(COLOURS)


def encode(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def with_chunk(png: bytes, kind: bytes, data: bytes) -> bytes:
    """A PNG with one more chunk behind its header."""
    chunk = struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return png[:33] + chunk + png[33:]


def header(width: int, height: int) -> bytes:
    """A PNG that says how large it is, and hardly more."""
    png = encode(Image.new("L", (1, 1)))
    size = b"IHDR" + struct.pack(">II", width, height) + png[24:29]
    return png[:12] + size + struct.pack(">I", zlib.crc32(size)) + png[33:]


def opened(cells, kind=None):
    return open_source(pa.table({"x": pa.array(cells, kind), "y": list(range(len(cells)))}), input="x", label="y")


def read(cells, kind=None) -> torch.Tensor:
    source = opened(cells, kind)
    return source.read(np.arange(source.rows)).batch(np.arange(source.rows))[0]


GOOD = encode(PICTURE)
JPEG = encode(PICTURE, "JPEG")
TURNED = Image.Exif()
TURNED[0x0112] = 6


@pytest.mark.parametrize(
    ("data", "close"),
    [
        (encode(PICTURE, "WEBP", lossless=True), 0),
        (encode(PICTURE.quantize(48), "GIF"), 60),
        (encode(PICTURE.quantize(48), "PNG"), 60),
        (encode(PICTURE, "JPEG", quality=100, subsampling=0), 20),
        (encode(PICTURE, "MPO", save_all=True, append_images=[PICTURE], quality=100, subsampling=0), 20),
    ],
)
def test_photographs_palettes_webp_and_gif_become_rgb(data, close):
    pixels = read([data, data])
    assert (pixels.shape, pixels.dtype) == ((2, 3, 8, 6), torch.uint8)
    assert np.abs(pixels[1].numpy().astype(int) - COLOURS.transpose(2, 0, 1)).max() <= close


def test_a_grey_gif_is_as_colourful_as_the_other_gifs():
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    assert read([encode(ramp, "GIF")]).shape == (1, 3, 16, 16)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_stand_upright_as_their_exif_orientation_says(kind, orientation):
    stored = {
        1: PICTURE,
        2: PICTURE.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: PICTURE.transpose(Image.Transpose.ROTATE_180),
        4: PICTURE.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: PICTURE.transpose(Image.Transpose.TRANSPOSE),
        6: PICTURE.transpose(Image.Transpose.ROTATE_90),
        7: PICTURE.transpose(Image.Transpose.TRANSVERSE),
        8: PICTURE.transpose(Image.Transpose.ROTATE_270),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    pixels = read([encode(stored, kind, exif=exif, **options)])
    assert pixels.shape == (1, 3, 8, 6)
    assert np.abs(pixels[0].numpy().astype(int) - COLOURS.transpose(2, 0, 1)).max() <= 20


CUT = JPEG[: len(JPEG) // 2]


BAD = [
    (CUT, "cannot be read as a PNG, JPEG, WEBP or GIF image"),
    (b"", r"cannot be read as a PNG, JPEG, WEBP or GIF image \(0 bytes"),
    (b"<html>404</html>", r"cannot be read .* \(16 bytes; UnidentifiedImageError\)"),
    (GOOD[:20], "cannot be read"),
    (GOOD[:-40], "cannot be read"),
    (GOOD[:60] + b"\xff\xff\xff" + GOOD[63:], "cannot be read"),
    (encode(PICTURE, "GIF")[:60], "cannot be read"),
    (encode(PICTURE, "WEBP")[:40], "cannot be read"),
    (encode(PICTURE, "BMP"), "cannot be read"),
    (encode(PICTURE, "TIFF"), "cannot be read"),
    (b"%!PS-Adobe-3.0 EPSF-3.0", "cannot be read"),
    (with_chunk(GOOD, b"iCCP", b"icc\0\0" + zlib.compress(b"\0" * (2 << 20))), "Decompressed data too large"),
    (with_chunk(GOOD, b"zTXt", b"xmp\0\0" + zlib.compress(b"\0" * (2 << 20))), "Decompressed data too large"),
    (header(60_000, 60_000), "DecompressionBombError"),
    (header(10_000, 10_000), "DecompressionBombWarning"),
    (encode(PICTURE.convert("RGBA")), "is an image of mode RGBA"),
    (encode(PICTURE.convert("CMYK"), "JPEG"), "is an image of mode CMYK"),
    (encode(PICTURE.convert("1")), "is an image of mode 1"),
    (encode(Image.fromarray(COLOURS[..., 0].astype(np.uint16) * 257)), "is an image of mode I;16"),
    (encode(PICTURE.quantize(48), "GIF", transparency=0), "is an image with transparent parts"),
    (encode(PICTURE, "GIF", save_all=True, append_images=[PICTURE.rotate(180)]), "is an animation"),
    (encode(PICTURE, "WEBP", save_all=True, append_images=[PICTURE.rotate(180)]), "is an animation"),
    (encode(PICTURE, "PNG", save_all=True, append_images=[PICTURE.rotate(180)]), "is an animation"),
]
UNLIKE = [
    (header(9_000, 9_000), r"is an image of shape \(1, 9000, 9000\), but the first row has \(3, 8, 6\)"),
    (encode(PICTURE.convert("L")), r"is an image of shape \(1, 8, 6\), but the first row has \(3, 8, 6\)"),
    (
        encode(PICTURE.rotate(90, expand=True)),
        r"is an image of shape \(3, 6, 8\), but the first row has \(3, 8, 6\)",
    ),
]


@pytest.mark.filterwarnings("error")  # nothing is printed beside the sentence
@pytest.mark.parametrize(("bad", "sentence"), [*BAD, *UNLIKE])
def test_a_bad_image_is_refused_by_row_and_column_when_it_is_decoded(bad, sentence):
    source = opened([GOOD, GOOD, bad])
    with pytest.raises(ConfigError, match=f"^In the table, row 2 of column 'x' .*{sentence}"):
        source.read(np.array([1, 2]))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("bad", "sentence"), [*BAD, (None, "is null")])
def test_a_bad_first_image_is_refused_when_the_data_are_opened(bad, sentence):
    with pytest.raises(ConfigError, match=f"^In the table, row 0 of column 'x' .*{sentence}"):
        opened([bad], pa.binary())


def test_rows_that_nobody_asks_for_are_not_decoded():
    assert opened([GOOD, CUT, GOOD]).read(np.array([2, 0])).batch(np.arange(2))[0].shape == (2, 3, 8, 6)


HUGGING_FACE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.mark.parametrize(
    ("cell", "sentence"),
    [
        ({"bytes": None, "path": "img/0.png"}, "is only a path, 'img/0.png', without an image: store the images' own"),
        ({"bytes": None, "path": None}, "is null"),
        (None, "is null"),
    ],
)
@pytest.mark.parametrize("row", [0, 1])
def test_hugging_face_images_without_bytes_are_refused_when_the_data_are_opened(cell, sentence, row, tmp_path: Path):
    cells = [{"bytes": GOOD, "path": None}] * 2
    cells[row] = cell
    table = pa.table({"x": pa.array(cells, HUGGING_FACE), "y": [0, 1]})
    pq.write_table(table, tmp_path / "t.parquet")
    for data in (table, tmp_path / "t.parquet"):
        with pytest.raises(ConfigError, match=f"row {row} of column 'x' {sentence}"):
            open_source(data, input="x", label="y")
