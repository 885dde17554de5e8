"""Fitting of the small classifier over bags of features."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from watchkeeper.tools.predictors.bag import Bag, positions
from watchkeeper.tools.predictors.features import Features
from watchkeeper.tools.training.fitting import Schedule, fit, threads
from watchkeeper.tools.training.interface import Parameters, TrainingRun

if TYPE_CHECKING:
    import torch

_DROPPED = 0.1  # share of hidden values that are left out in a step
_EPOCHS = 20
_LEARNING_RATE = 0.01
_SPREAD = 0.1  # of the first embeddings
_SHARE_OF_FITTING = 0.95
_LEAST_HELD_OUT = 20


class FittingParameters(Parameters):
    """Parameters of everything that is fitted in epochs.

    Attributes:
        epochs: How often each example is seen; None for what suits the kind of model.
        batch_size: Examples of a step.
        learning_rate: At its highest; None for what suits the kind of model.
        weight_decay: How strongly weights are drawn to nothing.
        balance: 0 counts every example the same, 1 every class, whatever its size; between them: less so.
        held_out: Share of the examples that probabilities are calibrated on instead.
        leaks: Whether a label is accepted that the data give away.
        contradictions: Whether equal texts with different labels are accepted.
    """

    epochs: int | None = Field(default=None, ge=1, le=1000)
    batch_size: int = Field(default=32, ge=1, le=4096)
    learning_rate: float | None = Field(default=None, gt=0, le=1)
    weight_decay: float = Field(default=0.01, ge=0, le=1)
    balance: float = Field(default=0.5, ge=0, le=1)
    held_out: float = Field(default=0.1, ge=0, le=0.5)
    leaks: bool = False
    contradictions: bool = False


class BagParameters(FittingParameters):
    """Parameters of the small classifier.

    Attributes:
        width: Numbers by which a feature is known.
        buckets: How many features can be told apart.
    """

    width: int = Field(default=32, ge=2, le=1024)
    buckets: int = Field(default=2**18, ge=2**8, le=2**24)


def fit_bag(
    run: TrainingRun,
    features: Sequence[Features],
    labels: Sequence[int],
    classes: int,
    parameters: BagParameters,
    *,
    about: str,
) -> Bag:
    """Fit the classifier.

    Raises:
        DataError: If the run's checkpoint belongs to other data or parameters.
        DivergedError: If the loss is no finite number.
        JobCancelledError: If the run was cancelled.
    """
    import torch
    from torch import nn
    from torch.nn import functional

    known = np.array(sorted({bucket for bag in features for bucket, _ in bag}), np.int64)
    bags = [positions(known, bag) for bag in features]
    chance = torch.Generator().manual_seed(run.seed)

    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            drawn = torch.randn((len(known), parameters.width), generator=chance) * _SPREAD
            self.embedding = nn.EmbeddingBag.from_pretrained(drawn, freeze=False, mode="sum")
            self.bias = nn.Parameter(torch.zeros(parameters.width))
            drawn = torch.randn((classes, parameters.width), generator=chance) / parameters.width**0.5
            self.output = nn.Parameter(drawn)
            self.output_bias = nn.Parameter(torch.zeros(classes))

        def forward(self, batch: Sequence[int]) -> torch.Tensor:
            rows = np.concatenate([bags[number][0] for number in batch])
            weights = np.concatenate([bags[number][1] for number in batch])
            starts = np.cumsum([0, *(len(bags[number][0]) for number in batch[:-1])])
            summed = self.embedding(
                torch.from_numpy(rows), torch.from_numpy(starts), per_sample_weights=torch.from_numpy(weights)
            )
            hidden = functional.dropout(functional.relu(summed + self.bias), _DROPPED, self.training)
            return functional.linear(hidden, self.output, self.output_bias)

    module = Module()
    target = torch.tensor(list(labels))
    weight = class_weights(labels, classes, parameters.balance)

    def loss_of(batch: Sequence[int]) -> torch.Tensor:
        return functional.cross_entropy(module(batch), target[list(batch)], weight=weight)

    schedule = Schedule(
        len(features),
        parameters.epochs or _EPOCHS,
        parameters.batch_size,
        parameters.learning_rate or _LEARNING_RATE,
        parameters.weight_decay,
    )
    with threads(run.threads):
        fit(run, module, loss_of, schedule, about=about, share=_SHARE_OF_FITTING)

    def plain(tensor: torch.Tensor) -> NDArray[np.float32]:
        return tensor.detach().numpy().astype(np.float32)

    return Bag(
        known,
        plain(module.embedding.weight),
        plain(module.bias),
        plain(module.output),
        plain(module.output_bias),
    )


def class_weights(labels: Sequence[int], classes: int, balance: float) -> torch.Tensor:
    """Return a weight for each class: the rarer the higher, one on average over examples."""
    import torch

    counts = Counter(labels)
    raw = [(len(labels) / (classes * max(1, counts[label]))) ** balance for label in range(classes)]
    mean = sum(raw[label] * counts[label] for label in counts) / len(labels)
    return torch.tensor([value / mean for value in raw])


def temperature_of(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Return the temperature under which held-out labels are most probable (Guo et al. 2017).

    A normal distribution of its logarithm around 0 is taken for granted, so that a few right answers do not
    make the predictor certain.

    Args:
        scores: ``(examples, classes)``.
        labels: Number of the true class of each example.
    """
    if len(labels) < _LEAST_HELD_OUT:
        return 1.0

    def loss(logarithm: float) -> float:
        scaled = scores / np.exp(logarithm)
        top = scaled.max(axis=1, keepdims=True)
        total = np.log(np.exp(scaled - top).sum(axis=1)) + top[:, 0]
        likely = total - scaled[np.arange(len(labels)), labels]
        return float(likely.sum()) + float(logarithm**2)

    low, high = -3.0, 3.0
    for _ in range(60):
        third = (high - low) / 3
        if loss(low + third) <= loss(high - third):
            high -= third
        else:
            low += third
    return float(np.exp((low + high) / 2))


def digest_of(data_sha256: str, parameters: Parameters, seed: int, more: Iterable[str] = ()) -> str:
    """Return a digest of what a run's numbers depend on, for its checkpoints."""
    parts = [data_sha256, parameters.model_dump_json(), str(seed), *more]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
