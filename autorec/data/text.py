"""Texts as hashed words: the first words of each row as codes, and how many words there are.

A word is a run of letters, digits and combining marks of any script, lower-cased; all else parts
words. A title begins with what it is about, so a row keeps its FIRST words. Words are hashed to a
fixed number of codes, so nothing is learned of them and none is ever unknown: code 0 fills the
rest, 1 is not used, word w is `2 + hash(w) % buckets`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from autorec.data.casting import conform, flat, is_text
from autorec.data.hashing import hash_text
from autorec.data.sequences import pad
from autorec.data.vocabulary import FIRST, Codes
from autorec.schema import Field, Kind

LENGTH = "#length"
BUCKETS = 4096
_GAP = r"[^\p{L}\p{N}\p{M}]+"
_WORD = r"(?:^|\s)[\p{P}\p{S}]*[\p{L}\p{M}]{2,}"
_THREE_WORDS = rf"(?s){_WORD}.*?{_WORD}.*?{_WORD}"
_MANY, _READ = 1000, 5000  # distinct texts that a column needs; how many of them are looked at
_ROWS = 1 << 13  # texts cut at a time: 8,192 descriptions of 1,000 words are about 100 MB

Counts = npt.NDArray[np.int64]


def sentences(values: Any) -> bool:
    """Tell whether over 1000 distinct texts (m,) are sentences: half have three words or more.

    Here a word begins with two letters behind a space, so that dates, codes and paths have none.
    """
    if len(values) <= _MANY:
        return False
    values = values.take(pa.array(np.arange(0, len(values), -(-len(values) // _READ))))
    several = pc.match_substring_regex(values, _THREE_WORDS)
    return bool(2 * pc.sum(several).as_py() >= len(values))


def lengths_of(fields: Iterable[Field]) -> dict[str, str]:
    """Return the name of the length of each text column, and the column."""
    return {f"{f.name}{LENGTH}": f.name for f in fields if f.kind is Kind.TEXT}


def words(array: Any) -> tuple[Any, Counts]:
    """Return the words of all rows end to end, and how many each row (n,) has; null has none.

    Args:
        array: Arrow text in any layout.
    """
    parted = pc.split_pattern_regex(pc.utf8_lower(array.cast(pa.large_string())), _GAP)
    lengths = pc.fill_null(pc.list_value_length(parted), 0).to_numpy(zero_copy_only=False)
    ends = np.cumsum(lengths.astype(np.int64))
    found = parted.flatten()
    kept = pc.not_equal(found, "")  # a text that begins or ends with a gap has empty ends
    before = np.append(0, np.cumsum(kept.to_numpy(zero_copy_only=False)))
    return found.filter(kept), before[ends] - before[ends - lengths.astype(np.int64)]


def tokens(array: Any, buckets: int = BUCKETS) -> tuple[Codes, Counts]:
    """Return the codes (m,) of the words of all rows end to end, and how many each row (n,) has.

    Args:
        array: Arrow text in any layout.
        buckets: codes that words are hashed to.
    """
    found, lengths = words(array)
    codes = np.uint64(FIRST) + hash_text(found) % np.uint64(buckets)
    return codes.astype(np.int32), lengths


def block(array: Any, width: int, buckets: int = BUCKETS, column: str = "") -> tuple[Codes, Counts]:
    """Return the codes (n, L) of the first words of each row, 0 behind them, and its words (n,).

    A log repeats the text of an item in many rows: each different text is cut into words once.

    Args:
        array: texts, or values that have one exact text such as integers.
        width: L.
        buckets: codes that words are hashed to.
        column: name for error messages.

    Raises:
        DataError: the column holds lists, structs or another type without one text a row.
    """
    texts, rows = _different(array, column)
    codes = np.zeros((len(texts), width), np.int32)
    counts = np.zeros(len(texts), np.int64)
    for start in range(0, len(texts), _ROWS):
        part = slice(start, start + _ROWS)
        found, counts[part] = tokens(texts.slice(start, _ROWS), buckets)
        codes[part] = pad(found, counts[part], width, last=False)
    return codes[rows], counts[rows]


def word_counts(array: Any, column: str = "") -> Counts:
    """Return how many words each row (n,) has, as `block` counts them.

    Raises:
        DataError: the column holds lists, structs or another type without one text a row.
    """
    texts, rows = _different(array, column)
    parts = [words(texts.slice(start, _ROWS))[1] for start in range(0, len(texts), _ROWS)]
    return np.concatenate([np.zeros(0, np.int64), *parts])[rows]


def scaled(counts: Counts) -> npt.NDArray[np.float64]:
    """Return the logarithm of 1 + the words (n,): the number that stands beside the codes."""
    return np.log1p(counts.astype(np.float64))


def _different(array: Any, column: str) -> tuple[Any, npt.NDArray[np.int64]]:
    """Return the different texts, and the place of each row (n,) among them."""
    array = flat(array)
    if not is_text(array.type):
        array = conform(array, pa.large_string(), column)
    coded = array.dictionary_encode(null_encoding="encode")
    return coded.dictionary, np.asarray(coded.indices.to_numpy(zero_copy_only=False), np.int64)
