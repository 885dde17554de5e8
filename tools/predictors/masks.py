"""Masks: what changes from one log line to the next of its kind, replaced by the kind of thing that it is."""

from __future__ import annotations

import re
from functools import lru_cache

WILDCARD = "<*>"
"""Stands for a word of any kind."""

_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_HMS = r"\d\d?:\d\d:\d\d(?:[.,]\d+)?"
_DATE = r"\d{4}[-/.]\d\d?[-/.]\d\d?"
_ZONE = r"(?:Z|[+-]\d\d:?\d\d)"
_SPACED_TIMES = re.compile(
    rf"\b(?:[A-Z][a-z]{{2}},? +)?{_MONTH} +\d{{1,2}} +{_HMS}(?: +\d{{4}})?\b"
    rf"|\b\d{{1,2}}[/ ]{_MONTH}[/ ]\d{{4}}[: ]{_HMS}(?: ?[+-]\d{{4}})?"
    rf"|\b{_DATE} {_HMS}{_ZONE}?"
)
# What stands further up wins where two begin at the same character. None knows a name of any system: each is
# the written form of a kind of value.
_KINDS: tuple[tuple[str, str], ...] = (
    ("url", r"\b[a-zA-Z][a-zA-Z0-9+.-]*://[^\s'\"<>()\[\]]+"),
    ("mail", r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+"),
    ("id", r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b"),
    ("time", rf"\b{_DATE}(?:[T-]\d\d[:.]\d\d(?:[:.]\d\d(?:[.,]\d+)?)?)?{_ZONE}?\b|\b{_HMS}\b"),
    ("mac", r"\b(?:[0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}\b"),
    ("ip", r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5}|/\d{1,2})?(?!\.?\w)"),
    ("ip", r"(?<![\w:])(?:[0-9a-fA-F]{0,4}:){3,7}[0-9a-fA-F]{0,4}(?![\w:])"),
    ("path", r"(?<![\w.<>/])(?:~|\.{1,2})?(?:/[\w.@%+,~=#{}$-]+)+/?|\b[A-Za-z]:\\[^\s:*?\"<>|]+"),
    (
        "hex",
        r"\b0[xX][0-9a-fA-F]+\b|(?<![\w.-])(?=[a-fA-F]*\d)(?=\d*[a-fA-F])[0-9a-fA-F]{6,}(?![\w-]|\.\w)",
    ),
    ("n", r"(?<!\w)[+-]?\d+(?:[.,]\d+)*(?:%|[kKMGT]?i?[bB]|ms|us|ns|s)?(?!\w)"),
    # A name with a number as long as nobody counts by hand is the name of one single thing.
    ("id", r"(?<![\w-])(?=[\w-]*\d{5})[A-Za-z_][\w-]*(?!\w)"),
)
_ANY = re.compile("|".join(f"(?P<k{index}>{pattern})" for index, (_, pattern) in enumerate(_KINDS)))
_STANDS_FOR = tuple(f"<{kind}>" for kind, _ in _KINDS)
_WORD_WITH_VALUE = re.compile(r"\S*[\d/@\\]\S*")
_MASKED = re.compile(r"<(?:\*|url|mail|id|time|mac|ip|path|hex|n)>")
_REMEMBERED_LENGTH = 80
_HEADER = re.compile(
    rf"(?:<\d{{1,3}}>(?:\d )?)?[\[(]?(?:{_SPACED_TIMES.pattern}|{_DATE}[T-]\S+?)[\])]?[,:]?\s+"
)
_SENDER = re.compile(r"\S+ [\w./()@-]+\[\d+\]: +")
_SYSLOG = re.compile(rf"(?:<\d{{1,3}}>)?{_MONTH} +\d{{1,2}} +{_HMS} +\S+ [\w./()@-]+(?:\[\d+\])?: +")


def mask(text: str) -> str:
    """Replace times, addresses, paths, numbers and names of single things by what they are, e.g. ``<ip>``."""
    if ":" in text:
        text = _SPACED_TIMES.sub("<time>", text)
    return _WORD_WITH_VALUE.sub(_masked, text)


def without_header(line: str) -> str:
    """Return a log line without the time that it begins with, and without syslog's host and program."""
    found = _SYSLOG.match(line)
    if found is None:
        found = _HEADER.match(line)
        if found is not None:
            found = _SENDER.match(line, found.end()) or found
    return line if found is None else line[found.end() :]


def is_masked(word: str) -> bool:
    """Tell whether something in a word was replaced."""
    return "<" in word and _MASKED.search(word) is not None


def bare(word: str) -> str:
    """Return a word with the same stand-in for whatever was replaced."""
    return _MASKED.sub(WILDCARD, word) if "<" in word else word


def _masked(match: re.Match[str]) -> str:
    word = match[0]
    return _mask_word(word) if len(word) <= _REMEMBERED_LENGTH else _replace(word)


@lru_cache(maxsize=20_000)
def _mask_word(word: str) -> str:
    return _replace(word)


def _replace(word: str) -> str:
    return _ANY.sub(lambda match: _STANDS_FOR[int((match.lastgroup or "k0")[1:])], word)
