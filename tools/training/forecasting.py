"""Teaches the forecaster of `watchkeeper.tools.predictors.forecaster`, with torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from watchkeeper.tools.predictors.forecaster import LAYERS, SPREADS, WEIGHTS, WIDTH
from watchkeeper.tools.predictors.series import Numbers

if TYPE_CHECKING:
    from watchkeeper.tools.training.metric_anomaly import Examples

STATE = "state.safetensors"
PROGRESS = "progress.json"
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


class Learner:
    """A network and its optimizer; each epoch's chances come from the seed and the epoch's number alone.

    So what goes on from a checkpoint draws what would have been drawn without the break.
    """

    def __init__(
        self,
        *,
        hidden: int,
        batch: int,
        learning_rate: float,
        weight_decay: float,
        dropout: float,
        seed: int,
    ) -> None:
        self._batch, self._dropout, self._seed = batch, dropout, seed
        sizes = (WIDTH, *[hidden] * (LAYERS - 1), 2)
        with _chances(seed, 0):
            self._layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(sizes))
        self._optimizer = torch.optim.AdamW(
            self._layers.parameters(), lr=learning_rate, weight_decay=weight_decay
        )

    def learn(self, examples: Examples, epoch: int, check: Callable[[], None]) -> float:
        """Learn from all examples once, and return their mean loss."""
        seen, wanted = _tensor(examples.seen), _tensor(examples.wanted)
        total = 0.0
        with _chances(self._seed, epoch + 1):
            for chosen in torch.split(torch.randperm(len(wanted)), self._batch):
                check()
                loss = _loss(self._said(seen[chosen], learning=True), wanted[chosen])
                self._optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                self._optimizer.step()
                total += loss.item() * len(chosen)
        return total / len(wanted)

    def loss_of(self, examples: Examples) -> float:
        """Return the mean loss on examples that are not learned from."""
        with torch.no_grad():
            return _loss(self._said(_tensor(examples.seen)), _tensor(examples.wanted)).item()

    def errors_of(self, examples: Examples) -> Numbers:
        """Return |error| / spread of each example."""
        with torch.no_grad():
            mean, spread = self._said(_tensor(examples.seen))
            errors: Numbers = ((_tensor(examples.wanted) - mean).abs() / spread.exp()).double().numpy()
        return errors

    def write(self, folder: Path) -> None:
        """Write what the forecaster loads."""
        save_file(self._weights(), folder / WEIGHTS)

    def save(self, folder: Path, done: int) -> None:
        """Write a checkpoint after so many epochs."""
        state = self._optimizer.state_dict()["state"]
        moments = {f"{name}.{place}": state[place][name] for place in state for name in _MOMENTS}
        save_file(self._weights() | moments, folder / STATE)
        (folder / PROGRESS).write_text(json.dumps({"epochs": done}), encoding="utf-8")

    def restore(self, folder: Path) -> int:
        """Read a checkpoint, and return how many epochs it stands after."""
        kept = load_file(folder / STATE)
        self._layers.load_state_dict({name: kept[name] for name in self._layers.state_dict()})
        state = self._optimizer.state_dict()
        places = range(2 * LAYERS)
        state["state"] = {p: {name: kept[f"{name}.{p}"] for name in _MOMENTS} for p in places}
        self._optimizer.load_state_dict(state)
        done: int = json.loads((folder / PROGRESS).read_bytes())["epochs"]
        return done

    def _weights(self) -> dict[str, Tensor]:
        return {name: value.contiguous() for name, value in self._layers.state_dict().items()}

    def _said(self, seen: Tensor, *, learning: bool = False) -> tuple[Tensor, Tensor]:
        """Return means, and logarithms of spreads."""
        values = seen
        for place, layer in enumerate(self._layers):
            values = layer(values)
            if place + 1 < LAYERS:
                values = nn.functional.silu(values)
            if place == 0:
                values = nn.functional.dropout(values, self._dropout, training=learning)
        return values[:, 0], values[:, 1].clamp(*SPREADS)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use so many threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _chances(seed: int, part: int) -> Iterator[None]:
    """Draw from a seed of one's own, and leave torch's generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence([seed, part]).generate_state(1, np.uint64)[0] >> 1))
        yield


def _loss(said: tuple[Tensor, Tensor], wanted: Tensor) -> Tensor:
    """Return the mean negative log-likelihood of a Laplace distribution, without its constant."""
    mean, spread = said
    return ((wanted - mean).abs() * torch.exp(-spread) + spread).mean()


def _tensor(values: Numbers) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))
