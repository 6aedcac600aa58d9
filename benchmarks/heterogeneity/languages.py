"""Words of eight languages as Parquet files, a row for each letter to be guessed, and the model that guesses.

The words are from the package wordfreq (frequency lists; data under CC BY-SA 4.0), which nothing else here needs.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from string import ascii_lowercase

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

LANGUAGES = {
    "de": "German",
    "en": "English",
    "es": "Spanish",
    "fr": "French",
    "it": "Italian",
    "nl": "Dutch",
    "pl": "Polish",
    "pt": "Portuguese",
}
#: Words of each language, the most frequent ones that have at least so many letters.
WORDS, LETTERS = 3000, 4
#: Letters before the one to be guessed.
CONTEXT = 8
#: 0 is the edge of a word: before its first letter, and what follows the last one. Then a to z.
SYMBOLS = 27
#: Letters that are more than a letter and an accent.
WHOLE = str.maketrans({"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l"})


class NextLetter(nn.Module):
    """An embedding of the letters before, [rows, CONTEXT], and a hidden layer; a score a symbol, [rows, SYMBOLS]."""

    def __init__(self, width: int = 16, hidden: int = 128) -> None:
        super().__init__()
        self.letters = nn.Embedding(SYMBOLS, width)
        self.scores = nn.Sequential(
            nn.Flatten(), nn.Linear(CONTEXT * width, hidden), nn.ReLU(), nn.Linear(hidden, SYMBOLS)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.scores(self.letters(x.long()))
        return scores


def write_words(folder: Path) -> None:
    """Write train.parquet and test.parquet (context, next, language), unless they are there.

    The same lists give the same bytes. A word is for the test wherever it occurs, or nowhere: its hash decides.

    Raises:
        SystemExit: wordfreq is not installed.
    """
    places = {test: folder / name for test, name in ((False, "train.parquet"), (True, "test.parquet"))}
    if all(place.exists() for place in places.values()):
        return
    words = {name: frequent_words(code) for code, name in LANGUAGES.items()}
    folder.mkdir(parents=True, exist_ok=True)
    for test, place in places.items():
        some = [(name, row) for name in sorted(words) for w in words[name] if for_test(w) == test for row in rows_of(w)]
        contexts = pa.array([symbol for _, (before, _) in some for symbol in before], pa.uint8())
        table = pa.table(
            {
                "context": pa.FixedSizeListArray.from_arrays(contexts, CONTEXT),
                "next": pa.array([following for _, (_, following) in some], pa.uint8()),
                "language": [name for name, _ in some],
            }
        )
        part = place.with_suffix(".part")
        pq.write_table(table, part)
        os.replace(part, place)  # so that what has the name is whole


def frequent_words(code: str) -> list[str]:
    """The most frequent words of a language that are long enough, folded, each once.

    Raises:
        SystemExit: wordfreq is not installed.
    """
    try:
        from wordfreq import top_n_list
    except ImportError as error:
        raise SystemExit(
            "The study languages takes its words from the package wordfreq, which is not installed: run "
            "pip install wordfreq==3.1.1, or choose another study with --only."
        ) from error
    folded = (fold(word) for word in top_n_list(code, 4 * WORDS))
    return list(dict.fromkeys(word for word in folded if word and len(word) >= LETTERS))[:WORDS]


def fold(word: str) -> str | None:
    """A word in the letters a to z, without accents; None if it has anything else, such as an apostrophe.

    Example:
        >>> fold("Größe"), fold("łódź"), fold("l'eau")
        ('grosse', 'lodz', None)
    """
    apart = unicodedata.normalize("NFKD", word.lower().translate(WHOLE))
    plain = "".join(c for c in apart if not unicodedata.combining(c))
    return plain if all(c in ascii_lowercase for c in plain) else None


def for_test(word: str) -> bool:
    """Whether a word is one of the fifth that is tested on."""
    return hashlib.sha256(word.encode()).digest()[0] % 5 == 0


def rows_of(word: str) -> Iterator[tuple[list[int], int]]:
    """The symbols before each letter of a word, and before its end, with what follows them."""
    symbols = [0] * CONTEXT + [1 + ascii_lowercase.index(c) for c in word] + [0]
    for i in range(CONTEXT, len(symbols)):
        yield symbols[i - CONTEXT : i], symbols[i]
