"""Guesses are what followed the same words before, the longest likeness first, and never a control token."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.models.lookup import Lookup


class Words:
    """Tokens of words, each with a number."""

    def __init__(self, *words: str) -> None:
        self.known = list(dict.fromkeys(words))

    def ids(self, text: str) -> list[int]:
        """Tokens are parted by bars: a space belongs to the token it begins."""
        words = text.split("|")
        self.known += [word for word in dict.fromkeys(words) if word not in self.known]
        return [self.known.index(word) for word in words]

    def of(self, token: int) -> bytes:
        return self.known[token].encode()

    def text(self, tokens: list[int]) -> str:
        return "|".join(self.known[token] for token in tokens)


def guess(text: str, most: int = 4, banned: str = "") -> str:
    words = Words()
    tokens = words.ids(text)
    lookup = Lookup(words.of, frozenset(words.ids(banned) if banned else ()))
    return words.text(lookup.guess(tokens, most))


def test_a_name_is_continued_as_it_was_written_also_behind_a_quotation_mark() -> None:
    assert guess('restart| ware|house|-|web| now|"|ware') == "house|-"
    assert guess('restart| ware|house|-|web| now|"|ware|house') == "-|web| now"


def test_the_place_where_more_words_were_alike_is_followed_and_for_longer() -> None:
    assert guess("disk|full|here|,|cache|full|there|,|disk|full") == "here|,|cache"
    assert guess("a1|full|one|a2|full|two|a3|full") == "two|a3"
    assert guess("a|b|c|d|e|f|a|b|c") == "d|e|f|a"


def test_short_words_alone_say_nothing() -> None:
    assert guess("is|ok|and|is") == ""
    assert guess("is|ok|and|is|ok") == "and|is|ok"
    assert guess("new") == ""
    assert guess("new|words|only") == ""


def test_control_tokens_end_a_guess_and_so_does_its_bound() -> None:
    assert guess("one|two|three|<end>|four|one|two", banned="<end>") == "three"
    assert guess("one|two|three|four|five|six|one|two", most=1) == "three"
    assert guess("one|two|three|one|two", most=0) == ""


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(1, 6), st.integers(1, 6))
def test_step_by_step_it_guesses_what_it_does_at_once(tokens: list[int], most: int, step: int) -> None:
    def word(token: int) -> bytes:
        return b"word%d" % token

    growing = Lookup(word)
    for stop in range(step, len(tokens) + step, step):
        seen = tokens[:stop]
        found = growing.guess(seen, most)
        assert found == Lookup(word).guess(seen, most)
        assert len(found) <= most
        if found:
            follows = [seen[at : at + len(found)] for at in range(1, len(seen)) if seen[at - 1] == seen[-1]]
            assert found in follows
