"""The choice of one token: greedy, or by chance with a seed."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
"""Which token ids are allowed."""


class Sampler:
    """Picks tokens for one answer.

    Args:
        temperature: 0 picks the most probable token (the lowest id of equals).
        seed: Seed of the chance; None takes a new one from the system.
    """

    def __init__(self, temperature: float, seed: int | None) -> None:
        self._temperature = temperature
        self._random = torch.Generator()
        if seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(seed)

    def pick(self, logits: torch.Tensor, allowed: NDArray[np.int64]) -> int:
        """Pick one of the allowed tokens.

        Args:
            logits: Logits of the whole vocabulary, one row.
            allowed: Ids of the allowed tokens, ascending; at least one.
        """
        if len(allowed) == 1:
            return int(allowed[0])
        ids = torch.from_numpy(allowed)
        # More ids than the row has logits never occur; all of them need no selection.
        row = logits if len(allowed) == logits.shape[-1] else logits[ids.to(logits.device)]
        if self._temperature == 0:
            return int(allowed[int(row.argmax())])
        shares = torch.softmax(row.float().cpu() / self._temperature, dim=-1)
        return int(allowed[int(torch.multinomial(shares, 1, generator=self._random))])


def unpack(bits: bytes, size: int) -> NDArray[np.int64]:
    """Turn a bit mask, lowest bit first, into the ids of its set bits."""
    flags = np.unpackbits(np.frombuffer(bits, dtype=np.uint8), bitorder="little", count=size)
    return np.flatnonzero(flags)


def all_but(banned: Iterable[int], size: int) -> NDArray[np.int64]:
    """Return the ids below ``size`` that are not banned."""
    mask: Mask = np.ones(size, dtype=np.bool_)
    mask[[index for index in banned if index < size]] = False
    return np.flatnonzero(mask)
