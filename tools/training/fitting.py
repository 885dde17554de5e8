"""The loop that fits a torch module, in an order drawn from the seed; checkpoints leave no trace in it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from watchkeeper.tools.errors import DataError
from watchkeeper.tools.training.interface import TrainingRun

if TYPE_CHECKING:
    import torch
    from torch import nn

_STATE = "state.safetensors"
_WHERE = "where.json"
_WARM_UP = 0.06  # share of the steps in which the learning rate rises
_CLIPPED_AT = 1.0  # norm of a gradient


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast to learn.

    Attributes:
        examples: How many there are.
        epochs: How often each is seen.
        batch_size: Examples of a step.
        learning_rate: At its highest.
        weight_decay: Of AdamW.
        checkpoints: About how many checkpoints there are in all.
    """

    examples: int
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    checkpoints: int = 10

    @property
    def steps_of_epoch(self) -> int:
        """Steps in which each example is seen once."""
        return math.ceil(self.examples / self.batch_size)

    @property
    def steps(self) -> int:
        """Steps in all."""
        return self.epochs * self.steps_of_epoch

    def rate(self, step: int) -> float:
        """Return the learning rate of a step: it rises shortly, and falls to nothing."""
        warm = max(1, round(self.steps * _WARM_UP))
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        return self.learning_rate * (self.steps - step) / max(1, self.steps - warm)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use so many threads for a while."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(max(1, count))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def fit(
    run: TrainingRun,
    module: nn.Module,
    loss_of: Callable[[Sequence[int]], torch.Tensor],
    schedule: Schedule,
    *,
    about: str,
    share: float = 1.0,
) -> None:
    """Fit a module, from the run's checkpoint if there is one.

    Everything drawn by chance is drawn anew from the seed and the number of the step, so that nothing but
    weights and the optimizer's state has to be kept.

    Args:
        run: Where checkpoints go, and who is told.
        module: What is fitted.
        loss_of: Returns the loss of examples, by their numbers.
        schedule: How long and how fast.
        about: Digest of the data and parameters; a checkpoint of others is refused.
        share: Share of the whole work that this loop is, for the progress.

    Raises:
        DataError: If the checkpoint belongs to other data or parameters.
        DivergedError: If the loss is no finite number.
        JobCancelledError: If the run was cancelled.
    """
    import torch

    optimizer = torch.optim.AdamW(
        module.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay
    )
    start = 0
    if run.checkpoint is not None:
        start = _restore(run.checkpoint, module, optimizer, about)
    every = max(1, schedule.steps // schedule.checkpoints)
    module.train()
    order: list[int] = []
    for step in range(start, schedule.steps):
        run.check()
        epoch, within = divmod(step, schedule.steps_of_epoch)
        if not order or within == 0:
            order = _order(schedule.examples, run.seed, epoch)
        batch = order[within * schedule.batch_size : (within + 1) * schedule.batch_size]
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_drawn(run.seed, step))
            loss = loss_of(batch)
        value = float(loss.detach())
        run.metric(step + 1, loss=value)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(module.parameters(), _CLIPPED_AT)
        optimizer.step()
        done = step + 1
        run.progress(share * done / schedule.steps, f"epoch {epoch + 1} of {schedule.epochs}")
        if done % every == 0 and done < schedule.steps:
            run.save(done, lambda folder, done=done: _keep(folder, module, optimizer, done, about))  # type: ignore[misc]
    module.eval()


def _order(examples: int, seed: int, epoch: int) -> list[int]:
    import torch

    chance = torch.Generator().manual_seed(_drawn(seed, -1 - epoch))
    order: list[int] = torch.randperm(examples, generator=chance).tolist()
    return order


def _drawn(seed: int, number: int) -> int:
    """Mix a seed with a number (SplitMix64's finalizer, Steele et al. 2014)."""
    mixed = (seed * 0x9E3779B97F4A7C15 + (number + 1) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
    return (mixed ^ (mixed >> 31)) & (2**63 - 1)


def _tensors(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Return every tensor that the next step depends on, by name; shared ones once."""
    found: dict[str, torch.Tensor] = {}
    found.update({f"module.{name}": parameter for name, parameter in module.named_parameters()})
    found.update({f"module.{name}": buffer for name, buffer in module.named_buffers()})
    for name, parameter in module.named_parameters():
        for kind, value in optimizer.state.get(parameter, {}).items():
            found[f"optimizer.{name}.{kind}"] = value
    return found


def _keep(folder: Path, module: nn.Module, optimizer: torch.optim.Optimizer, step: int, about: str) -> None:
    from safetensors.torch import save_file

    kept = {name: tensor.detach().contiguous() for name, tensor in _tensors(module, optimizer).items()}
    save_file(kept, folder / _STATE)
    (folder / _WHERE).write_text(json.dumps({"step": step, "about": about}) + "\n", encoding="utf-8")


def _restore(folder: Path, module: nn.Module, optimizer: torch.optim.Optimizer, about: str) -> int:
    import torch
    from safetensors.torch import load_file

    where: dict[str, Any] = json.loads((folder / _WHERE).read_text(encoding="utf-8"))
    if where["about"] != about:
        raise DataError(
            f"checkpoint {folder} was made from other data or parameters: begin a new run, or give "
            "back the old ones"
        )
    kept = load_file(folder / _STATE)
    with torch.no_grad():
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            tensor.copy_(kept[f"module.{name}"])
    for name, parameter in module.named_parameters():
        mark = f"optimizer.{name}."
        state = {key.removeprefix(mark): value for key, value in kept.items() if key.startswith(mark)}
        if state:
            optimizer.state[parameter] = state
    return int(where["step"])
