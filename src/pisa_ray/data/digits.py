"""scikit-learn's handwritten digits: a data set that needs no download."""

import numpy as np
import pyarrow as pa

from pisa_ray.data.keys import generator


def digits_table(name: str) -> pa.Table:
    """Load 1,797 images of 8x8 grey pixels, cut once and for all into 80% for training and 20% for test.

    Args:
        name: "digits" (1,437 rows) or "digits:test" (360 rows).

    Returns:
        A table with `features`, 64 float32 in 0..1 a row, and `label`, int64 0..9.
    """
    from sklearn.datasets import load_digits  # noqa: PLC0415 - slow to import

    pixels, labels = load_digits(return_X_y=True)
    rows = generator(0, "digits").permutation(len(labels))
    cut = len(labels) * 4 // 5
    rows = np.sort(rows[cut:] if name == "digits:test" else rows[:cut])
    features = (pixels[rows] / 16).astype(np.float32)  # sixteenths: exact in float32
    column = pa.FixedSizeListArray.from_arrays(pa.array(features.reshape(-1)), features.shape[1])
    return pa.table({"features": column, "label": pa.array(labels[rows].astype(np.int64))})
