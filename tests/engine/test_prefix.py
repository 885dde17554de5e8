"""The tree of known beginnings: what is reused is what was computed, within a bound of bytes."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from watchkeeper.models.kv import SequenceKV
from watchkeeper.models.prefix import PrefixTree, common_prefix

LAYERS = 2
BYTES = LAYERS * 2 * 4  # of one token below


def computed(tokens: list[int], known: int = 0, kv: SequenceKV | None = None) -> SequenceKV:
    """Keys and values in which each token can be recognized, with its place and its layer."""
    kv = kv or SequenceKV.empty(LAYERS, 1)
    kv.reserve(len(tokens))
    for layer in range(LAYERS):
        marks = [token + place / 1000 + layer * 1e6 for place, token in enumerate(tokens)]
        values = torch.tensor(marks[known:]).view(1, -1, 1)
        kv.write(layer, values, -values)
    kv.length = len(tokens)
    return kv


def content(kv: SequenceKV) -> list[list[float]]:
    return [
        layer.keys[0, : kv.length, 0].tolist() + layer.values[0, : kv.length, 0].tolist()
        for layer in kv.layers
        if layer is not None
    ]


def taken(tree: PrefixTree, tokens: list[int], weights: str = "") -> SequenceKV:
    kv = SequenceKV.empty(LAYERS, len(tokens))
    tree.fill(weights, tokens, kv)
    return kv


def test_the_longest_known_beginning_is_copied_but_never_all() -> None:
    tree = PrefixTree(1 << 20)
    tree.keep("", [1, 2, 3, 4], computed([1, 2, 3, 4]))
    for tokens, length in [([1, 2, 3, 4, 5], 4), ([1, 2, 9], 2), ([1, 2, 3, 4], 3), ([7], 0), ([1], 0)]:
        kv = taken(tree, tokens)
        assert kv.length == length
        assert content(kv) == content(computed(tokens[:length])) or length == 0


@pytest.mark.parametrize("seed", range(20))
def test_whatever_was_kept_before_a_reused_prefix_is_the_right_one(seed: int) -> None:
    rng = random.Random(seed)
    tree = PrefixTree(rng.choice([BYTES * 40, 1 << 20]))
    for _ in range(120):
        tokens = [rng.randint(0, 2) for _ in range(rng.randint(1, 24))]
        kv = taken(tree, tokens)
        assert kv.length < len(tokens)
        if kv.length:
            assert content(kv) == content(computed(tokens[: kv.length]))
        tree.keep("", tokens, computed(tokens, kv.length, kv))
        assert tree.statistics.nbytes <= tree.max_bytes


def test_a_shared_beginning_is_kept_once() -> None:
    tree = PrefixTree(1 << 20)
    shared = list(range(100))
    for last in range(8):
        tree.keep("", [*shared, 500 + last], computed([*shared, 500 + last]))
    assert tree.statistics.nbytes == BYTES * (100 + 8)
    assert tree.statistics.entries == 9


def test_the_bound_holds_and_what_was_used_last_stays() -> None:
    tree = PrefixTree(BYTES * 30)
    first, second, third = ([n * 100 + i for i in range(12)] for n in range(3))
    tree.keep("", first, computed(first))
    tree.keep("", second, computed(second))
    taken(tree, [*first, 1])
    tree.keep("", third, computed(third))
    assert tree.statistics.nbytes <= BYTES * 30
    assert tree.match("", first) == 12
    assert tree.match("", second) == 0
    assert tree.match("", third) == 12


def test_what_does_not_fit_at_all_leaves_nothing_behind() -> None:
    for bound in (0, BYTES * 3):
        tree = PrefixTree(bound)
        tree.keep("", [1, 2, 3, 4], computed([1, 2, 3, 4]))
        assert tree.statistics.nbytes == 0
        assert tree.match("", [1, 2, 3, 4]) == 0


def test_other_weights_share_nothing_and_are_forgotten_alone() -> None:
    tree = PrefixTree(1 << 20)
    tree.keep("", [1, 2, 3], computed([1, 2, 3]))
    tree.keep("tuned", [1, 2, 3, 4], computed([1, 2, 3, 4]))
    assert (tree.match("", [1, 2, 3, 4]), tree.match("tuned", [1, 2, 3, 4])) == (3, 4)
    tree.forget("tuned")
    assert (tree.match("", [1, 2, 3]), tree.match("tuned", [1, 2, 3])) == (3, 0)
    assert tree.statistics.nbytes == BYTES * 3
    tree.clear()
    assert tree.statistics.nbytes == tree.statistics.entries == 0


def test_what_was_saved_is_counted() -> None:
    tree = PrefixTree(1 << 20)
    taken(tree, [1, 2, 3])
    tree.keep("", [1, 2, 3], computed([1, 2, 3]))
    taken(tree, [1, 2, 3, 4, 5])
    found = tree.statistics
    assert (found.lookups, found.hits, found.tokens_asked, found.tokens_reused) == (2, 1, 8, 3)


@pytest.mark.parametrize(
    ("left", "right", "length"),
    [([], [], 0), ([1], [], 0), ([1, 2], [1, 3], 1), ([1, 2], [1, 2, 3], 2), ([2], [1], 0)],
)
def test_a_common_prefix_ends_at_the_first_difference(left: list[int], right: list[int], length: int) -> None:
    assert common_prefix(np.asarray(left, np.int32), np.asarray(right, np.int32)) == length


def test_growing_room_keeps_what_is_there() -> None:
    kv = SequenceKV.empty(LAYERS, 1)
    tokens: list[int] = []
    for token in range(300):
        kv = computed([*tokens, token], len(tokens), kv)
        tokens.append(token)
    assert content(kv) == content(computed(tokens))
    assert kv.capacity >= 300
