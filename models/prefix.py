"""Reuse of keys and values between requests that begin alike.

Agents share a system prompt and their tools, and a conversation repeats itself at every turn: what was
computed once is copied instead. A radix tree holds each shared beginning once (RadixAttention, Zheng et al.
2024, https://arxiv.org/abs/2312.07104). The key is the exact sequence of tokens and the weights that read
them, so a reused prefix holds what would have been computed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from watchkeeper.models.kv import LayerSpan, SequenceKV

Tokens = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class PrefixStatistics:
    """What reuse saved so far.

    Attributes:
        lookups: Requests that asked.
        hits: Requests that reused at least one token.
        tokens_asked: Prompt tokens of all requests.
        tokens_reused: Those of them that were not computed again.
        entries: Runs of tokens kept now.
        nbytes: Bytes kept now.
    """

    lookups: int = 0
    hits: int = 0
    tokens_asked: int = 0
    tokens_reused: int = 0
    entries: int = 0
    nbytes: int = 0


@dataclass(slots=True, eq=False)
class _Node:
    """A run of tokens that follows its parent's; the root has none."""

    tokens: Tokens
    spans: list[LayerSpan]
    parent: _Node | None
    used: int = 0
    children: dict[int, _Node] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        return sum(span.nbytes for span in self.spans)


class PrefixTree:
    """Beginnings of sequences that were used last, up to a number of bytes.

    Not for several threads: the engine's own thread holds it.

    Args:
        max_bytes: Bound of the memory; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._roots: dict[str, _Node] = {}
        self._clock = itertools.count(1)
        self._nbytes = self._entries = 0
        self._lookups = self._hits = self._asked = self._reused = 0

    def match(self, weights: str, tokens: Sequence[int]) -> int:
        """Return how many leading tokens of a prompt are kept."""
        return sum(count for _, count in self._walk(weights, np.asarray(tokens, dtype=np.int32)))

    def fill(self, weights: str, tokens: Sequence[int], kv: SequenceKV) -> int:
        """Copy the longest known beginning of a prompt, never the whole of it.

        The last token is always left to compute, since what follows it is what the caller needs.

        Args:
            weights: What reads the tokens: a model, or a model with an adapter.
            tokens: The prompt.
            kv: Where to copy to; empty, with room for the prompt.

        Returns:
            Tokens copied.
        """
        wanted = np.asarray(tokens, dtype=np.int32)
        now = next(self._clock)
        for node, agreed in self._walk(weights, wanted):
            node.used = now
            count = min(agreed, len(wanted) - 1 - kv.length)
            if count > 0:
                kv.append([LayerSpan(span.keys[:, :count], span.values[:, :count]) for span in node.spans])
        self.count(len(wanted), kv.length)
        return kv.length

    def count(self, asked: int, reused: int) -> None:
        """Count a request in the statistics.

        Args:
            asked: Tokens of its prompt.
            reused: Those that were copied, from here or from a request under way.
        """
        self._lookups += 1
        self._hits += reused > 0
        self._asked += asked
        self._reused += reused

    def keep(self, weights: str, tokens: Sequence[int], kv: SequenceKV) -> None:
        """Keep what is not there yet of a sequence's first ``kv.length`` tokens.

        Args:
            weights: What read the tokens.
            tokens: At least ``kv.length`` tokens.
            kv: Their keys and values; what is kept is copied.
        """
        held = np.asarray(tokens[: kv.length], dtype=np.int32)
        if not self.max_bytes or not len(held):
            return
        now = next(self._clock)
        node = self._roots.setdefault(weights, _Node(held[:0], [], None))
        place = 0
        for child, count in list(self._walk(weights, held)):
            child.used = now
            place += count
            node = child if count == len(child.tokens) else self._split(child, count)
        if place < len(held):
            leaf = _Node(held[place:].copy(), kv.spans(place, len(held)), node, now)
            node.children[int(held[place])] = leaf
            self._nbytes += leaf.nbytes
            self._entries += 1
        self._shrink()

    def forget(self, weights: str) -> None:
        """Forget all that these weights read."""
        root = self._roots.pop(weights, None)
        for node in list(_below(root)) if root else []:
            self._nbytes -= node.nbytes
            self._entries -= 1

    def clear(self) -> None:
        """Forget everything."""
        for weights in list(self._roots):
            self.forget(weights)

    @property
    def statistics(self) -> PrefixStatistics:
        """What reuse saved so far."""
        return PrefixStatistics(
            self._lookups, self._hits, self._asked, self._reused, self._entries, self._nbytes
        )

    def _walk(self, weights: str, tokens: Tokens) -> Iterator[tuple[_Node, int]]:
        """Follow a sequence down the tree; yields nodes and how many of each one's tokens agree."""
        node, place = self._roots.get(weights), 0
        while node is not None and place < len(tokens):
            child = node.children.get(int(tokens[place]))
            if child is None:
                return
            count = common_prefix(child.tokens, tokens[place:])
            yield child, count
            if count < len(child.tokens):
                return
            node, place = child, place + count

    def _split(self, node: _Node, count: int) -> _Node:
        """Part a node after some of its tokens, and return the upper part."""
        assert node.parent is not None
        size = len(node.tokens)
        self._nbytes -= node.nbytes
        upper = _Node(
            node.tokens[:count].copy(), [s.part(0, count) for s in node.spans], node.parent, node.used
        )
        node.parent.children[int(upper.tokens[0])] = upper
        node.tokens, node.spans = node.tokens[count:].copy(), [s.part(count, size) for s in node.spans]
        node.parent = upper
        upper.children[int(node.tokens[0])] = node
        self._nbytes += upper.nbytes + node.nbytes
        self._entries += 1
        return upper

    def _shrink(self) -> None:
        """Drop ends of sequences, the longest unused first, until the bound holds."""
        while self._nbytes > self.max_bytes:
            leaves = [node for root in self._roots.values() for node in _below(root) if not node.children]
            oldest = min(leaves, key=lambda node: node.used)
            assert oldest.parent is not None
            del oldest.parent.children[int(oldest.tokens[0])]
            self._nbytes -= oldest.nbytes
            self._entries -= 1


def _below(node: _Node) -> Iterator[_Node]:
    for child in node.children.values():
        yield child
        yield from _below(child)


def common_prefix(left: Tokens, right: Tokens) -> int:
    """Return how many leading tokens two sequences share."""
    length = min(len(left), len(right))
    differs = left[:length] != right[:length]
    first = int(differs.argmax()) if length else 0
    return first if length and differs[first] else length
