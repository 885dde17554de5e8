"""Text for people and models from numbers, names and what others wrote: bounded, nothing hidden in it."""

from __future__ import annotations

import re

# Everything outside of this set could make a name read as a sentence, or hide what it is.
_PLAIN = re.compile(r"[^A-Za-z0-9._/@:+,=~%-]")
_PLAIN_URL = re.compile(r"[^A-Za-z0-9._/@:+,=~%?&#\[\]-]")
COMM_LENGTH = 15  # of a process name in the kernel (TASK_COMM_LEN - 1)


def _escape(character: str) -> str:
    code = ord(character)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def visible(text: str, limit: int = 300) -> str:
    r"""Escape what a terminal would act on or not show, and cut at ``limit`` characters (``…`` says so)."""
    shown = text[:limit]
    if not shown.isprintable():
        shown = "".join(c if c.isprintable() else _escape(c) for c in shown)
    return shown[:limit] + "…" if len(text) > limit or len(shown) > limit else shown


def shown_path(path: str, limit: int = 120) -> str:
    r"""Write a path so that it cannot read as a sentence: bounded, what is not plain as ``\xNN``."""
    return _middle_out(_PLAIN.sub(lambda m: _escape(m.group()), path), limit)


def shown_url(url: str, limit: int = 200) -> str:
    r"""Write an address like ``shown_path`` writes a path."""
    return _middle_out(_PLAIN_URL.sub(lambda m: _escape(m.group()), url), limit)


def process_identity(pid: int, start_time: float) -> str:
    """Name one process for good: its number, and when it was started (seconds since 1970)."""
    return f"{pid}@{start_time:.2f}"


def shown_name(name: str) -> str:
    """Write a process name as the kernel bounds it, with ``?`` for what is not plain."""
    return _PLAIN.sub("?", name[:COMM_LENGTH]) or "?"


def _middle_out(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    tail = limit // 2
    return f"{text[: limit - tail - 1]}…{text[-tail:]}"


def size_text(count: float) -> str:
    """Write a number of bytes, e.g. ``1.5 GiB``."""
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if abs(count) < 1024 or unit == "TiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "bytes" or count >= 100 else f"{count:.1f} {unit}"


def span_text(seconds: float) -> str:
    """Write a span of time in its largest unit, e.g. ``10 minutes``."""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= 2 * length or (seconds >= length and seconds % length == 0):
            return counted(round(seconds / length), unit)
    return counted(round(seconds), "second")


def counted(number: int, noun: str) -> str:
    """Write a number with its noun, e.g. ``1 line``, ``2 lines``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
