"""Configuration files as text: whether they parse, and how two versions differ, without their secrets."""

from __future__ import annotations

import configparser
import json
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import PurePath
from typing import Protocol

import yaml

from watchkeeper.tools.text import visible

REDACTED = "[redacted]"
MAX_DIFF_LINES = 200
MAX_LINE = 300
MAX_COMPARED_LINES = 20_000

_FORMATS = {
    ".json": "JSON",
    ".yaml": "YAML",
    ".yml": "YAML",
    ".toml": "TOML",
    ".ini": "INI",
}

_SENSITIVE = (
    r"[\w.-]*(?:passw(?:or)?d|passphrase|passwd|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key"
    r"|signing[_-]?key|encryption[_-]?key|credential|auth(?!or)|cookie|dsn|connection[_-]?string"
    r"|salt|pepper|requirepass|masterauth"
    r"|(?<![a-z])(?<!proxy_)(?<!fastcgi_)(?<!uwsgi_)(?<!scgi_)(?<!grpc_)(?<!memcached_)pass(?![a-z]))[\w.-]*"
)
_ASSIGNMENT = re.compile(
    rf"(?P<key>[\"']?\b{_SENSITIVE}[\"']?)(?P<middle>\s*(?:[:=]+>?|\s)\s*)(?P<value>.*)$", re.IGNORECASE
)
_IN_VALUE = re.compile(
    rf"(?P<key>[\"']{_SENSITIVE}[\"']\s*:\s*)(?P<value>\"(?:[^\"\\]|\\.)*\"|'[^']*'|[^,}}\]\s]+)",
    re.IGNORECASE,
)
_OPEN_ELEMENT = re.compile(rf"<{_SENSITIVE}[^>/]*>(?!.*</)", re.IGNORECASE)
_ELEMENT = re.compile(rf"(?P<key><{_SENSITIVE}[^>]*>)(?P<value>[^<]*)", re.IGNORECASE)
_USERINFO = re.compile(r"(?P<key>[a-z][a-z0-9+.-]*://[^\s/:@]*:)(?P<value>[^\s/@]+)(?=@)", re.IGNORECASE)
_TOKEN = re.compile(
    r"\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_\w{20,}|\bxox[abprs]-[\w-]{10,}|\beyJ[\w-]+\.[\w-]+\.[\w-]*"
    r"|\bsk-[\w-]{16,}|(?<=[Bb]earer )\S+|(?<=[Bb]asic )[A-Za-z0-9+/=]{8,}"
    r"|(?<![\w/+.-])(?=[\w+/=-]*\d)(?=[\w+/=-]*[A-Za-z])[A-Za-z0-9+_=-]{32,}(?![\w/.])"
)
_BLOCK_SCALAR = re.compile(r"^[|>][+-]?\d?[+-]?\s*(?:#.*)?$")


@dataclass(frozen=True, slots=True)
class TextDiff:
    """How two versions of a file differ.

    Attributes:
        text: A unified diff for people, secrets redacted; empty if they are the same.
        lines: Number of lines that differ.
        cut: Whether ``text`` leaves something out because it would be too long.
    """

    text: str
    lines: int
    cut: bool = False


def parse_problem(path: PurePath, content: bytes) -> str:
    """Say why a file cannot be parsed, e.g. ``cannot be parsed as JSON: line 7``; empty if it can.

    The format is judged by the suffix; a file of another suffix is not judged. The text holds nothing of
    the content but a line's number.
    """
    name = _FORMATS.get(path.suffix.lower())
    if name is None:
        return ""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return f"cannot be parsed as {name}: line {line} is not UTF-8"
    try:
        _parse(name, text)
    except json.JSONDecodeError as error:
        return f"cannot be parsed as JSON: line {error.lineno}"
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        return f"cannot be parsed as YAML: line {mark.line + 1 if mark else 1}"
    except yaml.reader.ReaderError as error:
        return f"cannot be parsed as YAML: line {text.count(chr(10), 0, error.position) + 1}"
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+)", str(error))
        line = int(found.group(1)) if found else max(1, len(text.splitlines()))
        return f"cannot be parsed as TOML: line {line}"
    except configparser.ParsingError as error:
        errors = getattr(error, "errors", None)
        return f"cannot be parsed as INI: line {errors[0][0] if errors else getattr(error, 'lineno', 1)}"
    except (configparser.DuplicateOptionError, configparser.DuplicateSectionError) as error:
        return f"cannot be parsed as INI: line {error.lineno}"
    except (RecursionError, ValueError, yaml.YAMLError):
        return f"cannot be parsed as {name}"
    return ""


def format_of(path: PurePath) -> str | None:
    """Return the format that a file's suffix stands for; None if it is not one that is judged."""
    return _FORMATS.get(path.suffix.lower())


def _parse(name: str, text: str) -> None:
    if name == "JSON":
        json.loads(text)
    elif name == "TOML":
        tomllib.loads(text)
    elif name == "INI":
        configparser.RawConfigParser(allow_no_value=True).read_string(text)
    else:
        # Events, not objects: tags of a program's own are no error, and nothing is built from them.
        for _ in yaml.parse(text, Loader=yaml.SafeLoader):
            pass


def as_text(content: bytes) -> str:
    """Write bytes as text that JSON can carry; ``as_bytes`` gives the very same bytes back."""
    return content.decode(errors="surrogateescape")


def as_bytes(text: str) -> bytes:
    """Return the bytes that ``as_text`` wrote."""
    return text.encode(errors="surrogateescape")


def redact_lines(lines: list[str]) -> list[str]:
    """Replace what looks like a secret, line by line; the number of lines stays the same.

    Values of keys that sound secret, passwords in addresses, key blocks, and texts that look like tokens
    are replaced. Where in doubt it is replaced: the diff shows that a line changed even so.
    """
    result = []
    in_key_block = False
    rest: _Rest | None = None
    for line in lines:
        if rest is not None and rest.holds(line):
            bare = not line.strip(" \t[]{}(),;")
            result.append(line if bare else f"{line[: _indent(line)]}{REDACTED}")
            continue
        rest = None
        if in_key_block or "-----BEGIN" in line:
            in_key_block = "-----END" not in line
            result.append(REDACTED)
            continue
        result.append(_redact_line(line))
        rest = _rest_of(line)
    return result


class _Rest(Protocol):
    """The further lines of a secret's value."""

    def holds(self, line: str) -> bool:
        """Whether the next line is one of them."""


@dataclass
class _Indented:
    """Lines that are further in than the key, and with ``items`` a list at its own depth."""

    indent: int
    items: bool

    def holds(self, line: str) -> bool:
        deeper = not line.strip() or _indent(line) > self.indent
        return deeper or (
            self.items and _indent(line) == self.indent and line.lstrip().startswith(("- ", "-\t"))
        )


@dataclass
class _Until:
    """Lines up to the one that holds a mark."""

    mark: str
    ended: bool = False

    def holds(self, line: str) -> bool:
        before, self.ended = self.ended, self.ended or self.mark in line
        return not before


@dataclass
class _Bracketed:
    """Lines until all brackets are closed."""

    depth: int

    def holds(self, line: str) -> bool:
        before, self.depth = self.depth, self.depth + _depth(line)
        return before > 0


@dataclass
class _Joined:
    """Lines for as long as the one before ends in a backslash."""

    goes_on: bool = True

    def holds(self, line: str) -> bool:
        before, self.goes_on = self.goes_on, line.rstrip().endswith("\\")
        return before


def _rest_of(line: str) -> _Rest | None:
    """What further lines the value of a secret has that begins in a line; None if none."""
    if _OPEN_ELEMENT.search(line):
        return _Until("</")
    found = _ASSIGNMENT.search(line)
    if not found:
        return None
    value = found["value"].strip()
    if not value or _BLOCK_SCALAR.match(value):
        return _Indented(_indent(line), items=not value)
    if value[0] in "[{" and found["middle"].strip() and _depth(value) > 0:
        return _Bracketed(_depth(value))
    if value[0] in "\"'" and value.count(value[0]) == 1:
        return _Until(value[0])
    return _Joined() if value.endswith("\\") else None


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _depth(text: str) -> int:
    return sum(text.count(mark) for mark in "[{") - sum(text.count(mark) for mark in "]}")


def _redact_line(line: str) -> str:
    line = _USERINFO.sub(rf"\g<key>{REDACTED}", line)
    line = _ELEMENT.sub(rf"\g<key>{REDACTED}", line)
    line, inner = _IN_VALUE.subn(rf"\g<key>{REDACTED}", line)
    if not inner:
        found = _ASSIGNMENT.search(line)
        value = found["value"].strip() if found else ""
        if found and value and not _BLOCK_SCALAR.match(value) and value not in ("{", "[", "{}", "[]"):
            line = f"{line[: found.start('value')]}{REDACTED}"
    return _TOKEN.sub(REDACTED, line)


def redacted_diff(before: bytes, after: bytes, *, path: str, context: int = 3) -> TextDiff:
    """Compare two versions of a file for a person.

    Lines are compared as they are and shown redacted: a changed password shows as a changed line.
    """
    if before == after:
        return TextDiff("", 0)
    try:
        old, new = before.decode().splitlines(keepends=True), after.decode().splitlines(keepends=True)
    except UnicodeDecodeError:
        return TextDiff(f"{path}: not text; {len(before)} bytes now, {len(after)} bytes after\n", 1)
    old_shown, new_shown = redact_lines(_bare(old)), redact_lines(_bare(new))
    changed = 0
    shown = [f"--- {path} (now)", f"+++ {path} (last good version)"]
    for group in _hunks(old, new, context):
        first, last = group[0], group[-1]
        shown.append(f"@@ -{_span(first[1], last[2])} +{_span(first[3], last[4])} @@")
        for tag, i1, i2, j1, j2 in group:
            if tag == "equal":
                shown += [f" {visible(line, MAX_LINE)}" for line in old_shown[i1:i2]]
                continue
            changed += max(i2 - i1, j2 - j1)
            shown += [f"-{visible(line, MAX_LINE)}" for line in old_shown[i1:i2]]
            shown += [f"+{visible(line, MAX_LINE)}" for line in new_shown[j1:j2]]
    cut = len(shown) > MAX_DIFF_LINES
    if cut:
        left = len(shown) - MAX_DIFF_LINES
        shown = [*shown[:MAX_DIFF_LINES], f"... {left} more lines are not shown"]
    return TextDiff("\n".join(shown) + "\n", changed, cut)


def _hunks(old: list[str], new: list[str], context: int) -> Iterable[list[tuple[str, int, int, int, int]]]:
    total = len(old) + len(new)
    if total > MAX_COMPARED_LINES:
        start = 0
        while start < min(len(old), len(new)) and old[start] == new[start]:
            start += 1
        end = 0
        while end < min(len(old), len(new)) - start and old[-1 - end] == new[-1 - end]:
            end += 1
        return [[("replace", start, len(old) - end, start, len(new) - end)]]
    matcher = SequenceMatcher(None, old, new, autojunk=total > MAX_COMPARED_LINES // 10)
    return matcher.get_grouped_opcodes(context)


def _span(start: int, end: int) -> str:
    return f"{start + 1 if end > start else start},{end - start}"


def _bare(lines: list[str]) -> list[str]:
    # The longest part of a line that is ever shown, and more, so that a secret is not cut in two.
    return [line.rstrip("\r\n")[: 4 * MAX_LINE] for line in lines]
