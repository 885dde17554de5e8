"""Reuse of keys and values between requests that begin alike.

Agents share a system prompt and their tools, and a conversation repeats itself at every turn: what was
computed once is copied instead. The key is the exact sequence of tokens, so a reused prefix holds what
would have been computed.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int32]


class Reusable(Protocol):
    """Keys and values of a sequence of tokens."""

    @property
    def length(self) -> int:
        """Tokens held."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        ...

    def trim(self) -> None:
        """Give unused capacity back."""
        ...

    def copy_prefix(self, length: int, capacity: int) -> Self:
        """Copy the first tokens."""
        ...


@dataclass(frozen=True, slots=True)
class PrefixStatistics:
    """What reuse saved so far.

    Attributes:
        lookups: Requests that asked.
        hits: Requests that reused at least one token.
        tokens_asked: Prompt tokens of all requests.
        tokens_reused: Those of them that were not computed again.
        entries: Sequences kept now.
        nbytes: Bytes kept now.
    """

    lookups: int = 0
    hits: int = 0
    tokens_asked: int = 0
    tokens_reused: int = 0
    entries: int = 0
    nbytes: int = 0


KV = TypeVar("KV", bound=Reusable)


class PrefixStore(Generic[KV]):
    """The sequences that were used last, up to a number of bytes.

    An entry is never changed once it is kept; a request gets a copy of the shared part.

    Args:
        max_bytes: Bound of the memory; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[int, tuple[Tokens, KV]] = OrderedDict()
        self._serial = 0
        self._nbytes = 0
        self._lookups = self._hits = self._asked = self._reused = 0
        self._lock = threading.Lock()

    def take(self, tokens: Sequence[int], capacity: int) -> KV | None:
        """Copy the longest known beginning of a prompt, never the whole of it.

        The last token is always left to compute, since its logits are what the caller needs.

        Args:
            tokens: The prompt.
            capacity: Tokens to make room for in the copy.

        Returns:
            Keys and values whose ``length`` is what was reused, or None.
        """
        wanted = np.asarray(tokens, dtype=np.int32)
        with self._lock:
            self._lookups += 1
            self._asked += len(wanted)
            best, found = 0, None
            for serial, (known, kv) in self._entries.items():
                shared = min(common_prefix(known, wanted), len(wanted) - 1, kv.length)
                if shared > best:
                    best, found = shared, serial
            if found is None:
                return None
            self._entries.move_to_end(found)
            self._hits += 1
            self._reused += best
            source = self._entries[found][1]
        return source.copy_prefix(best, capacity)

    def keep(self, tokens: Sequence[int], kv: KV) -> None:
        """Keep a sequence; the caller gives its keys and values away and must not change them after.

        Args:
            tokens: At least the ``kv.length`` tokens that the keys and values belong to.
            kv: Their keys and values.
        """
        if not self._max_bytes or not kv.length:
            return
        kv.trim()
        held = np.asarray(tokens[: kv.length], dtype=np.int32)
        with self._lock:
            for serial, (known, _) in list(self._entries.items()):
                shared = common_prefix(known, held)
                if shared == len(held):
                    self._entries.move_to_end(serial)
                    return
                if shared == len(known):
                    self._drop(serial)
            self._entries[self._serial] = (held, kv)
            self._serial += 1
            self._nbytes += kv.nbytes
            while self._nbytes > self._max_bytes:
                self._drop(next(iter(self._entries)))

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self._nbytes = 0

    @property
    def statistics(self) -> PrefixStatistics:
        """What reuse saved so far."""
        with self._lock:
            return PrefixStatistics(
                self._lookups, self._hits, self._asked, self._reused, len(self._entries), self._nbytes
            )

    def _drop(self, serial: int) -> None:
        _, kv = self._entries.pop(serial)
        self._nbytes -= kv.nbytes


def common_prefix(left: Tokens, right: Tokens) -> int:
    """Return how many leading tokens two sequences share."""
    length = min(len(left), len(right))
    differs = left[:length] != right[:length]
    first = int(differs.argmax()) if length else 0
    return first if length and differs[first] else length
