"""Labels of all splits are looked at before the start: type, range, number of classes."""

from functools import partial

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset, TensorDataset

from pisa_ray import IID, Data
from pisa_ray.engine.job import Objective, classification_metrics
from pisa_ray.errors import ConfigError
from pisa_ray.trainer.config import Config
from pisa_ray.trainer.labels import LabelRange, classes_of, label_range
from pisa_ray.trainer.prepare import prepare

ROWS = 30
LABELS = np.arange(ROWS) % 3


def table(labels) -> pa.Table:
    return pa.table({"a": np.arange(ROWS) / ROWS, "y": pa.array(labels)})


def data(labels, **others) -> Data:
    return Data(train=table(labels), input="a", label="y", **{name: table(values) for name, values in others.items()})


def prepared(given: Data, outputs: int = 3, model: nn.Module | None = None, **arguments):
    return prepare(
        Config(model=model or nn.Linear(1, outputs), data=given, partition=IID(3), batch_size=4, **arguments)
    )


def at(row: int, label, labels=LABELS) -> np.ndarray:
    changed = labels.copy()
    changed[row] = label
    return changed


OUT_OF_RANGE = [
    (at(25, 3), "row 25 of column 'y' is 3, but the model's 3 outputs are for the labels 0 to 2: number the classes"),
    (LABELS + 1, "row 2 of column 'y' is 3, but the model's 3 outputs"),
    (at(25, 10**9), "row 25 of column 'y' is 1000000000, but the model's 3 outputs"),
    (at(25, 2**63 - 1), "row 25 of column 'y' is 9223372036854775807, but"),
    (np.where(LABELS > 0, 1, -1), "row 0 of column 'y' is -1, but the model's 3 outputs are for the labels 0 to 2"),
    (-1 - LABELS, "row 2 of column 'y' is -3, but"),
    (at(25, -100), "row 25 of column 'y' is -100, which torch's cross-entropy leaves out while the row is counted"),
    (np.full(ROWS, -100), "row 0 of column 'y' is -100, which torch's cross-entropy leaves out"),
    (at(25, 255).astype(np.uint8), "row 25 of column 'y' is 255, but"),
]


@pytest.mark.parametrize("split", ["train", "test", "validation"])
@pytest.mark.parametrize(("labels", "sentence"), OUT_OF_RANGE)
def test_a_label_that_is_no_class_of_the_model_is_refused_in_every_split(split, labels, sentence):
    given = data(labels) if split == "train" else data(LABELS, **{split: labels})
    with pytest.raises(ConfigError, match=rf"^In data\.{split}, {sentence}"):
        prepared(given)


def test_labels_in_range_are_accepted():
    assert prepared(data(LABELS, test=LABELS, validation=np.zeros(ROWS, int))).classes == 3
    assert prepared(data(LABELS > 0), outputs=2).classes == 2
    assert prepared(data(at(25, 700)), outputs=1000).classes == 1000  # a model of one's own may know more classes


@pytest.mark.parametrize(
    ("loss", "label", "sentence"),
    [
        (nn.CrossEntropyLoss(), 3, "is 3, but the model's 3 outputs"),
        (nn.CrossEntropyLoss(label_smoothing=0.1), -1, "is -1, but the model's 3 outputs"),
        (nn.CrossEntropyLoss(ignore_index=-1), -1, None),
        (nn.CrossEntropyLoss(ignore_index=7), 7, None),
        (nn.CrossEntropyLoss(), -100, None),
        (nn.NLLLoss(), 5, "is 5, but the model's 3 outputs"),
        (partial(functional.cross_entropy, label_smoothing=0.1), 4, "is 4, but the model's 3 outputs"),
        (partial(functional.cross_entropy, ignore_index=-2), -2, None),
        (lambda output, target: output.square().mean(), 99, None),
    ],
)
def test_a_loss_of_ones_own_decides_what_labels_may_be_as_far_as_it_is_known(loss, label, sentence):
    given = data(at(25, label))
    if sentence is None:
        prepared(given, loss=loss)
        return
    with pytest.raises(ConfigError, match=f"row 25 of column 'y' {sentence}"):
        prepared(given, loss=loss)


def test_labels_that_exclude_nothing_are_no_sequences():
    multi_hot = np.eye(3, dtype=int)[LABELS].tolist()
    with pytest.raises(
        ConfigError, match=r"has lists of 3 integers, .* but the model's have shape \(2, 3\): store one"
    ):
        prepared(data(multi_hot))


def test_one_output_is_no_model_for_classes():
    with pytest.raises(ConfigError, match="1 output, but a cross-entropy needs one for each class: give it more"):
        prepared(data(LABELS), outputs=1)


def sequences(*rows) -> Data:
    return data([list(rows[i % len(rows)]) for i in range(ROWS)])


PER_PLACE = nn.Sequential(nn.Linear(1, 8), nn.Unflatten(1, (4, 2)))


def test_sequences_may_be_padded_but_not_altogether():
    prepared(sequences((0, 3), (2, -100)), model=PER_PLACE)
    with pytest.raises(
        ConfigError, match="row 1 of column 'y' has -100 throughout, which torch's cross-entropy leaves"
    ):
        prepared(sequences((0, 3), (-100, -100)), model=PER_PLACE)
    with pytest.raises(ConfigError, match="row 1 of column 'y' has 4, but the model's 4 outputs are for the labels 0"):
        prepared(sequences((0, 3), (-100, 4)), model=PER_PLACE)


def test_the_accuracy_of_padded_sequences_is_that_of_the_places_that_count():
    output = torch.eye(3)[torch.tensor([[0, 1, 2], [1, 1, 1]])].transpose(1, 2)
    target = torch.tensor([[0, 2, -100], [1, -100, -100]])
    assert classification_metrics(output, target)["accuracy"].tolist() == [0.5, 1.0]
    whole = torch.tensor([[0, 2, 2], [1, 0, 0]])
    assert classification_metrics(output, whole)["accuracy"].tolist() == [2 / 3, 1 / 3]
    assert Objective().metrics is classification_metrics


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (
            LABELS + 10**9,
            r"row 2 of column 'y' is 1000000002, which makes 1,000,000,003 classes of 30 rows, but at most",
        ),
        (at(25, 30), "row 25 of column 'y' is 30, which makes 31 classes of 30 rows, but at most 30 are told apart"),
        (at(25, 2**63 - 1), "row 25 of column 'y' is 9223372036854775807, which makes"),
        (np.where(LABELS > 0, 1, -1), "row 0 of column 'y' is -1, but classes are numbered from 0: number the classes"),
        (at(25, -100), "row 25 of column 'y' is -100, which torch's cross-entropy leaves out"),
        (
            np.zeros(ROWS, int),
            "column 'y' of data.train, has no other label than 0, which leaves nothing to tell apart",
        ),
    ],
)
def test_labels_that_do_not_say_how_many_classes_there_are_are_refused(labels, sentence):
    with pytest.raises(ConfigError, match=sentence):
        classes_of(data(labels).open().train)


def test_more_classes_than_anybody_needs_are_refused_before_memory_is_taken():
    many = TensorDataset(torch.zeros(100_002, 1), torch.arange(100_002))
    with pytest.raises(ConfigError, match="which makes 100,002 classes of 100,002 rows, but at most 100,000 are"):
        classes_of(Data(train=many).open().train)


def test_classes_are_those_of_the_training_data():
    given = data(LABELS, test=at(25, 3))
    assert given.open().outputs() == 3
    with pytest.raises(ConfigError, match=r"In data\.test, row 25 of column 'y' is 3, but the model's 3 outputs"):
        prepared(given)
    assert data(at(25, 29)).open().outputs() == 30
    assert data(LABELS / 2).open().outputs() == 1


def test_the_range_of_labels_is_found_piece_by_piece():
    labels = torch.arange(2500) % 7
    labels[1700], labels[2400], labels[11], labels[1200] = 9, -3, -100, -100
    source = Data(train=TensorDataset(torch.zeros(2500, 1), labels)).open().train
    assert label_range(source) == LabelRange(least=-3, most=9, least_row=2400, most_row=1700, ignored_row=11)
    assert label_range(source, ignored=-3) == LabelRange(-100, 9, 11, 1700, 2400)


class Items(Dataset):
    """Items that do not say their labels."""

    def __len__(self):
        return ROWS

    def __getitem__(self, i):
        return torch.zeros(1), i % 3


def test_labels_that_come_with_the_inputs_only_are_not_looked_at():
    assert label_range(Data(train=Items()).open().train) is None
    prepared(Data(train=Items()))


def test_the_labels_of_a_list_of_items_are_known():
    items = [(torch.zeros(1), label) for label in at(25, 3).tolist()]
    with pytest.raises(ConfigError, match=r"^In data\.train, row 25 of column 'target' is 3, but"):
        prepared(Data(train=items))
