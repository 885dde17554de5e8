"""One decoder layer in two compiled halves: what attends, and what follows.

Between two matmuls a layer does little: some microseconds for a token, and as much again for each call out of
Python. Here there are two calls a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numba.np.numpy_support import carray
from numpy.typing import NDArray

from watchkeeper.models.attention import ENDLESS, attend_part, attend_together
from watchkeeper.models.compiled import bytes_at, compiled, floats_at
from watchkeeper.models.crew import SHARES, crew
from watchkeeper.models.integer_products import (
    BLOCK,
    Floats,
    Integers,
    multiply_together,
    round_part,
    share_part,
)
from watchkeeper.models.rowwise import (
    MANY,
    add_and_normalize,
    gate_part,
    gate_rows,
    gate_together,
    normalize,
    rotate,
)

Words = NDArray[np.int64]
Linear = tuple[Integers, Floats, Floats]
"""Weight (outputs, inputs), scale and bias (outputs,), the last empty where there is none."""

# Columns of a piece's row in the table of pieces.
_START, _STOP, _PAST, _KEYS, _VALUES, _CAPACITY, _MASK = 0, 1, 2, 3, 4, 5, 6
COLUMNS = 7
_NO_MASK_AT = 0
# Columns of the crew's row.
_WORKS = (round_part, share_part, gate_part, attend_part)
_MEMBERS, _CREW, _ROUND, _SHARE, _GATE, _ATTEND = 0, 1, 2, 3, 4, 5


def team() -> Words:
    """What loops need of the crew, which was entered: its size, and addresses."""
    return np.array([crew.members, crew.address, *(part.address for part in _WORKS)])


@dataclass(frozen=True, slots=True)
class Scratch:
    """Memory that all layers of a pass write over.

    Attributes:
        mixed: For queries, keys and values.
        seen: For what attention gives.
        both: For the joined first layers of the network.
        hidden: For what its last layer takes.
        change: For what is to be added to rows.
        integers: For products.
        steps: Likewise.
        given: For what the crew is given.
    """

    mixed: Floats
    seen: Floats
    both: Floats
    hidden: Floats
    change: Floats
    integers: NDArray[np.int16]
    steps: Floats
    given: Words

    @classmethod
    def of(cls, count: int, shapes: tuple[tuple[int, ...], ...]) -> Scratch:
        """Make room for a number of tokens, and weights of these shapes (outputs, inputs)."""
        qkv, output, gate_up, down = shapes
        blocks = -(-max(inputs for _, inputs in shapes) // BLOCK)
        mixed, seen, both, hidden, change = (
            np.empty((count, width), dtype=np.float32)
            for width in (qkv[0], output[1], gate_up[0], down[1], down[0])
        )
        integers, steps = np.empty(blocks * count * BLOCK, np.int16), np.empty(blocks * count, np.float32)
        return cls(mixed, seen, both, hidden, change, integers, steps, np.empty(32, np.int64))

    def rows(self, wanted: Sequence[int]) -> Scratch:
        """Keep what attention gave for some of the tokens, and room for these."""
        count = len(wanted)
        return replace(
            self,
            seen=self.seen[wanted],
            both=self.both[:count],
            hidden=self.hidden[:count],
            change=self.change[:count],
        )


@compiled()
def _product(
    rows: Floats,
    linear: Linear,
    out: Floats,
    integers: NDArray[np.int16],
    steps: Floats,
    given: Words,
    team: Words,
) -> None:
    count, size = rows.shape
    blocks = (size + BLOCK - 1) // BLOCK
    multiply_together(
        rows,
        linear[0],
        linear[1],
        linear[2],
        out,
        integers[: blocks * count * BLOCK].reshape((blocks, count, BLOCK)),
        steps[: blocks * count].reshape((blocks, count)),
        given,
        team[_MEMBERS],
        team[_CREW],
        team[_ROUND],
        team[_SHARE],
    )


@compiled()
def attending_half(
    rows: Floats,
    change: Floats,
    norm: Floats,
    epsilon: float,
    qkv: Linear,
    cosines: Floats,
    sines: Floats,
    heads: int,
    groups: int,
    scaling: float,
    window: int,
    pieces: Words,
    mixed: Floats,
    seen: Floats,
    integers: NDArray[np.int16],
    steps: Floats,
    given: Words,
    team: Words,
) -> None:
    """Add the last layer's change to rows, norm them, and let them attend.

    Args:
        rows: Shape (tokens, hidden size); changed in place.
        change: Of the same shape, or without rows before the first layer.
        norm: Factors of the norm.
        epsilon: Added to its mean of squares.
        qkv: What gives queries, keys and values.
        cosines: Of the tokens' positions, shape (tokens, head size).
        sines: Likewise.
        heads: Heads of queries.
        groups: Heads of keys.
        scaling: Factor of the scores.
        window: Last tokens that each may look at.
        pieces: A row of `COLUMNS` words for each piece: its first token and the one behind its last, tokens
            before it, addresses of its keys and values and their capacity, address of a mask or 0.
        mixed: Where queries, keys and values go, shape (tokens, (heads + 2 groups) * head size).
        seen: Where results go, shape (tokens, heads * head size).
        integers: Scratch.
        steps: Scratch.
        given: Scratch.
        team: See :func:`team`.
    """
    if change.shape[0]:
        normed = add_and_normalize(rows, change, norm, epsilon)
    else:
        normed = normalize(rows, norm, epsilon)
    _product(normed, qkv, mixed, integers, steps, given, team)
    rotate(mixed, heads + groups, cosines, sines)
    size = cosines.shape[1]
    for index in range(pieces.shape[0]):
        piece = pieces[index]
        start, stop, past, masked = piece[_START], piece[_STOP], piece[_PAST], piece[_MASK] != _NO_MASK_AT
        shape = (groups, piece[_CAPACITY], size)
        count = stop - start
        attend_together(
            mixed[start:stop],
            heads,
            carray(floats_at(piece[_KEYS]), shape),
            carray(floats_at(piece[_VALUES]), shape),
            past,
            ENDLESS if masked else window,
            carray(bytes_at(piece[_MASK]), (count if masked else 0, past + count)),
            scaling,
            seen[start:stop],
            given,
            SHARES * team[_MEMBERS],
            team[_CREW],
            team[_ATTEND],
        )


@compiled()
def following_half(
    rows: Floats,
    seen: Floats,
    output: Linear,
    norm: Floats,
    epsilon: float,
    gate_up: Linear,
    down: Linear,
    both: Floats,
    hidden: Floats,
    change: Floats,
    integers: NDArray[np.int16],
    steps: Floats,
    given: Words,
    team: Words,
) -> None:
    """Add what attention saw to rows, norm them, and pass them through the gated network.

    Args:
        rows: Shape (tokens, hidden size); changed in place.
        seen: What attention gave.
        output: Its output layer.
        norm: Factors of the norm.
        epsilon: Added to its mean of squares.
        gate_up: The first layers of the network, joined.
        down: Its last layer.
        both: Scratch of the joined layers' size.
        hidden: Scratch of half that size.
        change: Where the result goes, of the shape of rows; it is still to be added to them.
        integers: Scratch.
        steps: Scratch.
        given: Scratch.
        team: See :func:`team`.
    """
    _product(seen, output, change, integers, steps, given, team)
    normed = add_and_normalize(rows, change, norm, epsilon)
    _product(normed, gate_up, both, integers, steps, given, team)
    if both.shape[0] < MANY:
        gate_rows(both, hidden, 0, both.shape[0])
    else:
        gate_together(both, hidden, given, SHARES * team[_MEMBERS], team[_CREW], team[_GATE])
    _product(hidden, down, change, integers, steps, given, team)
