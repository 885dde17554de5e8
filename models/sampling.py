"""The choice of one token: greedy, or by chance with a seed."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray

# Up to so many tokens it is cheaper to compute their logits alone than those of the whole vocabulary.
FEW = 2048


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

    def pick(self, logits: torch.Tensor) -> int:
        """Pick a place of a row of logits; those at minus infinity are never picked."""
        if self._temperature == 0 or logits.shape[-1] == 1:
            # On a CPU torch would wake threads for this, which then keep the engine's from their cores.
            return int(logits.numpy().argmax() if logits.device.type == "cpu" else logits.argmax())
        shares = torch.softmax(logits.float().cpu() / self._temperature, dim=-1)
        return int(torch.multinomial(shares, 1, generator=self._random))


class TokenMask:
    """Which tokens may come next.

    Args:
        bits: A bit for each token, lowest first.
        size: Number of tokens.
    """

    def __init__(self, bits: bytes, size: int) -> None:
        self._flags = np.unpackbits(np.frombuffer(bits, dtype=np.uint8), bitorder="little", count=size)

    @classmethod
    def all_but(cls, banned: Iterable[int], size: int) -> TokenMask:
        """Allow all tokens but these."""
        flags = np.ones(size, dtype=np.uint8)
        flags[[index for index in banned if index < size]] = 0
        return cls(np.packbits(flags, bitorder="little").tobytes(), size)

    @property
    def few(self) -> NDArray[np.int64] | None:
        """The allowed tokens, ascending, where they are few enough to be looked at alone."""
        count = int(np.count_nonzero(self._flags))
        return np.flatnonzero(self._flags) if count <= min(FEW, len(self._flags) // 4) else None

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Set the logits of all other tokens to minus infinity, in place; a row of the whole vocabulary."""
        # A row may be longer than the vocabulary, where a model pads its output layer.
        logits = logits[: len(self._flags)]
        if logits.device.type == "cpu":
            np.copyto(logits.numpy(), -np.inf, where=self._flags == 0)
            return logits
        with torch.inference_mode():
            return logits.masked_fill_(torch.from_numpy(self._flags == 0).to(logits.device), float("-inf"))
