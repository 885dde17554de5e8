"""Features of texts and log lines: pieces of them, hashed into a fixed number of buckets.

A classifier of texts so stores no word of what it learned from, and knows no language: pieces of words are
as telling in one as in another (Joulin et al.: "Bag of Tricks for Efficient Text Classification", 2017;
hashing: Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", 2009).
"""

from __future__ import annotations

import math
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

from watchkeeper.tools.predictors.masks import is_masked

TEXT_LIMIT = 5000  # characters of a text that are looked at
_PIECES = (2, 3, 4)

Features = tuple[tuple[int, float], ...]
"""Buckets and their weights, in the order of buckets; the squares of the weights add up to one."""


def text_features(text: str, buckets: int) -> Features:
    """Return words, pairs of words, and their pieces of two to four letters (one, where that is a word)."""
    words = unicodedata.normalize("NFKC", text[:TEXT_LIMIT]).casefold().split()
    counts = Counter(_pairs(words))
    for word in words:
        counts.update(_pieces(word))
        # Scripts without cases, such as Chinese, write words in a letter or two.
        counts.update(f"1{letter}" for letter in word if unicodedata.category(letter) == "Lo")
    return hashed(counts, buckets)


def line_features(words: Sequence[str], fields: Iterable[tuple[str, str]], buckets: int) -> Features:
    """Return words of a template, pairs of them, and pieces of those that are not masked, beside fields."""
    low = [word.casefold() for word in words]
    counts = Counter(_pairs(low))
    for word in low:
        if not is_masked(word):
            counts.update(_pieces(word))
    counts.update(f"={name}={value.casefold()}" for name, value in fields)
    return hashed(counts, buckets)


def hashed(counts: Counter[str], buckets: int) -> Features:
    """Put counted pieces into buckets, and give them weights."""
    filled: dict[int, float] = {}
    for piece, count in counts.items():
        bucket = zlib.crc32(piece.encode("utf-8", "surrogatepass")) % buckets
        filled[bucket] = filled.get(bucket, 0.0) + math.sqrt(count)
    length = math.sqrt(sum(weight * weight for weight in filled.values()))
    return tuple((bucket, filled[bucket] / length) for bucket in sorted(filled))


def _pairs(words: Sequence[str]) -> Iterable[str]:
    yield from (f"w{word}" for word in words)
    yield from (f"p{first} {second}" for first, second in pairwise(words))


def _pieces(word: str) -> Iterable[str]:
    edged = f"\2{word}\3"
    for length in _PIECES:
        yield from (f"{length}{edged[at : at + length]}" for at in range(len(edged) - length + 1))
