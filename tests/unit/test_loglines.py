"""Times and severities of log lines, in the formats that are common."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.tools.loglines import LineSeverity, parse_line, parse_time

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC).timestamp()
LOGHUB = Path(__file__).parents[3] / "shared" / "data" / "loghub"

CASES = [
    ("2026-03-01T11:59:00Z ERROR x", "2026-03-01T11:59:00", "error"),
    ("2026-03-01 11:59:00,123 - app - WARNING - disk", "2026-03-01T11:59:00.123", "warning"),
    ("[2026-03-01 12:59:00 +0100] [77] [INFO] Booting", "2026-03-01T11:59:00", "info"),
    ("2026/03/01 11:59:00 [crit] 12#0: *5 open() failed", "2026-03-01T11:59:00", "critical"),
    ("[Sun Mar 01 11:59:00 2026] [error] mod_jk child", "2026-03-01T11:59:00", "error"),
    ("[Sun Mar 01 11:59:00.5 2026] [core:notice] [pid 5] AH0", "2026-03-01T11:59:00.5", "info"),
    ('::1 - - [01/Mar/2026:12:59:00 +0100] "GET / HTTP/1.1" 503 12', "2026-03-01T11:59:00", "error"),
    ('::1 - - [01/Mar/2026:12:59:00 +0100] "GET / HTTP/1.1" 404 12', "2026-03-01T11:59:00", "info"),
    ("Mar  1 11:59:00 host app[1]: hello", "2026-03-01T11:59:00", None),
    ("Dec 31 23:59:59 host app[1]: Failed password", "2025-12-31T23:59:59", "error"),
    ("<11>Mar  1 11:59:00 host app: hi", "2026-03-01T11:59:00", "error"),
    ("I0301 11:59:00.25 1 x.go:1] hi", "2026-03-01T11:59:00.25", "info"),
    ("E0301 11:59:00.25 1 x.go:1] hi", "2026-03-01T11:59:00.25", "error"),
    ("1772366340.5 hello", "2026-03-01T11:59:00.5", None),
    ("1772366340123 debug: x", "2026-03-01T11:59:00.123", "debug"),
    ("- 1772366340 2026.03.01 R02 RAS KERNEL FATAL x", "2026-03-01T11:59:00", "critical"),
    ('level=warn ts=1772366340.5 msg="x"', "2026-03-01T11:59:00.5", "warning"),
    ('time="2026-03-01T11:59:00Z" level=error msg=x', "2026-03-01T11:59:00", "error"),
    ('{"__REALTIME_TIMESTAMP":"1772366340000000","PRIORITY":"3"}', "2026-03-01T11:59:00", "error"),
    ('{"level":50,"time":1772366340500,"msg":"boom"}', "2026-03-01T11:59:00.5", "error"),
    ('{"ts":"2026-03-01T13:59:00+02:00","level":"info","msg":"error"}', "2026-03-01T11:59:00", "info"),
    ("1234:M 01 Mar 2026 11:59:00.5 # Server started", "2026-03-01T11:59:00.5", None),
    ("2026-03-01 11:59:00.5 UTC [55] LOG:  checkpoint", "2026-03-01T11:59:00.5", "info"),
    ("ERROR:root:boom", None, "error"),
    ("Feb 30 11:59:00 h x: y", None, None),
    ("2026-13-41 99:99:99 ERROR bad", None, "error"),
    ("done, 0 errors", None, None),
    ("{not json", None, None),
    ("", None, None),
]


@pytest.mark.parametrize(("line", "time", "severity"), CASES, ids=[case[0][:40] for case in CASES])
def test_a_line_says_when_and_how_severe(line: str, time: str | None, severity: str | None) -> None:
    read = parse_line(line, now=NOW, utc_offset=0)
    expected = None if time is None else datetime.fromisoformat(time).replace(tzinfo=UTC).timestamp()
    assert read.time == expected
    assert read.severity == (None if severity is None else LineSeverity(severity))


def test_a_time_without_a_zone_is_local() -> None:
    assert parse_line("2026-03-01 12:00:00 x", now=NOW, utc_offset=3600).time == NOW - 3600


def test_the_message_of_a_journal_line_may_be_bytes() -> None:
    assert parse_line('{"MESSAGE": [104, 105], "PRIORITY": "6"}', now=NOW, utc_offset=0).message == "hi"


@given(st.text(max_size=300))
def test_no_line_whatsoever_is_too_strange(text: str) -> None:
    read = parse_line(text, now=NOW, utc_offset=0)
    assert read.time is None or isinstance(read.time, float)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists))
def test_a_json_line_may_hold_anything_in_its_known_fields(value: object) -> None:
    for key in ("level", "time", "PRIORITY", "MESSAGE", "__REALTIME_TIMESTAMP"):
        parse_line(json.dumps({key: value}), now=NOW, utc_offset=0)


@pytest.mark.skipif(not LOGHUB.is_dir(), reason="the public Loghub samples are not beside the project")
@pytest.mark.parametrize("system", ["Apache", "BGL", "Linux", "OpenSSH"])
def test_every_line_of_the_public_samples_says_when(system: str) -> None:
    lines = (LOGHUB / f"{system}_2k.log").read_text(encoding="utf-8", errors="replace").splitlines()
    assert [line for line in lines if parse_line(line, now=NOW, utc_offset=0).time is None] == []


@pytest.mark.parametrize(
    "line",
    [
        '{"time": "²"}',
        '{"level": "²", "msg": "x"}',
        json.dumps({"ts": 10**400}),
        json.dumps({"level": 10**30}),
        json.dumps({"level": "9" * 5000}),
        "9999-12-31T23:59:59-12:00 ERROR boom",
    ],
)
def test_a_strange_number_is_no_time(line: str) -> None:
    assert parse_line(line, now=NOW, utc_offset=0).time is None


@pytest.mark.parametrize("line", ["user 1234567890 logged in", "order 4155552671 failed"])
def test_a_number_of_another_kind_is_no_time(line: str) -> None:
    assert parse_time(line, now=NOW, utc_offset=0) is None


def test_a_recent_number_is_a_time() -> None:
    assert parse_time(f"{int(NOW)} started", now=NOW, utc_offset=0) == int(NOW)
