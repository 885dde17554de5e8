"""Numbers as JSON writes them, read so that what was true of the digits is true of the value."""

from __future__ import annotations

import math
from decimal import Decimal


def read_float(text: str) -> float:
    """Read a number; one with more digits than a float holds keeps to its side of the nearest short one.

    ``977.00000000000000000001`` is more than 977, and the nearest float is not: read as that, it would break
    ``exclusiveMinimum: 977``, which its digits keep. It becomes the next float above instead.
    """
    value = float(text)
    if not math.isfinite(value) or len(text) <= len(repr(value)):
        return value
    written, read = Decimal(text), Decimal(repr(value))
    if written == read:
        return value
    return math.nextafter(value, math.inf if written > read else -math.inf)
