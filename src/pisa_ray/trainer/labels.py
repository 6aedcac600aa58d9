"""Checks that the labels of all splits are classes that the model can tell apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from pisa_ray.data import Source, Where
from pisa_ray.engine.job import Job
from pisa_ray.errors import ConfigError

#: The most classes for which a model is made when the labels determine their number.
MOST_CLASSES = 100_000

#: The label that torch leaves out of a mean of cross-entropies.
IGNORED = -100


@dataclass(frozen=True)
class LabelRange:
    """The range of the labels of a source, without `IGNORED`.

    Attributes:
        least: The smallest label, 0 if there are none.
        most: The largest label, 0 if there are none.
        least_row: A row with the smallest label.
        most_row: A row with the largest label.
        ignored_row: The first row whose labels are all `IGNORED`, if there is one.
    """

    least: int = 0
    most: int = 0
    least_row: int = 0
    most_row: int = 0
    ignored_row: int | None = None


def label_range(source: Source, ignored: int = IGNORED) -> LabelRange | None:
    """Return the range of all labels; None if they are real numbers, or cannot be read without the inputs."""
    if source.target_dtype.is_floating_point:
        return None
    found, lows, highs, ignored_rows = False, list[tuple[int, int]](), list[tuple[int, int]](), list[int]()
    for first, labels in source.targets():
        found, rows = True, labels.reshape(len(labels), -1)
        counted = rows != ignored
        ignored_rows += [first + int(row) for row in np.flatnonzero(~counted.any(1))[:1]]
        values, places = rows[counted], first + np.nonzero(counted)[0]
        if len(values):
            low, high = values.argmin(), values.argmax()
            lows.append((int(values[low]), int(places[low])))
            highs.append((int(values[high]), int(places[high])))
    least, least_row = min(lows, default=(0, 0))
    most, most_row = max(highs, key=lambda end: end[0], default=(0, 0))
    return LabelRange(least, most, least_row, most_row, min(ignored_rows, default=None)) if found else None


def classes_of(train: Source) -> int:
    """Return the number of classes that a model for some data needs, 1 for regression.

    Raises:
        ConfigError: If the labels do not determine it, are not numbered from 0, or make more classes than there are
            rows, or than `MOST_CLASSES`.
    """
    if train.target_dtype.is_floating_point:
        return 1
    train.labels()  # refuses rows that have no label, or an unknown one
    found = label_range(train)
    if found is None:
        return 1
    _check_least(train, "data.train", found, "classes are numbered from 0")
    classes = found.most + 1
    if classes > min(train.rows, MOST_CLASSES):
        raise ConfigError(
            f"{_label(train, 'data.train', found.most_row)} {found.most}, which makes {classes:,} classes of "
            f"{train.rows:,} rows, but at most {min(train.rows, MOST_CLASSES):,} are told apart: number the classes "
            "from 0 without gaps."
        )
    if classes == 1:
        raise ConfigError(
            f"data.label, column {train.target_name!r} of data.train, has no other label than 0, which leaves nothing "
            "to tell apart: give data with at least two classes."
        )
    return classes


def check_classes(job: Job, output: Any) -> None:
    """Check the labels of all splits, if the loss is a cross-entropy.

    Args:
        job: The loss and the data.
        output: The output of the model for some rows, [rows, classes, ...].

    Raises:
        ConfigError: If a label is not one of the model's classes; it names row and column.
    """
    loss, ignored = _cross_entropy(job.objective.loss)
    if loss is None or job.train.target_dtype.is_floating_point or not isinstance(output, torch.Tensor):
        return
    places = job.train.target_shape
    if output.dim() == 2 and places:
        raise ConfigError(
            f"data.label, column {job.train.target_name!r}, has lists of {places[0]} integers, which a cross-entropy "
            f"takes for {places[0]} classes per row and outputs of shape [rows, classes, {places[0]}], but the model's "
            f"have shape {tuple(output.shape)}: store one class per row; or, if several hold at once, real numbers, "
            "and give a loss for them."
        )
    if output.dim() < 2 or tuple(output.shape[2:]) != places:
        return  # the loss itself will raise
    classes = output.shape[1]
    if classes == 1:
        raise ConfigError(
            "the model has 1 output, but a cross-entropy needs one for each class: give it more, or for a regression "
            f"store data.label, column {job.train.target_name!r}, as real numbers."
        )
    for name, source in (("data.train", job.train), ("data.test", job.test), ("data.validation", job.validation)):
        found = label_range(source, ignored) if source is not None else None
        if source is None or found is None:
            continue
        wanted = f"the model's {classes} outputs are for the labels 0 to {classes - 1}"
        _check_least(source, name, found, wanted, may_be_ignored=loss is not functional.cross_entropy)
        if found.most >= classes:
            raise ConfigError(
                f"{_label(source, name, found.most_row)} {found.most}, but {wanted}: number the classes from 0, leave "
                "such rows out, or give the model more outputs."
            )


def _check_least(source: Source, name: str, found: LabelRange, wanted: str, *, may_be_ignored: bool = False) -> None:
    if found.ignored_row is not None and not may_be_ignored:
        throughout = " throughout" if source.target_shape else ""
        raise ConfigError(
            f"{_label(source, name, found.ignored_row)} {IGNORED}{throughout}, which torch's cross-entropy leaves "
            "out while the row is counted everywhere else: drop such rows."
        )
    if found.least < 0:
        raise ConfigError(
            f"{_label(source, name, found.least_row)} {found.least}, but {wanted}: number the classes from 0."
        )


def _label(source: Source, name: str, row: int) -> str:
    return f"{Where(name).cell(row, source.target_name)} {'has' if source.target_shape else 'is'}"


def _cross_entropy(loss: Callable[..., Any]) -> tuple[Callable[..., Any] | None, int]:
    """Return the loss, if it is one of torch's cross-entropies, and the label that it leaves out."""
    if isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss):
        return loss, loss.ignore_index
    inner = loss.func if isinstance(loss, partial) else loss
    if inner not in (functional.cross_entropy, functional.nll_loss):
        return None, IGNORED
    return loss, loss.keywords.get("ignore_index", IGNORED) if isinstance(loss, partial) else IGNORED
