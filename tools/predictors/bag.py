"""A small classifier over bags of features: one embedding a bucket, summed, and two layers above.

It is trained with torch (`watchkeeper.tools.training.bag`) and answers with numpy alone, one example at a
time, so that an answer does not depend on what else is asked.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from watchkeeper.tools.errors import ArtefactError
from watchkeeper.tools.predictors.features import Features

WEIGHTS = "model.safetensors"
DESCRIPTION = "model.json"


@dataclass(frozen=True)
class Bag:
    """The weights.

    Attributes:
        known: Buckets that were filled in training, in order; others are looked past.
        embedding: One row for each of them, ``(known, width)``.
        embedding_bias: ``(width,)``.
        output: ``(classes, width)``.
        output_bias: ``(classes,)``.
        temperature: What scores are divided by, so that probabilities say how often answers are right.
    """

    known: NDArray[np.int64]
    embedding: NDArray[np.float32]
    embedding_bias: NDArray[np.float32]
    output: NDArray[np.float32]
    output_bias: NDArray[np.float32]
    temperature: float = 1.0

    def positions(self, features: Features) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the rows of the embedding that belong to features, and their weights."""
        return positions(self.known, features)

    def scores(self, features: Features) -> NDArray[np.float64]:
        """Return a score for each class, before the temperature."""
        rows, weights = self.positions(features)
        hidden = np.maximum(self.embedding[rows].T @ weights + self.embedding_bias, 0)
        found: NDArray[np.float64] = (self.output @ hidden + self.output_bias).astype(np.float64)
        return found

    def probabilities(self, features: Features) -> NDArray[np.float64]:
        """Return the probability of each class."""
        return softmax(self.scores(features) / self.temperature)

    def save(self, folder: Path, description: dict[str, Any]) -> None:
        """Write the weights, and beside them a description."""
        from safetensors.numpy import save_file

        save_file(
            {
                "known": self.known,
                "embedding": self.embedding,
                "embedding_bias": self.embedding_bias,
                "output": self.output,
                "output_bias": self.output_bias,
                "temperature": np.array([self.temperature], np.float64),
            },
            folder / WEIGHTS,
        )
        write_description(folder, description)

    @classmethod
    def load(cls, folder: Path, classes: int) -> Bag:
        """Read the weights.

        Raises:
            ArtefactError: If they are missing, damaged, or not for so many classes.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        path = folder / WEIGHTS
        try:
            read = load_file(path)
            made = cls(
                known=read["known"],
                embedding=read["embedding"],
                embedding_bias=read["embedding_bias"],
                output=read["output"],
                output_bias=read["output_bias"],
                temperature=float(read["temperature"][0]),
            )
        except (OSError, KeyError, IndexError, struct.error, SafetensorError) as error:
            raise ArtefactError(f"{path} cannot be read: {str(error) or type(error).__name__}") from error
        width = made.embedding.shape[-1]
        expected = (
            (made.embedding.shape, (len(made.known), width)),
            (made.embedding_bias.shape, (width,)),
            (made.output.shape, (classes, width)),
            (made.output_bias.shape, (classes,)),
        )
        if any(found != wanted for found, wanted in expected) or not made.temperature > 0:
            raise ArtefactError(f"{path}: the weights do not belong together, or not to {classes} classes")
        return made


def positions(known: NDArray[np.int64], features: Features) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return where the buckets of features stand among the known ones, and their weights."""
    buckets = np.array([bucket for bucket, _ in features], np.int64)
    weights = np.array([weight for _, weight in features], np.float32)
    at = np.searchsorted(known, buckets)
    found = at < len(known)
    found[found] = known[at[found]] == buckets[found]
    return at[found], weights[found]


def softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return probabilities in proportion to the exponentials of scores, along the last axis."""
    raised = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares: NDArray[np.float64] = raised / raised.sum(axis=-1, keepdims=True)
    return shares


def write_description(folder: Path, description: dict[str, Any]) -> None:
    """Write what a predictor must know beside its weights."""
    (folder / DESCRIPTION).write_text(
        json.dumps(description, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def read_description(folder: Path) -> Any:
    """Read what `write_description` wrote.

    Raises:
        ArtefactError: If it is missing or damaged.
    """
    path = folder / DESCRIPTION
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
