"""The end of an answer that ran out of its budget: a shortest text that makes it whole.

A matcher of llguidance knows which bytes may follow, not how many are still needed. So the end is searched
for, byte by byte over copies of the matcher (a copy costs a microsecond): first for the shortest one,
cheapest path first (Dijkstra 1959, https://doi.org/10.1007/BF01386390); where an answer leaves more ways
open than that can look at, by trying out each way to its end and taking the best (a rollout policy,
Tesauro & Galperin 1996). Bytes that lead to the same place are looked at once.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from llguidance import LLMatcher, LLTokenizer

from watchkeeper.models.grammar import Grammar

_EXACT_STEPS = 250
_PRUNED_STEPS = 300
_ROLLOUT_STEPS = 1_500
_LAST_STEPS = 400
# A completion of so many tokens has at most so many bytes; longer tokens are rare in JSON.
_BYTES_A_TOKEN = 8
_LONGEST_WITNESS = 200
# More bytes than this are possible inside of a text, fewer at every other place of a JSON value.
_TEXT = 24
_NUMBER = frozenset(b"0123456789.eE+-,")
_SAMPLES = b"a@0 -./A_:"
# Ends before beginnings, short values before long ones.
_ORDER = b'"}],0123456789nabcdefghijklmopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-./ :\n[{'
_SPECIAL = re.compile(rb"\xff\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class _Place:
    """A place that a search reached: what is written since its start, and what may follow.

    Attributes:
        matcher: Its state; never changed.
        before: The place before; ``None`` at the start.
        tokens: Tokens from there to here: one of choice, and those the grammar forces after it.
        size: Bytes since the start.
        mask: Bits of the tokens that may follow: where two agree, what follows is taken for the same.
        whole: Whether the answer may end here.
    """

    matcher: LLMatcher
    before: _Place | None
    tokens: tuple[int, ...]
    size: int
    mask: bytes
    whole: bool


_Ways = Callable[[_Place], Sequence[int]]


class _Alphabet:
    """The bytes that have a token, in the order in which they are tried."""

    def __init__(self, order: bytes, tokens: list[int]) -> None:
        self._order = np.frombuffer(order, np.uint8)
        self._byte = np.array(tokens) // 8
        self._bit = (1 << np.array(tokens) % 8).astype(np.uint8)

    def allowed(self, mask: bytes) -> bytes:
        """Return those that a mask of tokens allows."""
        allowed: bytes = self._order[np.frombuffer(mask, np.uint8)[self._byte] & self._bit != 0].tobytes()
        return allowed


class Closer:
    """Finds ends of constrained answers.

    Args:
        vocabulary: llguidance's view of the tokenizer; bytes that have no token of their own are not used.
    """

    def __init__(self, vocabulary: LLTokenizer) -> None:
        self._vocabulary = vocabulary
        self._tokens: dict[int, int] = {}
        for byte in range(255):  # 0xff is llguidance's mark of a special token, and never part of UTF-8
            found = vocabulary.tokenize_bytes(bytes([byte]))
            if len(found) == 1 and vocabulary.decode_bytes(found) == bytes([byte]):
                self._tokens[byte] = found[0]
        known = [byte for byte in _ORDER if byte in self._tokens]
        order = bytes([*known, *sorted(self._tokens.keys() - set(known))])
        self._alphabet = _Alphabet(order, [self._tokens[byte] for byte in order])

    def close(self, matcher: LLMatcher, *, limit: int, grammar: Grammar | None = None) -> list[int] | None:
        """Return a shortest end of the answer that a matcher is in the middle of.

        The matcher stays as it is. The end is a shortest one in bytes where the answer leaves few ways open,
        and a short one where it leaves thousands; the time is bounded, some tens of milliseconds at most.

        Args:
            matcher: State of the grammar after the tokens decided so far.
            limit: How many tokens the end may have.
            grammar: The grammar that the matcher is of. Where its schemas hold patterns like ``"[.]log$"``,
                which a text may come to at any place, this is what tells the search of them.

        Returns:
            Its tokens, none where the answer may end as it is; ``None`` where no end was found.
        """
        search = _Search(self._tokens, self._alphabet, limit * _BYTES_A_TOKEN)
        if grammar is not None:
            search.texts = [text for text in map(self._witness, grammar.patterns) if text]
        end = search.run(matcher)
        if end is None:
            return None
        tokens = self._canonical(matcher, list(_path(end)))
        return tokens if len(tokens) <= limit else None

    def _witness(self, pattern: str) -> list[int]:
        """Return the tokens of a shortest text that is all a pattern asks for; none where it has none."""
        grammar = LLMatcher.grammar_from_json_schema({"type": "string", "pattern": f"^(?:{pattern})$"})
        matcher = LLMatcher(self._vocabulary, grammar, log_level=0)
        if matcher.is_error():
            return []
        search = _Search(self._tokens, self._alphabet, _LONGEST_WITNESS)
        search.samples = bytes(dict.fromkeys([*pattern.encode(), *_SAMPLES]))
        end = search.run(matcher)
        # What is left out is the quotation marks around it.
        return list(_path(end))[1:-1] if end is not None else []

    def _canonical(self, matcher: LLMatcher, tokens: list[int]) -> list[int]:
        """Write bytes with the tokens that the tokenizer would choose, where the grammar takes them."""
        written: list[int] = []
        run = bytearray()
        for token in tokens:
            if self._vocabulary.is_special_token(token):
                written += self._vocabulary.tokenize_bytes(bytes(run))
                written.append(token)
                run.clear()
            else:
                run += self._vocabulary.decode_bytes([token])
        written += self._vocabulary.tokenize_bytes(bytes(run))
        same = self._vocabulary.decode_bytes(written) == self._vocabulary.decode_bytes(tokens)
        return written if same and _accepts(matcher, written) else tokens


def _accepts(matcher: LLMatcher, tokens: list[int]) -> bool:
    probe = matcher.deep_copy()
    return bool(probe.try_consume_tokens(tokens) == len(tokens) and probe.is_accepting())


def _path(place: _Place) -> Iterator[int]:
    legs: list[tuple[int, ...]] = []
    at: _Place | None = place
    while at is not None:
        legs.append(at.tokens)
        at = at.before
    for leg in reversed(legs):
        yield from leg


class _Search:
    """One search for an end; ``steps`` is how many places it may still reach."""

    def __init__(self, tokens: dict[int, int], alphabet: _Alphabet, most: int) -> None:
        self._tokens = tokens
        self._alphabet = alphabet
        self._most = most
        self._steps = 0
        self.texts: list[Sequence[int]] = []
        """Texts that may lead out of a place where any text can be written."""
        self.samples = _SAMPLES
        """Bytes that are tried there."""

    def run(self, matcher: LLMatcher) -> _Place | None:
        start = self._settle(matcher.deep_copy(), None, (), 0)
        if start is None or start.whole:
            return start
        for search, steps in (
            (partial(self._cheapest, ways=self._plausible), _EXACT_STEPS),
            (partial(self._cheapest, ways=self._ends_first), _PRUNED_STEPS),
            (self._rollouts, _ROLLOUT_STEPS),
            (partial(self._cheapest, ways=self._every), _LAST_STEPS),
        ):
            self._steps = steps
            end = search(start)
            if end is not None:
                return end
        return None

    def _cheapest(self, start: _Place, *, ways: _Ways) -> _Place | None:
        """Follow the cheapest path first: the first end reached is a shortest one."""
        waiting = [(start.size, not start.whole, 0, start)]
        number = 1
        while waiting and self._steps > 0:
            *_, place = heapq.heappop(waiting)
            if place.whole:
                return place
            for child in self._children(place, ways):
                heapq.heappush(waiting, (child.size, not child.whole, number, child))
                number += 1
        return None

    def _rollouts(self, start: _Place) -> _Place | None:
        """Try each way out to its end, take the best, and do so again from there."""
        best: _Place | None = None
        place = start
        while not place.whole:
            children = self._children(place, self._ends_first)
            if not children:
                return best
            if len(children) == 1:
                place = children[0]
                continue
            ends = [(end, child) for child in children if (end := self._straight(child)) is not None]
            if not ends:
                return best
            end, place = min(ends, key=lambda found: found[0].size)
            best = end if best is None or end.size < best.size else best
        return place if best is None or place.size <= best.size else best

    def _straight(self, place: _Place | None) -> _Place | None:
        """Take the first way that comes to mind at every place, and another where that changed nothing."""
        unchanged = 0
        while place is not None and not place.whole:
            if self._steps <= 0:
                return None
            # First the known texts, then other bytes.
            ways: list[Sequence[int]] = [[self._tokens[byte]] for byte in self._ends_first(place)]
            ways[1:1] = self.texts if self._is_open_text(place) else []
            turn = unchanged % max(len(ways), 1)
            steps = (self._step(place, way) for way in ways[turn:] + ways[:turn])
            child = next((child for child in steps if child is not None), None)
            # Digits that a number takes without end look all the same; letters of a text are one byte again.
            same = child is not None and child.mask == place.mask and child.tokens in map(tuple, ways)
            unchanged = unchanged + 1 if same else 0
            place = child
        return place

    def _children(self, place: _Place, choose: _Ways) -> list[_Place]:
        """Return the places one choice further, one of each kind.

        What may follow the next byte makes the kind, which is not all where digits are counted. So a place
        of few bytes is not asked for kinds where the shortest end is to be found for certain.
        """
        kinds: dict[tuple[bytes, bool, int, int], _Place] = {}
        ways = choose(place)
        before = place.before
        if len(ways) > 1 and len(place.tokens) == 1 and before and self._is_text(place, before):
            # The text is still too short: more of the same.
            ways = [byte for byte in ways if self._tokens[byte] == place.tokens[0]] or ways
        each = choose == self._plausible and len(ways) <= _TEXT and not self._is_open_text(place)
        for byte in ways:
            child = self._step(place, [self._tokens[byte]])
            if child is not None:
                kinds.setdefault((child.mask, child.whole, child.size, byte if each else -1), child)
        texts = self.texts if self._is_open_text(place) else []
        jumps = (self._step(place, text) for text in texts)
        return [*kinds.values(), *(jump for jump in jumps if jump is not None)]

    def _is_open_text(self, place: _Place) -> bool:
        """Whether any text can be written here, and not be ended."""
        following = self._alphabet.allowed(place.mask)
        return len(following) > _TEXT and b'"' not in following

    def _is_text(self, place: _Place, before: _Place) -> bool:
        following = self._alphabet.allowed(place.mask)
        return len(following) > _TEXT and self._alphabet.allowed(before.mask) == following

    def _every(self, place: _Place) -> Sequence[int]:
        """Return all bytes that may follow."""
        return self._alphabet.allowed(place.mask)

    def _plausible(self, place: _Place) -> Sequence[int]:
        """Return the bytes that may follow; inside of a text its end, or some that stand for all."""
        following = self._alphabet.allowed(place.mask)
        if len(following) <= _TEXT:
            return following
        if b'"' in following:
            return b'"'
        return [byte for byte in self.samples if byte in following] or following

    def _ends_first(self, place: _Place) -> Sequence[int]:
        """Return plausible bytes; where a value can be ended, only what ends it: more would make it longer.

        That is not so where the schema lists whole objects or arrays, the shorter of which go on here.
        """
        following = self._plausible(place)
        if len(following) > 1 and len(following) <= _TEXT:
            for end in b"}]":
                if end in following:
                    return bytes([end])
            if ord(",") in following and _NUMBER.issuperset(following):
                return b","
        return following

    def _step(self, place: _Place, tokens: Sequence[int]) -> _Place | None:
        self._steps -= 1
        matcher = place.matcher.deep_copy()
        if matcher.try_consume_tokens(list(tokens)) < len(tokens):
            return None
        return self._settle(matcher, place, tuple(tokens), place.size + len(tokens))

    def _settle(
        self, matcher: LLMatcher, before: _Place | None, tokens: tuple[int, ...], size: int
    ) -> _Place | None:
        """Append what is forced; None where there is no way on, or only one that is too long."""
        while not matcher.is_accepting():
            forced = matcher.compute_ff_bytes()
            if not forced:
                break
            if size + len(forced) > self._most:
                return None
            more = self._forced(forced)
            if more is None or not matcher.consume_tokens(more):
                return None
            tokens += tuple(more)
            size += len(forced)
        if matcher.is_accepting():
            return _Place(matcher, before, tokens, size, b"", whole=True)
        if matcher.is_stopped() or size >= self._most:
            return None
        return _Place(matcher, before, tokens, size, matcher.compute_bitmask(), whole=False)

    def _forced(self, forced: bytes) -> list[int] | None:
        """Write forced bytes, where a special token stands as 0xff and its number in brackets."""
        tokens: list[int] = []
        at = 0
        while at < len(forced):
            special = _SPECIAL.match(forced, at)
            if special is not None:
                tokens.append(int(special[1]))
                at = special.end()
            elif forced[at] in self._tokens:
                tokens.append(self._tokens[forced[at]])
                at += 1
            else:
                return None
        return tokens
