"""Reading log files from their end: bounded, with rotated and compressed siblings."""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from watchkeeper.tools.errors import CollectError
from watchkeeper.tools.local import open_regular, reason

BLOCK = 256 * 1024
LINE_LIMIT = 2000  # characters kept of one line
COUNT_LIMIT = 256 * 1024 * 1024  # bytes before the part read in which lines are still counted
GZIP_LIMIT = 64 * 1024 * 1024  # bytes of a compressed file that are unpacked: a small one may hold terabytes
SIBLINGS = 8  # rotated files that are looked at

_ROTATED = re.compile(r"^[.-](?:\d{1,3}|\d{4}-?\d\d-?\d\d(?:[-_T.]?\d{2,6}){0,3})(?:\.gz)?$")


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of a log file.

    Attributes:
        lines: Its last lines, the oldest first, each cut at ``LINE_LIMIT`` characters.
        first_line: Number of the first of them in the file, counted from 1; None if the file is too
            large to count.
        offset: Byte at which the first of them starts (in the unpacked text, if compressed).
        reached: Whether lines older than wanted were reached.
        complete: Whether everything that was asked for and is in the file is there.
    """

    lines: tuple[str, ...]
    first_line: int | None
    offset: int
    reached: bool
    complete: bool


def siblings(path: Path, *, since: float) -> list[Path]:
    """Return the rotated files of a log that were written to after a time, the newest first."""
    found: list[tuple[float, Path]] = []
    try:
        with os.scandir(path.parent) as entries:
            for entry in entries:
                suffix = entry.name[len(path.name) :]
                if entry.name.startswith(path.name) and _ROTATED.match(suffix):
                    status = entry.stat(follow_symlinks=False)
                    if entry.is_file(follow_symlinks=False) and status.st_mtime >= since:
                        found.append((status.st_mtime, path.parent / entry.name))
    except OSError:
        return []
    return [file for _, file in sorted(found, reverse=True)[:SIBLINGS]]


def read_tail(path: Path, *, budget: int, is_older: Callable[[str], bool | None]) -> Tail:
    """Read a log file from its end until a line is older than wanted.

    Args:
        path: The file; ``.gz`` is unpacked.
        budget: Bytes that may be kept.
        is_older: Whether a line is older than wanted; None for a line that does not say.

    Raises:
        CollectError: If the file cannot be read.
    """
    try:
        descriptor = open_regular(path)
        with os.fdopen(descriptor, "rb") as file:
            if path.suffix == ".gz":
                return _read_gzip(file.fileno(), budget)
            return _read_plain(file.fileno(), budget, is_older)
    except (OSError, EOFError, zlib.error) as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        raise CollectError(f"log {str(path)!r} cannot be read: {why}") from error


def _read_plain(descriptor: int, budget: int, is_older: Callable[[str], bool | None]) -> Tail:
    start = end = os.fstat(descriptor).st_size
    blocks: list[bytes] = []
    reached = False
    while start > 0 and not reached and end - start < budget:
        size = min(BLOCK, start, budget - (end - start))
        start -= size
        block = os.pread(descriptor, size, start)
        blocks.append(block)
        # The first piece of a block may be the end of a longer line: only the next one surely is whole.
        whole = block.split(b"\n", 60)[0 if start == 0 else 1 : 60]
        # One line does not end the search: whoever can write to a log can write any time into it.
        dated = [older for older in (is_older(_decode(line)) for line in whole) if older is not None]
        reached = bool(dated) and all(dated)
    content = b"".join(reversed(blocks))
    if start > 0:
        skipped = content.find(b"\n") + 1
        content, start = content[skipped:], start + skipped
    first = _count_lines(descriptor, start) + 1 if start <= COUNT_LIMIT else None
    return Tail(_lines(content), first, start, reached, complete=reached or start == 0)


def _read_gzip(descriptor: int, budget: int) -> Tail:
    kept: list[bytes] = []
    held = dropped = dropped_lines = 0
    total = 0
    complete = False
    with os.fdopen(os.dup(descriptor), "rb") as raw, gzip.GzipFile(fileobj=raw) as file:
        while total < GZIP_LIMIT:
            block = file.read(BLOCK)
            if not block:
                complete = True
                break
            total += len(block)
            kept.append(block)
            held += len(block)
            while held - len(kept[0]) >= budget:
                old = kept.pop(0)
                held -= len(old)
                dropped += len(old)
                dropped_lines += old.count(b"\n")
    content = b"".join(kept)
    if dropped:
        skipped = content.find(b"\n") + 1
        content, dropped, dropped_lines = content[skipped:], dropped + skipped, dropped_lines + 1
    return Tail(_lines(content), dropped_lines + 1, dropped, reached=False, complete=complete and not dropped)


def _count_lines(descriptor: int, end: int) -> int:
    count = position = 0
    while position < end:
        block = os.pread(descriptor, min(4 * BLOCK, end - position), position)
        if not block:
            break
        count += block.count(b"\n")
        position += len(block)
    return count


def _lines(content: bytes) -> tuple[str, ...]:
    pieces = content.split(b"\n")
    if pieces and not pieces[-1]:
        pieces.pop()
    return tuple(_decode(piece) for piece in pieces)


def _decode(piece: bytes) -> str:
    # What was freed inside of a file reads as zero bytes, in front of the first line that is left.
    piece = piece.lstrip(b"\0")
    return piece[: 4 * LINE_LIMIT].decode("utf-8", "replace")[:LINE_LIMIT].rstrip("\r")
