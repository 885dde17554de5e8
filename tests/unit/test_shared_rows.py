"""Rows that are learned from and judged by at once are found."""

from __future__ import annotations

from pathlib import Path

from watchkeeper.tools.training.shared_rows import count_shared_rows


def test_rows_in_another_order_among_others_are_found(tmp_path: Path) -> None:
    data, held_out = tmp_path / "data.csv", tmp_path / "held-out.csv"
    data.write_text("text,label\nc,1\na,1\nd,2\n\n")
    held_out.write_text("text,label\na,1\nb,1\nc,1\nc,1\n")
    assert count_shared_rows(data, held_out) == (3, 4)


def test_a_header_and_empty_lines_are_no_rows(tmp_path: Path) -> None:
    data, held_out = tmp_path / "data.csv", tmp_path / "held-out.csv"
    data.write_text("text,label\n\na,1\n")
    held_out.write_text("text,label\r\n\r\nb,1\r\n")
    assert count_shared_rows(data, held_out) == (0, 1)


def test_all_files_of_folders_count_whatever_ends_their_lines(tmp_path: Path) -> None:
    for place, name, text in (
        ("data", "one.jsonl", '{"a": 1}\n{"a": 2}\n'),
        ("data", "two.jsonl", '{"a": 3}\n'),
        ("held-out", "any.jsonl", '{"a": 3}\r\n{"a": 4}'),
    ):
        (tmp_path / place).mkdir(exist_ok=True)
        (tmp_path / place / name).write_text(text)
    assert count_shared_rows(tmp_path / "data", tmp_path / "held-out") == (1, 2)
