"""What one request computed is reused by the next that begins alike, within a bound of memory."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import pytest

from watchkeeper.models.prefix import PrefixStore, common_prefix


@dataclass
class Held:
    """Keys and values as the tokens they belong to: one byte each."""

    tokens: list[int]

    @property
    def length(self) -> int:
        return len(self.tokens)

    @property
    def nbytes(self) -> int:
        return len(self.tokens)

    def trim(self) -> None:
        pass

    def copy_prefix(self, length: int, capacity: int) -> Held:
        assert capacity >= length
        return Held(self.tokens[:length])


def kept(*sequences: str, max_bytes: int = 100) -> PrefixStore[Held]:
    store: PrefixStore[Held] = PrefixStore(max_bytes)
    for sequence in sequences:
        keep(store, sequence)
    return store


def keep(store: PrefixStore[Held], sequence: str) -> None:
    tokens = [ord(letter) for letter in sequence]
    store.keep(tokens, Held(tokens))


def take(store: PrefixStore[Held], prompt: str) -> str:
    found = store.take([ord(letter) for letter in prompt], 100)
    return "".join(chr(token) for token in found.tokens) if found else ""


def test_the_longest_shared_beginning_is_reused() -> None:
    store = kept("system A user B", "system A user C and more")
    assert take(store, "system A user C again") == "system A user C a"
    assert take(store, "system X") == "system "
    assert take(store, "other") == ""


def test_the_last_token_of_a_prompt_is_always_computed() -> None:
    assert take(kept("abcdef"), "abc") == "ab"
    assert take(kept("abc"), "a") == ""


def test_an_entry_that_another_continues_is_not_kept_twice() -> None:
    store = kept("abc", "abcdef", "abcd")
    assert store.statistics.entries == 1
    assert store.statistics.nbytes == 6


def test_the_least_recently_used_goes_first() -> None:
    store = kept("aaaa", "bbbb", max_bytes=10)
    take(store, "aaax")
    keep(store, "cccc")
    assert take(store, "aaaax") == "aaaa"
    assert take(store, "bbbbx") == ""
    assert store.statistics.nbytes <= 10


def test_what_is_larger_than_the_bound_is_not_kept() -> None:
    store = kept("a" * 11, max_bytes=10)
    assert store.statistics.entries == 0
    assert store.statistics.nbytes == 0


def test_a_bound_of_zero_turns_reuse_off() -> None:
    assert take(kept("abc", max_bytes=0), "abcd") == ""


def test_what_was_saved_is_counted() -> None:
    store = kept("abcd")
    take(store, "abcdef")
    take(store, "xyz")
    counts = store.statistics
    assert (counts.lookups, counts.hits, counts.tokens_asked, counts.tokens_reused) == (2, 1, 9, 4)


def test_threads_may_share_a_store() -> None:
    store = kept(max_bytes=50)
    failures: list[str] = []

    def work(letter: str) -> None:
        for length in range(1, 200):
            keep(store, letter * (length % 13 + 1))
            found = take(store, letter * 20)
            if set(found) - {letter}:
                failures.append(found)

    threads = [threading.Thread(target=work, args=(letter,)) for letter in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert 0 <= store.statistics.nbytes <= 50


@pytest.mark.parametrize(
    ("left", "right", "shared"), [("", "a", 0), ("ab", "ab", 2), ("abc", "abd", 2), ("b", "a", 0)]
)
def test_common_prefix(left: str, right: str, shared: int) -> None:
    arrays = [np.array([ord(letter) for letter in text], np.int32) for text in (left, right)]
    assert common_prefix(arrays[0], arrays[1]) == shared
