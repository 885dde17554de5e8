"""Numbers as JSON writes them, read so that what was true of the digits is true of the value."""

from __future__ import annotations

import math
from decimal import Decimal, InvalidOperation


def read_float(text: str) -> float:
    """Read a number; one with more digits than a float holds keeps to its side of the nearest short one.

    ``977.00000000000000000001`` is more than 977, and the nearest float is not: read as that, it would break
    ``exclusiveMinimum: 977``, which its digits keep. It becomes the next float above instead.
    """
    value = float(text)
    if not math.isfinite(value) or len(text) <= len(repr(value)):
        return value
    try:
        written = Decimal(text)
    except InvalidOperation:
        # Its exponent is beyond all: the number is zero, or as near to it as none can be written.
        written = Decimal(_mantissa(text))
    read = Decimal(repr(value))
    if written == read:
        return value
    return math.nextafter(value, math.inf if written > read else -math.inf)


def _mantissa(text: str) -> str:
    return text.lower().partition("e")[0]
