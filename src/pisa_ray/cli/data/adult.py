"""Reads Adult (census income) from the files of the UCI repository, as the 123 features of LIBSVM's a9a."""

from __future__ import annotations

import re
from bisect import bisect_right

import numpy as np

from pisa_ray.cli.data.source import Asked, Made, lists, text
from pisa_ray.errors import ConfigError

CLASSES = ["<=50K", ">50K"]

#: The columns in the order of the file. Numbers: where the second and later of their ranges begin, most of them fifths
#: of the training rows. Words: the values, in the order of adult.names.
_TABLE = """
age: 26 33 41 50
workclass: Private Self-emp-not-inc Self-emp-inc Federal-gov Local-gov State-gov Without-pay Never-worked
fnlwgt: 106648 158662 196338 259873
education: Bachelors Some-college 11th HS-grad Prof-school Assoc-acdm Assoc-voc 9th 7th-8th 12th Masters 1st-4th 10th
  Doctorate 5th-6th Preschool
education-num: 9 10 11 13
marital-status: Married-civ-spouse Divorced Never-married Separated Widowed Married-spouse-absent Married-AF-spouse
occupation: Tech-support Craft-repair Other-service Sales Exec-managerial Prof-specialty Handlers-cleaners
  Machine-op-inspct Adm-clerical Farming-fishing Transport-moving Priv-house-serv Protective-serv Armed-Forces
relationship: Wife Own-child Husband Not-in-family Other-relative Unmarried
race: White Asian-Pac-Islander Amer-Indian-Eskimo Other Black
sex: Female Male
capital-gain: 1
capital-loss: 1
hours-per-week: 35 40 41 48
native-country: United-States Cambodia England Puerto-Rico Canada Germany Outlying-US(Guam-USVI-etc) India Japan
  Greece South China Cuba Iran Honduras Philippines Italy Poland Jamaica Vietnam Mexico Portugal Ireland France
  Dominican-Republic Laos Ecuador Taiwan Haiti Columbia Hungary Guatemala Nicaragua Scotland Thailand Yugoslavia
  El-Salvador Trinadad&Tobago Peru Hong Holand-Netherlands
"""
COLUMNS = {name: kinds.split() for name, kinds in re.findall(r"^(\S+): (.*(?:\n  .*)*)", _TABLE, re.MULTILINE)}

#: The mark for an unknown word in the file, which has none of the column's features.
UNKNOWN = "?"


def made(asked: Asked) -> Made:
    """Read the rows of a split: in each column the feature of its word or range is 1, and the others are 0."""
    path = asked.file("adult.data" if asked.split == "train" else "adult.test")
    features, labels = [], []
    for number, line in enumerate(text(path).splitlines(), 1):
        if not line.strip() or line.startswith("|"):  # adult.test begins with a remark
            continue
        try:
            ones, label = _encoded(line)
        except ValueError as error:
            raise ConfigError(f"{path}, line {number}: {error}; download it again, or correct that line.") from error
        features.append(ones)
        labels.append(label)
    if not features:
        raise ConfigError(f"{path} has no rows: download it again.")
    size = sum(map(_size, COLUMNS.values()))
    values = np.zeros((len(features), size), np.uint8)
    for row, ones in enumerate(features):
        values[row, ones] = 1
    return lists(asked, "features", values, np.array(labels), shape=[size], class_names=CLASSES)


def _size(kinds: list[str]) -> int:
    return len(kinds) + kinds[0].isdigit()


def _encoded(line: str) -> tuple[list[int], int]:
    """Return the features of a line that are 1, and its class."""
    *words, income = (word.strip() for word in line.split(","))
    if len(words) != len(COLUMNS):
        raise ValueError(f"there are {len(words) + 1} values, but {len(COLUMNS) + 1} are expected")
    ones, begin = [], 0
    for word, (name, kinds) in zip(words, COLUMNS.items(), strict=True):
        if kinds[0].isdigit():
            if not (word.isascii() and word.isdigit()):
                raise ValueError(f"{name} is {word!r}, but it must be a whole number")
            ones.append(begin + bisect_right([int(kind) for kind in kinds], int(word)))
        elif word in kinds:
            ones.append(begin + kinds.index(word))
        elif word != UNKNOWN:
            raise ValueError(f"{name} is {word!r}, but it must be {UNKNOWN} or one of {', '.join(kinds)}")
        begin += _size(kinds)
    income = income.removesuffix(".")  # adult.test has a full stop there
    if income not in CLASSES:
        raise ValueError(f"the income is {income!r}, but it must be {' or '.join(CLASSES)}")
    return ones, CLASSES.index(income)
