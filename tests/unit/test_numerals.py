"""A number keeps the bounds that its digits keep."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.models.detokenize import AnswerReader
from watchkeeper.models.grammar import AnswerKind, CallTags
from watchkeeper.models.numerals import read_float
from watchkeeper.models.replies import parse_json

BOUNDS = st.integers(-(10**6), 10**6) | st.decimals(-1000, 1000, places=2, allow_nan=False)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("977.0", 977.0),
        ("0.1", 0.1),
        ("1e3", 1000.0),
        ("-2.50", -2.5),
        ("0.30000000000000004", 0.30000000000000004),
        ("977.00000000000000000001", 977.0000000000001),
        ("976.99999999999999999999", 976.9999999999999),
        ("-0.00000000000000000000", 0.0),
        ("1e-400", 5e-324),
        ("1e-99999999999999999999", 5e-324),
        ("-1.0E-99999999999999999999", -5e-324),
        ("0.0e-99999999999999999999", 0.0),
        ("0e99999999999999999999", 0.0),
    ],
)
def test_numbers_are_read_as_they_are_written(text: str, value: float) -> None:
    assert read_float(text) == value


@given(BOUNDS, st.text("0123456789", min_size=1, max_size=40))
def test_what_is_above_a_bound_or_below_it_stays_there(bound: int | Decimal, digits: str) -> None:
    """For bounds with few digits, as those of schemas are."""
    step = Decimal("0." + digits)
    for written in (Decimal(bound) + step, Decimal(bound) - step):
        exact = Decimal(bound).normalize()
        if written > exact:
            assert read_float(f"{written:f}") > float(exact)
        elif written < exact:
            assert read_float(f"{written:f}") < float(exact)


@given(st.from_regex(r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,25})?", fullmatch=True))
def test_every_number_of_json_is_read(text: str) -> None:
    value = read_float(text)
    assert value == pytest.approx(float(text), rel=1e-12, abs=1e-300)
    mantissa = text.lower().partition("e")[0]
    assert (value == 0) is (Decimal(mantissa) == 0)
    assert (value < 0) is (Decimal(mantissa) < 0)


def test_calls_and_replies_are_read_so() -> None:
    number = "977.00000000000000000001"
    assert parse_json(f"[{number}]") == [977.0000000000001]
    reader = AnswerReader(AnswerKind.CALL, CallTags(), lambda token: bytes([token]), ())
    for byte in json.dumps({"name": "a", "arguments": {"x": 0}}).replace("0", number).encode():
        reader.push(byte)
    assert reader.calls == [{"name": "a", "arguments": {"x": 977.0000000000001}}]
