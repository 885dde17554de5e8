"""Plots of classifiers are PNG files of the right size, and nothing is half-written."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from watchkeeper.models.errors import PlotError
from watchkeeper.tools.predictors.plots import draw_confusion, draw_reliability


def size_of(path: Path) -> tuple[int, int]:
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    return width, height


def test_a_confusion_matrix_grows_with_its_classes_and_is_the_same_every_time(tmp_path: Path) -> None:
    two, many = tmp_path / "two.png", tmp_path / "deep" / "many.png"
    draw_confusion(np.array([[9, 1], [0, 0]]), ("good", "плохо" * 20), two, title="two")
    draw_confusion(np.eye(12, dtype=np.int64), [f"class {number}" for number in range(12)], many)
    assert size_of(many)[0] > size_of(two)[0]
    first = two.read_bytes()
    draw_confusion(np.array([[9, 1], [0, 0]]), ("good", "плохо" * 20), two, title="two")
    assert two.read_bytes() == first


def test_reliability_is_drawn_with_few_points_or_none(tmp_path: Path) -> None:
    for number, points in enumerate(([], [(0.95, 1.0, 3)], [(0.5, 0.4, 10), (0.9, 0.95, 200)])):
        draw_reliability(points, tmp_path / f"{number}.png")
        assert size_of(tmp_path / f"{number}.png")[0] > 400


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PlotError, match="cannot be written"):
        draw_reliability([], tmp_path / "file" / "x.png")
