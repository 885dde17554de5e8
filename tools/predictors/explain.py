"""Explanations by leaving out: which pieces of a text, a line or a window an answer rests on.

Each piece is taken away in turn, and what the answer's score loses is what the piece was worth
(occlusion: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", 2014; for words: Li,
Monroe, Jurafsky, "Understanding Neural Networks through Representation Erasure", 2016). No look inside the
model is needed, and nothing is drawn by chance. Of two pieces either of which suffices, neither is worth
anything by itself.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from watchkeeper.tools.errors import DataError
from watchkeeper.tools.predictors.interface import Predictor, Row
from watchkeeper.tools.predictors.text import text_of

PIECES_LIMIT = 200
"""Pieces that are left out one by one; of more, neighbours are left out together."""

_RUN = re.compile(r"\w+|[^\w\s]+")
_LEAST = 1e-12
Numbers = NDArray[np.float64]
Fill = Literal["line", "mean", "held"]


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of what was asked.

    Attributes:
        start: Where it begins: a character, a line, or a point in time.
        end: Where it ends; that is no part of it.
        text: The piece, or the name of a channel.
        effect: What the answer's score loses without it; negative for what speaks against the answer.
    """

    start: int
    end: int
    text: str
    effect: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why an answer was given.

    Attributes:
        label: The answer.
        score: Its probability.
        pieces: All pieces, the strongest first, then in their order.
    """

    label: str
    score: float
    pieces: tuple[Piece, ...]


def explain_text(
    predictor: Predictor,
    row: Row,
    *,
    column: str,
    label: str | None = None,
    limit: int = PIECES_LIMIT,
    stand_in: str = "",
    scale: Literal["log-odds", "probability"] = "log-odds",
) -> Explanation:
    """Explain the answer of a classifier of texts or log lines.

    Args:
        predictor: The predictor; it answers with ``label`` and ``probabilities``.
        row: What is asked.
        column: The column whose pieces are left out.
        label: The label to explain; None for the answer.
        limit: Pieces that are left out one by one.
        stand_in: What stands where a piece was left out.
        scale: What effects are measured in: log-odds of the label still tell pieces apart where it is nearly
            certain.

    Raises:
        DataError: If the row lacks the column, or the predictor does not know the label.
    """
    text = text_of(row, column, 0)
    answer = predictor.predict([row])[0]
    wanted = str(answer["label"]) if label is None else label

    def scores(texts: Sequence[str]) -> list[float]:
        answers = predictor.predict([{**row, column: changed} for changed in texts])
        found = [_probability(one, wanted) for one in answers]
        return found if scale == "probability" else [_log_odds(one) for one in found]

    whole = _probability(answer, wanted)
    return Explanation(wanted, whole, occlude_text(scores, text, limit=limit, stand_in=stand_in))


def occlude_text(
    scores: Callable[[Sequence[str]], Sequence[float]],
    text: str,
    *,
    limit: int = PIECES_LIMIT,
    stand_in: str = "",
) -> tuple[Piece, ...]:
    """Return what each piece of a text is worth to a score.

    Args:
        scores: Scores texts.
        text: The text.
        limit: Pieces that are left out one by one.
        stand_in: What stands where a piece was left out.
    """
    spans = _merged(spans_of(text), limit)
    found = scores([text, *(text[:start] + stand_in + text[end:] for start, end in spans)])
    return _ordered(
        Piece(start, end, text[start:end], found[0] - without)
        for (start, end), without in zip(spans, found[1:], strict=True)
    )


def occlude_items(
    scores: Callable[[Sequence[Sequence[str]]], Sequence[float]], items: Sequence[str]
) -> tuple[Piece, ...]:
    """Return what each item of a sequence, such as each line of a log, is worth to a score."""
    spans = _merged([(at, at + 1) for at in range(len(items))], PIECES_LIMIT)
    found = scores([items, *([*items[:start], *items[end:]] for start, end in spans)])
    return _ordered(
        Piece(start, end, "\n".join(items[start:end]), found[0] - without)
        for (start, end), without in zip(spans, found[1:], strict=True)
    )


def occlude_window(
    score: Callable[[Numbers], float],
    window: Numbers,
    *,
    width: int,
    channels: Sequence[str] = (),
    fill: Fill = "line",
) -> tuple[Piece, ...]:
    """Return what each stretch of each channel of a window of metrics is worth to a score.

    Args:
        score: Scores a window of the shape that is given.
        window: ``(time,)`` or ``(time, channels)``.
        width: Points of a stretch.
        channels: Names of the channels.
        fill: What stands for a stretch: a straight line between the points around it, the mean of the
            channel's other points, or the point before it again, where a score is of what comes last.

    Raises:
        DataError: If the window has another shape, or the width does not fit it.
    """
    values = window[:, None] if window.ndim == 1 else window
    if values.ndim != 2 or not 0 < width < len(values):
        raise DataError(f"a window of the shape {window.shape} has no stretches of {width} points")
    names = channels or [str(number) for number in range(values.shape[1])]
    if len(names) != values.shape[1]:
        raise DataError(f"{len(names)} names for {values.shape[1]} channels")
    whole = score(window)
    pieces = []
    for channel, name in enumerate(names):
        for start in range(0, len(values), width):
            end = min(start + width, len(values))
            changed = values.copy()
            changed[start:end, channel] = _filled(values[:, channel], start, end, fill)
            pieces.append(Piece(start, end, name, whole - score(changed.reshape(window.shape))))
    return _ordered(pieces)


def spans_of(text: str) -> list[tuple[int, int]]:
    """Return where words and marks stand; in scripts that write no spaces, where each letter does."""
    spans: list[tuple[int, int]] = []
    for run in _RUN.finditer(text):
        start = run.start()
        for at in range(run.start(), run.end()):
            if _stands_alone(text[at]):
                spans += [(start, at)] if start < at else []
                spans.append((at, at + 1))
                start = at + 1
        spans += [(start, run.end())] if start < run.end() else []
    return spans


def _stands_alone(letter: str) -> bool:
    name = unicodedata.name(letter, "") if ord(letter) >= 0x0E00 else ""
    return name.startswith(("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR"))


def _merged(spans: list[tuple[int, int]], limit: int) -> list[tuple[int, int]]:
    """Join neighbours so that no more than a number are left."""
    together = -(-len(spans) // limit) if spans else 1
    groups = [spans[at : at + together] for at in range(0, len(spans), together)]
    return [(group[0][0], group[-1][1]) for group in groups]


def _filled(values: Numbers, start: int, end: int, fill: Fill) -> Numbers:
    others = np.delete(values, np.s_[start:end])
    if fill == "mean":
        return np.full(end - start, others.mean())
    before = values[start - 1] if start else values[end]
    after = values[end] if end < len(values) and fill == "line" else before
    line: Numbers = np.linspace(before, after, end - start + 2)[1:-1]
    return line


def _ordered(pieces: Iterable[Piece]) -> tuple[Piece, ...]:
    return tuple(sorted(pieces, key=lambda piece: (-abs(piece.effect), piece.start, piece.text)))


def _log_odds(probability: float) -> float:
    held = min(max(probability, _LEAST), 1 - _LEAST)
    return math.log(held / (1 - held))


def _probability(answer: Row, label: str) -> float:
    shares = answer["probabilities"]
    if not isinstance(shares, dict) or label not in shares:
        raise DataError(f"label {label!r} is not known to the predictor: it answers {answer['label']!r}")
    return float(str(shares[label]))
