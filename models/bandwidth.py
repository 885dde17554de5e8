"""What memory allows a model to do: how fast it is read, and how much of it one token of an answer needs."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil

from watchkeeper.models.errors import ModelError

BUFFER = 2 << 30
"""Bytes that are read: far more than any cache holds."""

_SPARE = 512 << 20
_TIMES = 3


class MemoryReader:
    """A process of its own that reads a large buffer, so that this one's peak memory is not that buffer.

    Args:
        process: The process, with pipes to and from it.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def read(self) -> float:
        """Read the buffer a few times, and return the most bytes per second that memory gave.

        Raises:
            ModelError: If the process failed.
        """
        asking, answering = self._process.stdin, self._process.stdout
        assert asking is not None
        assert answering is not None
        try:
            asking.write("again\n")
            asking.flush()
            return float(answering.readline())
        except (OSError, ValueError) as error:
            complaint = self._complaint()
            raise ModelError(f"how fast memory is read could not be measured: {complaint}") from error

    def _complaint(self) -> str:
        """What the process said last before it ended."""
        self._process.kill()
        _, said = self._process.communicate()
        return (said.strip().splitlines() or [f"its process ended with code {self._process.returncode}"])[-1]


@contextmanager
def memory_reader(threads: int) -> Iterator[MemoryReader | None]:
    """Start a reader with a number of threads, and end it.

    Yields:
        The reader, or ``None`` where too little memory is free.
    """
    if psutil.virtual_memory().available < BUFFER + _SPARE:
        yield None
        return
    # Nothing is imported from the folder in which the command was called; Ctrl-C is for the caller alone.
    with subprocess.Popen(
        [sys.executable, "-P", "-m", __name__, str(threads), str(BUFFER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield MemoryReader(process)
        finally:
            process.kill()


def token_bytes(model: Any) -> int:
    """Return the bytes of weights that a model reads for one token of an answer, as wide as they are stored.

    All linear layers count, the output layer included, and one row of every embedding. Of a mixture of
    experts all count.

    Args:
        model: A causal language model of transformers, as ``load`` returns it.
    """
    tensors = [
        tensor
        for part in (model.get_decoder(), model.get_output_embeddings())
        for module in part.modules()
        for tensor in _read(module)
    ]
    return _distinct((tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes) for tensor in tensors)


def _read(module: Any) -> Iterator[Any]:
    """Tensors that a module itself reads for one token."""
    from torch import nn

    from watchkeeper.models.int8_model import HalfEmbedding

    if isinstance(module, (nn.Embedding, HalfEmbedding)):
        yield module.weight[0]
        return
    for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
        yield tensor
        yield from _scales(tensor)


def _scales(weight: Any) -> Iterator[Any]:
    """Scales that bitsandbytes keeps beside a weight: of int8, and of NF4 with those of its scales."""
    if getattr(weight, "SCB", None) is not None:
        yield weight.SCB
    state = getattr(weight, "quant_state", None)
    while state is not None:
        yield state.absmax
        state = getattr(state, "state2", None)


def _distinct(spans: Iterable[tuple[int, int]]) -> int:
    """Count bytes once that several tensors share: tied weights, and parts of a fused layer."""
    total = reached = 0
    for start, end in sorted(spans):
        total += max(0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _main() -> None:
    """Read the buffer whenever a line comes in, and write how many bytes per second there were."""
    import torch

    threads, size = (int(argument) for argument in sys.argv[1:])
    torch.set_num_threads(threads)
    # Not zeros: pages that were never written are all the same one, and that is in the cache.
    buffer = torch.ones(size // 8, dtype=torch.int64)
    for _ in sys.stdin:
        best = float("inf")
        for _ in range(_TIMES):
            started = time.perf_counter()
            buffer.sum()
            best = min(best, time.perf_counter() - started)
        print(buffer.nbytes / best, flush=True)


if __name__ == "__main__":
    _main()
