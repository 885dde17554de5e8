"""How many rows of held-out data stand in the data to learn from, too."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

_DIGEST_BYTES = 16


def count_shared_rows(data: Path, held_out: Path) -> tuple[int, int]:
    """Count the rows of held-out data that can be learned by heart from other data.

    Rows are lines, whatever the files hold: the same line is the same row. The header of a CSV file and empty
    lines are none. Memory grows with the held-out rows alone.

    Args:
        data: A file or folder to learn from.
        held_out: A file or folder to be judged by.

    Returns:
        How many held-out rows stand in the data, too, and how many there are.

    Raises:
        OSError: If a file cannot be read.
    """
    wanted = Counter(_rows(held_out))
    shared = {row for row in _rows(data) if row in wanted}
    return sum(wanted[row] for row in shared), wanted.total()


def _rows(place: Path) -> Iterator[bytes]:
    for file in [place] if not place.is_dir() else sorted(place.rglob("[!.]*")):
        if not file.is_file():
            continue
        with file.open("rb") as stream:
            if file.suffix == ".csv":
                stream.readline()
            for line in stream:
                if row := line.strip():
                    yield hashlib.blake2b(row, digest_size=_DIGEST_BYTES).digest()
