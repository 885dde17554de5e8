"""Configuration is parsed to judge it, compared as it is, and shown without its secrets."""

from __future__ import annotations

from pathlib import PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.tools.configtext import (
    MAX_DIFF_LINES,
    REDACTED,
    as_bytes,
    as_text,
    parse_problem,
    redact_lines,
    redacted_diff,
)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", '{"a": [1, 2]}'),
        ("a.json", "\ufeff{}"),
        ("a.yaml", "a: !Custom {b: 1}\n---\nc: 2\n"),
        ("a.yml", ""),
        ("a.toml", "a = 1\n[b]\nc = 2\n"),
        ("a.ini", "[a]\nb = %(c\nflag\n"),
        ("a.conf", "{{{ not judged"),
        ("Dockerfile", ":::"),
    ],
)
def test_what_can_be_parsed_or_is_not_judged_has_no_problem(name: str, content: str) -> None:
    assert parse_problem(PurePath(name), content.encode()) == ""


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.json", b'{\n"a": 1,\n"b": \n}', "cannot be parsed as JSON: line 4"),
        ("a.json", b"", "cannot be parsed as JSON: line 1"),
        ("a.yaml", b"a: 1\nb: [1\nc: 2\n", "cannot be parsed as YAML: line 3"),
        ("a.yaml", b"a: \x07\n", "cannot be parsed as YAML: line 1"),
        ("a.toml", b"a = 1\nb = \n", "cannot be parsed as TOML: line 2"),
        ("a.toml", b'a = """\n', "cannot be parsed as TOML: line 1"),
        ("a.ini", b"a = 1\n", "cannot be parsed as INI: line 1"),
        ("a.ini", b"[a]\nb = 1\nb = 2\n", "cannot be parsed as INI: line 3"),
        ("a.ini", b"[a]\n[a]\n", "cannot be parsed as INI: line 2"),
        ("a.JSON", b"{\n\xff}", "cannot be parsed as JSON: line 2 is not UTF-8"),
        ("a.json", b"[" * 100_000, "cannot be parsed as JSON"),
    ],
)
def test_what_cannot_be_parsed_is_told_with_its_line_alone(name: str, content: bytes, problem: str) -> None:
    assert parse_problem(PurePath(name), content) == problem


@pytest.mark.parametrize(
    "line",
    [
        "password = s3cr3t-value",
        "DB_PASSWORD=s3cr3t-value",
        "  db.password: 's3cr3t-value'",
        '"apiKey": "s3cr3t-value",',
        '{"user": "x", "token": "s3cr3t-value", "port": 1}',
        "<password>s3cr3t-value</password>",
        "url = postgres://shop:s3cr3t-value@db1:5432/shop",
        "requirepass_secret s3cr3t-value",
        "header = Authorization: Bearer s3cr3t-value",
        "client_secret => s3cr3t-value",
        "DB_PASS=s3cr3t-value",
        "requirepass s3cr3t-value",
    ],
)
def test_secrets_are_not_shown(line: str) -> None:
    (shown,) = redact_lines([line])
    assert "s3cr3t-value" not in shown


@pytest.mark.parametrize(
    "line",
    [
        "port = 8080",
        "timeout: 30",
        "author = Ada",
        "[auth]",
        "path = /var/lib/shop/data",
        "# a comment",
        "proxy_pass http://a;",
    ],
)
def test_what_is_no_secret_is_shown(line: str) -> None:
    assert redact_lines([line]) == [line]


def test_secrets_of_several_lines_are_not_shown() -> None:
    lines = [
        "private_key: |",
        "  first",
        "  second",
        "port: 1",
        "-----BEGIN KEY-----",
        "abc",
        "-----END KEY-----",
    ]
    shown = redact_lines([*lines, "host: db1"])
    assert shown[1:3] == [f"  {REDACTED}"] * 2
    assert shown[3] == "port: 1"
    assert shown[4:7] == [REDACTED] * 3
    assert shown[7] == "host: db1"


@pytest.mark.parametrize(
    "lines",
    [
        ["tokens:", "- hunter2", "- hunter2"],
        ['"api_keys": [', '  "hunter2",', '  "hunter2"', "],"],
        ["credentials: {", "  value: hunter2 }"],
        ["<password>", "  hunter2", "</password>"],
        ['password: "first', '  hunter2"'],
        ["secret: abc \\", "  hunter2"],
    ],
)
def test_no_line_of_a_secrets_value_is_shown_and_what_follows_is(lines: list[str]) -> None:
    shown = redact_lines([*lines, "host: db1"])
    assert not any("hunter2" in line for line in shown)
    assert shown[-1] == "host: db1"
    assert len(shown) == len(lines) + 1


def test_a_block_whose_name_sounds_secret_is_shown() -> None:
    lines = ["location /token {", "  return 204;", "}", "host: db1"]
    assert redact_lines(lines)[1:] == lines[1:]


def test_a_changed_secret_is_a_changed_line_and_stays_unseen() -> None:
    diff = redacted_diff(b"password = one\n", b"password = two\n", path="/x")
    assert diff.lines == 1
    assert diff.text.count(f"password = {REDACTED}") == 2


def test_a_diff_is_bounded_and_says_so() -> None:
    before, after = (b"".join(b"%d%s\n" % (i, end) for i in range(9000)) for end in (b"", b"x"))
    diff = redacted_diff(before, after, path="/x")
    assert diff.cut
    assert diff.lines == 9000
    assert len(diff.text.splitlines()) == MAX_DIFF_LINES + 1
    long = redacted_diff(b"a" * 10_000, b"b" * 10_000, path="/x")
    assert len(long.text) < 2000


def test_control_characters_are_shown_as_text() -> None:
    diff = redacted_diff(b"a\n", b"\x1b[31mred\n", path="/x")
    assert "\x1b" not in diff.text
    assert "\\x1b[31mred" in diff.text


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_a_diff_is_empty_only_between_equals(before: bytes, after: bytes) -> None:
    assert (redacted_diff(before, after, path="/x").text == "") == (before == after)


@given(st.binary(max_size=200))
def test_bytes_survive_being_written_as_text(content: bytes) -> None:
    assert as_bytes(as_text(content)) == content
