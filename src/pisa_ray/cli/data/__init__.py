"""Makes Parquet files of well-known data sets, of folders of images and of CSV files: `pisa-ray data`."""

from __future__ import annotations

import shlex
from pathlib import Path

#: The kinds of data, each with the module that reads it and a description of --from.
KINDS = {
    "mnist": ("idx", "the folder with train-images-idx3-ubyte, train-labels-idx1-ubyte and the same of t10k"),
    "fashion-mnist": ("idx", "the folder with train-images-idx3-ubyte, train-labels-idx1-ubyte and the same of t10k"),
    "cifar10": ("cifar", "the folder with data_batch_1.bin to data_batch_5.bin and test_batch.bin"),
    "adult": ("adult", "the folder with adult.data and adult.test"),
    "images": ("images", "a folder that has a sub-folder of images for each class"),
    "csv": ("csv_file", "a CSV file whose first line names the columns"),
}


def making(place: str) -> str:
    """Say how to make a file that a configuration names.

    Args:
        place: The path of the file, such as data/mnist/test.parquet.

    Returns:
        The end of a sentence, empty if the path is not named after a data set.
    """
    path = Path(place)
    name = path.parent.name.lower().replace("_", "-")
    if name not in KINDS or path.stem not in ("train", "test"):
        return ""
    command = ["pisa-ray", "data", name, "--split", path.stem, "--from", "FOLDER", "--out", place]
    return f", or make it by `{shlex.join(command)}`, where FOLDER is {KINDS[name][1]}"
