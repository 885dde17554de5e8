"""Labelled examples: what is read, and what is refused with file, line, value and what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from watchkeeper.tools.errors import DataError
from watchkeeper.tools.training.classifiers import held_out
from watchkeeper.tools.training.examples import Columns, Example, Examples, read_examples, screen
from watchkeeper.tools.training.log_classifier import LogClassifier, LogParameters, newest_held_out
from watchkeeper.tools.training.text_classifier import TextClassifier, TextParameters

COLUMNS = Columns("text", "label")
WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "lazy",
    "dogs",
    "while",
    "seven",
    "wizards",
    "brew",
    "strong",
    "black",
    "coffee",
    "today",
]


def rows(count: int = 40, **columns: Callable[[int], str]) -> str:
    """A table whose texts differ and give nothing away."""
    made = {
        "text": lambda i: f"{WORDS[i % 16]} {i} {WORDS[(i * 7) % 16]}",
        "label": lambda i: "ab"[i % 3 == 0],
    }
    made |= columns
    lines = [",".join(make(i) for make in made.values()) for i in range(count)]
    return "\n".join([",".join(made), *lines]) + "\n"


@pytest.fixture
def accept(tmp_path: Path) -> Callable[..., Any]:
    def inspect(content: str | bytes, name: str = "data.csv", **parameters: Any) -> Any:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return TextClassifier().inspect(path, TextParameters(**parameters))

    return inspect


def test_a_good_table_is_summed_up(accept: Callable[..., Any]) -> None:
    summary = accept(rows())
    assert summary.rows == 40
    assert summary.notes == ("2 classes: a 26, b 14",)
    assert summary.columns == {"text": "text", "label": "label"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"data\.csv is empty: it must hold a header and rows"),
        (b"text,label\n", r"data\.csv holds no row below its header: add examples"),
        (b"text,klass\nx,y\n", r"line 1: there is no column 'label' \(there are: text, klass\): rename"),
        (b"text;label\nx;y\n", r"line 1: cells are separated by ';': save it with commas"),
        (b"text,label,text\nx,y,z\n", r"line 1: column 'text' is there twice"),
        (b"text,label\nx,a\ny,b,c\n", r"line 3: has 3 cells where the header has 2: quote cells"),
        (b'text,label\n"x,a\n', r"line 2: is no CSV: unexpected end of data: mend the quotes"),
        (b"text,label\nfine,a\nna\xefve,b\n", r"line 3: byte 0xef is no UTF-8: save the file as UTF-8, e\.g"),
        ("text,label\nx,a\n".encode("utf-16"), r"line 1: is UTF-16: save it as UTF-8"),
        (b"text,label\nx,a\n\0,b\n", r"line 3: holds a NUL character"),
        (b"text,label\nx,a\n  ,b\n", r"line 3: text is empty: fill it in, or take the row out"),
        (b"text,label\nx,a\nNaN,b\n", r"line 3: text is 'NaN': fill it in, or take the row out"),
        (b"text,label\nx,a\ny,nan\n", r"line 3: label is 'nan'"),
        (b"text,label\nx,\n", r"line 2: label is empty"),
        (
            b"text,label\nx,a\ny,a\n",
            r"line 2: all 2 rows have the label 'a': examples of at least two classes",
        ),
        (b"text,label\nx,a\ny,a\nz,b\n", r"line 4: label 'b' is there only once: add examples"),
        (b"text,label\nx,1\ny,1\nz,2\nu,2\nv,3\nw,3\nX,4\n", r"line 8: label '4' is there only once"),
        (
            b'text,label\n"two\nlines",a\nx,a\nX ,b\ny,b\n',
            r"line 5: 'X ' has the label 'b', and 'a' in .*data\.csv, line 4: decide on one of them",
        ),
    ],
)
def test_bad_tables_are_refused_with_their_place(
    accept: Callable[..., Any], content: bytes, message: str
) -> None:
    with pytest.raises(DataError, match=message) as raised:
        accept(content)
    assert "\n" not in str(raised.value)


def test_what_is_missing_is_refused(tmp_path: Path) -> None:
    for name, message in (("none.csv", "does not exist"), (".", "holds no file")):
        with pytest.raises(DataError, match=message):
            TextClassifier().inspect(tmp_path / name, TextParameters())


def test_a_label_with_a_value_for_nearly_every_row_is_refused(accept: Callable[..., Any]) -> None:
    with pytest.raises(
        DataError, match=r"'label' has 30 values in 40 rows \(.*line 2: 'l0'\): is it the label"
    ):
        accept(rows(label=lambda i: f"l{i % 30}"))


@pytest.mark.parametrize(
    ("columns", "parameters", "message"),
    [
        (
            {
                "text": lambda i: f"{WORDS[i % 16]} {i} ({'very good' if i % 3 else 'bad'})",
                "label": lambda i: "Very good" if i % 3 else "bad",
            },
            {},
            r"line \d+: the text says its own label '(Very good|bad)'",
        ),
        (
            {"text": lambda i: f"{'zx'[i % 3 == 0]} {WORDS[i % 16]} {i}"},
            {},
            r"line 2: the first word 'x' tells the label 'b', as the first word of every text does",
        ),
        (
            {"text": lambda i: f"{WORDS[i % 16]} {i} {'zx'[i % 3 == 0]}"},
            {},
            r"line 2: the last word 'x' tells the label 'b'",
        ),
        (
            {"team": lambda i: "uv"[i % 3 == 0]},
            {"groups": ("team",)},
            r"line 2: column 'team' \('v'\) tells the label 'b', as it does in .* leave it out of groups",
        ),
    ],
)
def test_a_label_that_is_given_away_is_refused_unless_that_is_said_to_be_right(
    accept: Callable[..., Any], columns: dict[str, Any], parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message + r".*\(leaks: true accepts it\)|" + message):
        accept(rows(**columns), **parameters)
    assert accept(rows(**columns), leaks=True, **parameters).rows == 40


def test_the_label_cannot_be_learned_from(accept: Callable[..., Any]) -> None:
    with pytest.raises(DataError, match="column 'label' is the label and to be learned from at once"):
        accept(rows(), text="label")


def test_a_class_of_which_texts_speak_now_and_then_is_no_leak(accept: Callable[..., Any]) -> None:
    columns = {"text": lambda i: f"{WORDS[i % 16]} {i} {'billing' if i % 6 == 0 else 'else'} so"}
    assert accept(rows(label=lambda i: "other" if i % 3 else "billing", **columns)).rows == 40


def test_contradictions_are_accepted_where_that_is_said(accept: Callable[..., Any]) -> None:
    content = b"text,label\nx,a\nx,b\ny,a\nz,b\n"
    summary = accept(content, contradictions=True)
    assert summary.notes[1] == "1 rows repeat the text of an earlier one"


def test_a_positive_class_must_exist(accept: Callable[..., Any]) -> None:
    with pytest.raises(DataError, match="positive class 'c' is no label"):
        accept(rows(), positive="c")


def test_json_lines_are_read_and_refused_like_tables(accept: Callable[..., Any]) -> None:
    good = "".join(f'{{"text": "{letter}", "label": {i // 2}}}\n' for i, letter in enumerate("xyzw"))
    assert accept(good, "data.jsonl").rows == 4
    for bad, message in (
        ("{\n", "line 5: is no JSON"),
        ("[1]\n", "line 5: is no JSON object: '\\[1\\]'"),
        ('{"text": "v"}\n', r"line 5: has no text or number 'label' \(it has: text\)"),
        ('{"text": null, "label": 1}\n', "line 5: text is empty"),
    ):
        with pytest.raises(DataError, match=message):
            accept(good + bad, "data.jsonl")


def test_a_folder_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    for name, text in (("b.csv", "second"), ("a.csv", "first")):
        (tmp_path / name).write_text(f"text,label\n{text},x\n")
    read = read_examples(tmp_path, COLUMNS)
    assert [example.text for example in read.all] == ["first", "second"]
    assert read.all[1].place == f"{tmp_path / 'b.csv'}, line 2"


def test_the_same_bytes_have_the_same_digest_and_others_another(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(rows())
    first = read_examples(path, COLUMNS).sha256
    assert read_examples(path, COLUMNS).sha256 == first
    path.write_text(rows(41))
    assert read_examples(path, COLUMNS).sha256 != first


PATTERN = r"^(?P<label>\S+) (?P<time>\S+) (?P<message>.*)$"


def log(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "app.log"
    path.write_text(text)
    return path


def test_a_log_is_taken_apart_by_its_pattern(tmp_path: Path) -> None:
    path = log(
        tmp_path, "- 2030-01-02T03:04:05Z up\nDISK 1893553446 down\n- 1893553447 on\nNET 1893553448 off\n"
    )
    parameters = LogParameters(pattern=PATTERN, time="time", normal="-")
    summary = LogClassifier().inspect(path, parameters)
    assert summary.notes == ("2 classes: - 2, abnormal 2",)
    assert summary.columns == {"message": "message", "label": "label", "time": "time"}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, r"app\.log: a file that is no \.csv or \.jsonl needs a pattern"),
        ({"pattern": "("}, r"pattern '\(' is no regular expression"),
        ({"pattern": "(?P<label>.)(?P<text>.*)"}, r"has no group \(\?P<message>"),
        ({"pattern": r"^(?P<label>\d) (?P<message>.*)"}, r"line 1: does not match the pattern: '- x up'"),
        ({"pattern": PATTERN, "time": "time"}, r"line 1: time is 'x', which is no time"),
        ({"pattern": PATTERN, "normal": "ok"}, r"'ok' is no label of .*: there are: -, DISK"),
        ({"pattern": PATTERN, "message": "label"}, "column 'label' is the label and to be learned from"),
        ({"pattern": PATTERN, "fields": ("label",)}, "column 'label' is the label and to be learned from"),
    ],
)
def test_logs_that_cannot_be_used_are_refused(
    tmp_path: Path, parameters: dict[str, Any], message: str
) -> None:
    path = log(tmp_path, "- x up\nDISK x down\n- x on\nDISK x off\n")
    with pytest.raises(DataError, match=message):
        LogClassifier().inspect(path, LogParameters(**parameters))


def test_the_label_that_stands_in_raw_lines_is_found(tmp_path: Path) -> None:
    lines = [f"{'DISK' if i % 3 == 0 else 'OKAY'} {i} {WORDS[i % 16]} {WORDS[i % 7]}" for i in range(60)]
    path = log(tmp_path, "\n".join(lines))
    pattern = r"^(?P<message>(?P<label>\S+) .*)$"
    with pytest.raises(DataError, match=r"the text says its own label '(DISK|OKAY)'"):
        LogClassifier().inspect(path, LogParameters(pattern=pattern))


def test_a_field_that_tells_the_label_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(rows(level=lambda i: "high" if i % 3 == 0 else "low"))
    with pytest.raises(DataError, match=r"column 'level' .* leave it out of fields"):
        LogClassifier().inspect(path, LogParameters(message="text", fields=("level",)))


def test_the_newest_lines_are_held_out_whatever_their_order() -> None:
    made = [Example(f"m{i}", "ab"[i % 2], f"line {i}", time=float((i * 7) % 20)) for i in range(20)]
    kept, out = newest_held_out(made, 0.25)
    assert len(out) == 5
    assert max(one.time or 0 for one in kept) < min(one.time or 0 for one in out)
    rare = [Example(f"m{i}", "a", "", time=float(i)) for i in range(19)] + [Example("m", "b", "", time=99.0)]
    assert newest_held_out(rare, 0.25) == (rare, [])


def test_times_without_a_year_go_on_over_new_year(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    days = [f"Dec 31 23:59:{i:02}" for i in range(10)] + [f"Jan  1 00:00:{i:02}" for i in range(10)]
    path.write_text(rows(20, at=lambda i: days[i]))
    found = read_examples(path, Columns("text", "label", time="at")).all
    times = [example.time or 0 for example in found]
    assert times == sorted(times)
    assert times[-1] - times[0] < 86400
    assert not any(example.dated for example in found)
    path.write_text(rows(20, at=lambda i: f"2026-01-01T00:00:{i:02}Z"))
    assert all(example.dated for example in read_examples(path, Columns("text", "label", time="at")).all)


def test_equal_texts_are_held_out_together_and_no_class_is_lost() -> None:
    made = [Example(f"text {i // 2}", "ab"[(i // 2) % 2], "") for i in range(200)]
    kept, out = held_out(made, 0.3)
    assert 20 < len(out) < 100
    assert not {one.text for one in kept} & {one.text for one in out}
    rare = [*made, Example("one alone", "c", "")]
    assert "c" in {one.label for one in held_out(rare, 0.5)[0]}


def test_screening_needs_rows_enough_to_judge_by() -> None:
    few = Examples(tuple(Example(f"{'xz'[i % 2]} w{i}", "ab"[i % 2], f"line {i}") for i in range(10)), "")
    assert screen(few, COLUMNS, first_words=True) == ["2 classes: a 5, b 5"]
