"""Reading series: what is taken, and how each mistake in a file is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from watchkeeper.tools.errors import DataError
from watchkeeper.tools.predictors.series import SeriesFormat, digest_of, read_file, read_folder

SHORT = SeriesFormat(least_rows=3)
GOOD = "timestamp,value\n2026-01-01 00:00:00,1\n2026-01-01 00:05:00,2.5\n2026-01-01T00:10:00+00:00,-3e2\n"


def written(folder: Path, text: str | bytes, name: str = "cpu.csv") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_times_and_values_are_read_with_and_without_a_byte_order_mark(tmp_path: Path, start: bytes) -> None:
    (series,) = read_file(written(tmp_path, start + GOOD.encode()), SHORT)
    assert series.name == "cpu.csv"
    assert series.values.tolist() == [1.0, 2.5, -300.0]
    assert (series.times - series.times[0]).tolist() == [0, 300, 600]
    assert series.times[0] == 1767225600  # 2026-01-01 in UTC
    assert series.step_seconds == 300


def test_times_may_be_seconds_and_zones_are_minded(tmp_path: Path) -> None:
    text = "at,load\n1767225600,1\n2026-01-01T01:30:00+01:00,2\n1767229200.5,4\n"
    form = SeriesFormat(time_column="at", value_column="load", least_rows=3)
    (series,) = read_file(written(tmp_path, text), form)
    assert (series.times - 1767225600).tolist() == [0, 1800, 3600.5]


def test_group_columns_tell_series_of_one_file_apart(tmp_path: Path) -> None:
    rows = [f"{1000 + place},{host},{place}.5" for place in range(4) for host in ("a", "b")]
    path = written(tmp_path, "timestamp,host,value\n" + "\n".join(rows) + "\n")
    found = read_file(path, SeriesFormat(least_rows=3, group_columns=("host",)))
    assert [(s.name, s.groups, s.values.tolist()) for s in found] == [
        ("cpu.csv host=a", {"host": "a"}, [0.5, 1.5, 2.5, 3.5]),
        ("cpu.csv host=b", {"host": "b"}, [0.5, 1.5, 2.5, 3.5]),
    ]


def test_a_folder_is_read_in_the_order_of_names_and_its_digest_minds_names_and_bytes(tmp_path: Path) -> None:
    written(tmp_path, GOOD, "b/x.csv")
    written(tmp_path, GOOD, "a.csv")
    written(tmp_path, "not a series", "notes.txt")
    assert [s.name for s in read_folder(tmp_path, SHORT)] == ["a.csv", "b/x.csv"]
    before = digest_of(tmp_path)
    assert digest_of(tmp_path) == before
    (tmp_path / "a.csv").rename(tmp_path / "c.csv")
    moved = digest_of(tmp_path)
    written(tmp_path, GOOD.replace("2.5", "2.6"), "c.csv")
    assert len({before, moved, digest_of(tmp_path)}) == 3


MISTAKES = {
    "empty": ("", r"cpu\.csv is empty; its first line must name columns: timestamp, value"),
    "no rows": ("timestamp,value\n", r"holds a header and no rows; at least 3 are needed"),
    "no column": ("time,value\n1,2\n", r"cpu\.csv:1: column 'timestamp' is missing \(there are: 'time', "),
    "twice a column": ("timestamp,value,value\n1,2,3\n", r":1: column 'value' is there twice"),
    "no number": (GOOD.replace("2.5", "2,5"), r"cpu\.csv:3: 3 columns where the header has 2"),
    "words": (GOOD.replace("2.5", "much"), r"cpu\.csv:3: 'value' 'much' is no number; mend or"),
    "nothing": (GOOD.replace("2.5", ""), r"cpu\.csv:3: 'value' '' is no number"),
    "nan": (GOOD.replace("2.5", "NaN"), r"cpu\.csv:3: 'value' 'NaN' is no finite number"),
    "infinite": (GOOD.replace("2.5", "-inf"), r"cpu\.csv:3: 'value' '-inf' is no finite number"),
    "no time": (
        GOOD.replace("2026-01-01 00:05:00", "soon"),
        r"cpu\.csv:3: 'timestamp' 'soon' is no time; write it",
    ),
    "endless time": ("timestamp,value\ninf,1\n", r"cpu\.csv:2: 'timestamp' 'inf' is no time"),
    "backwards": (
        GOOD.replace("00:10:00", "00:01:00"),
        r"cpu\.csv:4: time '2026-01-01T00:01:00\+00:00' is before .* \(2026-01-01T00:05:00\+00:00\); sort",
    ),
    "twice a time": (GOOD.replace("00:10:00", "00:05:00"), r"cpu\.csv:4: time .* stands there a second time"),
    "few": ("timestamp,value\n1,2\n2,3\n", r"cpu\.csv: 2 rows, and at least 3 are needed"),
    "constant": ("timestamp,value\n1,7\n2,7\n3,7.0\n", r"cpu\.csv: every 'value' is 7\.0, which nothing"),
    "quotes": ('timestamp,value\n1,"2\n', r"cpu\.csv:2: not CSV"),
    "null bytes": ("timestamp,value\n1,2\0\n", r"cpu\.csv:2: a null byte"),
    "latin-1": (b"timestamp,value\n1,2\n2,\xb3\n", r"cpu\.csv:3: byte 0xb3 is not UTF-8; save the file"),
    "utf-16": (GOOD.encode("utf-16"), r"cpu\.csv:1: byte 0xff is not UTF-8"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_with_its_place_and_value(tmp_path: Path, mistake: str) -> None:
    text, told = MISTAKES[mistake]
    with pytest.raises(DataError, match=told) as caught:
        read_file(written(tmp_path, text), SHORT)
    assert "\n" not in str(caught.value)


def test_a_group_that_is_too_short_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, "timestamp,host,value\n1,a,1\n2,a,2\n3,a,3\n1,b,1\n")
    with pytest.raises(DataError, match=r"cpu\.csv, host 'b': 1 rows"):
        read_file(path, SeriesFormat(least_rows=3, group_columns=("host",)))


def test_repeated_times_and_constants_are_kept_where_that_is_asked_for(tmp_path: Path) -> None:
    form = SeriesFormat(least_rows=2, repeated_times="keep", constant="keep")
    (series,) = read_file(written(tmp_path, "timestamp,value\n1,7\n1,7\n"), form)
    assert series.values.tolist() == [7, 7]


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere does not exist; name a CSV file, or a folder"):
        read_folder(tmp_path / "nowhere", SHORT)
    with pytest.raises(DataError, match=r"holds no file that ends in \.csv"):
        read_folder(tmp_path, SHORT)
