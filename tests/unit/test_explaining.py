"""Explanations by leaving out, where what an answer rests on is known by construction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pytest
from pydantic import JsonValue

from watchkeeper.tools.errors import DataError
from watchkeeper.tools.predictors.explain import (
    explain_text,
    occlude_items,
    occlude_text,
    occlude_window,
    spans_of,
)
from watchkeeper.tools.predictors.interface import Predictor, Row

WORTH = {"full": 0.4, "disk": 0.3, "fine": -0.2}


def counted(texts: Sequence[str]) -> list[float]:
    return [0.1 + sum(worth for word, worth in WORTH.items() if word in text.split()) for text in texts]


class Words(Predictor):
    kind: ClassVar[str] = "tests-words"
    columns: ClassVar[dict[str, str]] = {"text": "words"}

    def predict(self, rows: Sequence[Row]) -> list[dict[str, JsonValue]]:
        found = counted([str(row["text"]) for row in rows])
        return [
            {"label": "bad" if p > 0.5 else "good", "probabilities": {"bad": p, "good": 1 - p}} for p in found
        ]


def test_each_word_is_worth_what_it_was_made_to_be() -> None:
    found = explain_text(Words(), {"text": "the disk is full but fine"}, column="text", scale="probability")
    assert (found.label, found.score) == ("bad", pytest.approx(0.6))
    assert [(piece.text, piece.start) for piece in found.pieces] == [
        ("full", 12),
        ("disk", 4),
        ("fine", 21),
        ("the", 0),
        ("is", 9),
        ("but", 17),
    ]
    assert [piece.effect for piece in found.pieces] == pytest.approx([0.4, 0.3, -0.2, 0, 0, 0])
    assert found == explain_text(
        Words(), {"text": "the disk is full but fine"}, column="text", scale="probability"
    )


def test_another_label_than_the_answer_can_be_explained() -> None:
    found = explain_text(Words(), {"text": "disk full"}, column="text", label="good", scale="probability")
    assert [(piece.text, round(piece.effect, 6)) for piece in found.pieces] == [
        ("full", -0.4),
        ("disk", -0.3),
    ]
    with pytest.raises(DataError, match="label 'ugly' is not known to the predictor"):
        explain_text(Words(), {"text": "disk"}, column="text", label="ugly")
    with pytest.raises(DataError, match="row 1: column 'text' is missing"):
        explain_text(Words(), {}, column="text")


def test_log_odds_tell_pieces_apart_of_an_answer_that_is_nearly_certain() -> None:
    class Sure(Words):
        def predict(self, rows: Sequence[Row]) -> list[dict[str, JsonValue]]:
            worth = {"much": 20.0, "some": 5.0}
            odds = [sum(worth.get(word, 0.0) for word in str(row["text"]).split()) for row in rows]
            shares = [1 / (1 + np.exp(-value)) for value in odds]
            return [
                {"label": "bad", "probabilities": {"bad": float(p), "good": 1 - float(p)}} for p in shares
            ]

    plain = explain_text(Sure(), {"text": "some is much"}, column="text", scale="probability")
    assert all(piece.effect < 0.01 for piece in plain.pieces)
    found = explain_text(Sure(), {"text": "some is much"}, column="text")
    assert [piece.text for piece in found.pieces] == ["much", "some", "is"]
    assert [piece.effect for piece in found.pieces] == pytest.approx([20, 5, 0], abs=0.01)


def test_of_many_pieces_neighbours_are_left_out_together() -> None:
    asked: list[int] = []

    def scores(texts: Sequence[str]) -> list[float]:
        asked.append(len(texts))
        return counted(texts)

    text = " ".join(["so"] * 500 + ["full"] + ["so"] * 499)
    found = occlude_text(scores, text, limit=100)
    assert asked == [101]
    assert "full" in found[0].text
    assert found[0].effect == pytest.approx(0.4)
    assert all(piece.effect == pytest.approx(0) for piece in found[1:])


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("no space: left!", ["no", "space", ":", "left", "!"]),
        ("磁盘满了 disk已满", ["磁", "盘", "满", "了", "disk", "已", "满"]),
        ("дисков не хватает", ["дисков", "не", "хватает"]),
        ("", []),
        ("  ", []),
    ],
)
def test_pieces_are_words_or_letters_where_these_are_words(text: str, pieces: list[str]) -> None:
    assert [text[start:end] for start, end in spans_of(text)] == pieces


def test_something_can_stand_where_a_piece_was() -> None:
    seen: list[str] = []

    def scores(texts: Sequence[str]) -> list[float]:
        seen.extend(texts)
        return [0.0] * len(texts)

    occlude_text(scores, "a b", stand_in="<*>")
    assert seen == ["a b", "<*> b", "a <*>"]


def test_the_line_that_matters_is_found_among_lines() -> None:
    lines = [f"heartbeat {number}" for number in range(30)]
    lines[17] = "disk full"
    found = occlude_items(lambda many: counted([" ".join(each) for each in many]), lines)
    assert (found[0].text, found[0].start) == ("disk full", 17)
    assert found[0].effect == pytest.approx(0.7)
    assert {piece.effect for piece in found[1:]} == {0.0}


def test_the_stretch_and_the_channel_that_matter_are_found() -> None:
    window = np.ones((40, 3))
    window[22:25, 1] = 9.0
    found = occlude_window(
        lambda values: float(values.max()), window, width=5, channels=("cpu", "memory", "disk")
    )
    assert (found[0].text, found[0].start, found[0].end) == ("memory", 20, 25)
    assert found[0].effect == pytest.approx(8)
    assert all(piece.effect == 0 for piece in found[1:])
    assert len(found) == 3 * 8


def test_a_straight_slope_is_worth_nothing_to_a_score_of_bends() -> None:
    line = np.arange(30.0)

    def bends(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
        return float(np.abs(np.diff(values, 2)).sum())

    found = occlude_window(bends, line, width=6, fill="line")
    inner = [piece for piece in found if piece.start > 0 and piece.end < 30]
    assert all(piece.effect == pytest.approx(0, abs=1e-9) for piece in inner)
    assert any(piece.effect < -1 for piece in occlude_window(bends, line, width=6, fill="mean"))


def test_what_comes_later_stands_for_nothing_where_a_score_is_of_the_last_point() -> None:
    def jump(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
        return float(values[-1] - values[:-1].max())

    window = np.append(np.ones(11), 9.0)
    (first, *others) = occlude_window(jump, window, width=1, fill="held")
    assert (first.start, first.effect, {piece.effect for piece in others}) == (11, 8.0, {0.0})
    assert sum(piece.effect > 1 for piece in occlude_window(jump, window, width=1, fill="line")) == 2


def test_windows_that_have_no_such_stretches_are_refused() -> None:
    for window, width in ((np.zeros(5), 5), (np.zeros(5), 0), (np.zeros((2, 2, 2)), 1)):
        with pytest.raises(DataError, match="has no stretches of"):
            occlude_window(lambda values: 0.0, window, width=width)
    with pytest.raises(DataError, match="1 names for 2 channels"):
        occlude_window(lambda values: 0.0, np.zeros((5, 2)), width=2, channels=("a",))
