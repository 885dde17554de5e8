"""Text made from what others wrote: bounded, and nothing hidden in it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.tools.text import shown_name, shown_path, shown_url, size_text, span_text, visible


@given(st.text(max_size=500))
def test_whatever_is_shown_is_printable_and_bounded(text: str) -> None:
    for shown, limit in (
        (visible(text, 100), 101),
        (shown_path(text, 100), 100),
        (shown_url(text, 100), 100),
        (shown_name(text), 15),
    ):
        assert len(shown) <= limit
        assert all(c.isprintable() or c == "…" for c in shown)


@given(st.text(max_size=200))
def test_a_path_never_holds_a_blank_so_it_cannot_read_as_a_sentence(text: str) -> None:
    assert not any(c.isspace() for c in shown_path(text))
    assert not any(c.isspace() for c in shown_name(text))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, ünïcode", "plain text, ünïcode"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\u202eb", "a\\u202eb"),
        ("\U000e0041", "\\U000e0041"),
        ("line\nbreak\u2028", "line\\x0abreak\\u2028"),
        ("\udcff", "\\udcff"),
    ],
)
def test_what_a_terminal_would_act_on_or_not_show_is_escaped(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_an_ordinary_path_and_address_stay_as_they_are() -> None:
    assert shown_path("/var/log/shop-web/app_1.log") == "/var/log/shop-web/app_1.log"
    assert shown_url("http://[::1]:8080/a?b=c&d") == "http://[::1]:8080/a?b=c&d"


def test_a_long_path_keeps_its_start_and_its_end() -> None:
    shown = shown_path("/data/" + "x" * 300 + "/trace.log")
    assert shown.startswith("/data/x")
    assert shown.endswith("x/trace.log")


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1536, "1.5 KiB"),
        (120 * 1024**2, "120 MiB"),
        (3 * 1024**5, "3072 TiB"),
    ],
)
def test_sizes_are_in_their_unit(count: int, text: str) -> None:
    assert size_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 seconds"),
        (1, "1 second"),
        (90, "90 seconds"),
        (600, "10 minutes"),
        (3600, "1 hour"),
        (172800, "2 days"),
    ],
)
def test_spans_are_in_the_largest_unit_that_says_enough(seconds: float, text: str) -> None:
    assert span_text(seconds) == text
