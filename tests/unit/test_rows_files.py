"""Files of rows, and what batch inference makes of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.threshold import Threshold
from watchkeeper.tools.errors import DataError
from watchkeeper.tools.predictors.batch import predict_file
from watchkeeper.tools.predictors.rows import RowsFile


def file(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_column_holds_numbers_where_all_of_its_cells_do(tmp_path: Path) -> None:
    path = file(tmp_path, "a.csv", "host,load,code\nweb,1.5,7\n'x',,8\ndb,2,nine\n")
    found = RowsFile.inspect(path)
    assert (found.rows, found.columns, found.numeric) == (3, ("host", "load", "code"), {"load"})
    assert list(found.read()) == [
        {"host": "web", "load": 1.5, "code": "7"},
        {"host": "'x'", "load": None, "code": "8"},
        {"host": "db", "load": 2, "code": "nine"},
    ]
    assert list(found.read(2)) == [{"host": "db", "load": 2, "code": "nine"}]


def test_a_column_may_be_said_to_hold_texts(tmp_path: Path) -> None:
    path = file(tmp_path, "a.csv", "ticket,load\n0042,1\n")
    assert list(RowsFile.inspect(path, text=["ticket"]).read()) == [{"ticket": "0042", "load": 1}]


def test_quoted_cells_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    path = file(tmp_path, "a.csv", b'\xef\xbb\xbfa,b\n"x,\ny","say ""no"""\n')
    assert list(RowsFile.inspect(path).read()) == [{"a": "x,\ny", "b": 'say "no"'}]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "", "is empty: its first line must name its columns"),
        ("a.csv", "a,a\n1,2\n", "line 1: every column needs a name of its own"),
        ("a.csv", "a,b\n1\n", "line 2: 1 cells for 2 columns"),
        ("a.csv", b"a\n\xff\n", "is not UTF-8"),
        ("a.jsonl", "{}\n{", "line 2 is no JSON"),
        ("a.jsonl", "[1]\n", r"line 1 is no object: \[1\]"),
        ("a.jsonl", '{"a": NaN}\n', "line 1 is no JSON: NaN is no JSON number"),
        ("a.txt", "x", r"is no \.csv or \.jsonl file"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_its_line(
    tmp_path: Path, name: str, content: str | bytes, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        RowsFile.inspect(file(tmp_path, name, content))


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        RowsFile.inspect(tmp_path / "a.csv")


def predict(source: Path, target: Path, *, version: str = "1", restart: bool = False) -> None:
    predict_file(
        Threshold(0.5), source, target, version=version, digest=version, part_rows=2, restart=restart
    )


def test_answers_stand_beside_the_columns_of_a_csv_file(tmp_path: Path) -> None:
    source = file(tmp_path, "a.csv", 'host,load\n"w,1",0.25\ndb,1\n')
    predict(source, tmp_path / "b.csv")
    assert (tmp_path / "b.csv").read_text() == (
        'host,load,busy,score\n"w,1",0.25,false,-0.25\ndb,1,true,0.5\n'
    )


def test_cells_of_the_rows_are_written_as_they_were_read(tmp_path: Path) -> None:
    row = "0.50,0042,1.10,12345678901234567.25,1_000"
    path = file(tmp_path, "a.csv", f"load,ticket,sum,id,many\n{row}\n")
    output = tmp_path / "b.csv"
    predict(path, output)
    assert output.read_text().splitlines()[1].startswith(f"{row},")


def test_a_column_of_the_same_name_is_not_written_over(tmp_path: Path) -> None:
    predict(file(tmp_path, "a.jsonl", '{"load": 1, "busy": "?"}\n'), tmp_path / "b.jsonl")
    answer = json.loads((tmp_path / "b.jsonl").read_text())
    assert answer == {"load": 1, "busy": "?", "predicted_busy": True, "score": 0.5}


def test_a_file_without_rows_gives_one_without_answers(tmp_path: Path) -> None:
    predict(file(tmp_path, "a.csv", "load\n"), tmp_path / "b.csv")
    assert (tmp_path / "b.csv").read_text() == "load\n"


def cut_off(folder: Path) -> Path:
    """A batch whose fifth row is wrong: two parts are done."""
    source = file(folder, "a.jsonl", '{"load": 1}\n' * 4 + '{"load": "x"}\n')
    with pytest.raises(DataError, match=r"rows 5 to 5 of the input \(row 0 is row 5\): row 0: column 'load'"):
        predict(source, folder / "b.jsonl")
    return source


def test_a_row_that_cannot_be_answered_is_told_and_no_output_is_there(tmp_path: Path) -> None:
    cut_off(tmp_path)
    assert not (tmp_path / "b.jsonl").exists()


def test_answers_of_two_versions_are_never_mixed(tmp_path: Path) -> None:
    source = cut_off(tmp_path)
    with pytest.raises(DataError, match="its version was '1', not '2': begin anew with --restart"):
        predict(source, tmp_path / "b.jsonl", version="2")


def test_other_data_begin_anew_when_told_so(tmp_path: Path) -> None:
    source = cut_off(tmp_path)
    source.write_text('{"load": 0}\n' * 3)
    with pytest.raises(DataError, match="its input sha256 was"):
        predict(source, tmp_path / "b.jsonl")
    predict(source, tmp_path / "b.jsonl", restart=True)
    assert (tmp_path / "b.jsonl").read_text().count('"busy": false') == 3
