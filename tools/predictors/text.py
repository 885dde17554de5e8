"""Predictors of the class of a text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from watchkeeper.tools.errors import ArtefactError, DataError
from watchkeeper.tools.predictors.bag import DESCRIPTION, Bag, read_description
from watchkeeper.tools.predictors.features import text_features
from watchkeeper.tools.predictors.interface import Predictor, Row


class TextDescription(BaseModel):
    """What a predictor of texts must know beside its weights.

    Attributes:
        encoder: ``pieces`` for hashed pieces of words, ``transformer`` for a model of its own.
        column: The column that it reads.
        classes: The labels.
        buckets: Of the features.
        temperature: What a transformer's scores are divided by.
        max_tokens: Tokens of a text that a transformer reads.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder: Literal["pieces", "transformer"]
    column: str
    classes: tuple[str, ...] = Field(min_length=2)
    buckets: int = Field(default=1, ge=1)
    temperature: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    max_tokens: int = Field(default=256, ge=1)


class Encoder(Protocol):
    """Tells how probable each class is."""

    def probabilities(self, text: str) -> NDArray[np.float64]:
        """Return the probability of each class, whatever else was asked before."""


class TextPredictor(Predictor):
    """Tells the class of a text.

    Attributes:
        classes: The labels.
        column: The column that it reads.
        encoder: What tells how probable each class is.
    """

    kind: ClassVar[str] = "text"
    reads_texts: ClassVar[bool] = True
    columns: ClassVar[dict[str, str]] = {"text": "the text, in the column of that name in training"}

    def __init__(self, description: TextDescription, encoder: Encoder) -> None:
        self.classes = description.classes
        self.column = description.column
        # What a predictor reads is known to its class only where it was trained with the usual names.
        vars(self)["columns"] = {description.column: "the text"}
        self.encoder = encoder

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load one from its folder.

        Raises:
            ArtefactError: If it is damaged.
        """
        try:
            description = TextDescription.model_validate(read_description(folder))
        except ValidationError as error:
            raise ArtefactError(f"{folder / DESCRIPTION}: {_first(error)}") from error
        if description.encoder == "transformer":
            from watchkeeper.tools.predictors.transformer import TransformerEncoder

            return cls(description, TransformerEncoder.load(folder, description))
        bag = Bag.load(folder, len(description.classes))
        return cls(description, PiecesEncoder(bag, description.buckets))

    def predict(self, rows: Sequence[Row]) -> list[dict[str, JsonValue]]:
        """Answer rows with ``label``, its ``probability``, and the ``probabilities`` of all labels.

        Raises:
            DataError: If a row lacks the text.
        """
        texts = [text_of(row, self.column, number) for number, row in enumerate(rows)]
        return [answer(self.classes, self.encoder.probabilities(text)) for text in texts]


class PiecesEncoder:
    """The small classifier over pieces of words."""

    def __init__(self, bag: Bag, buckets: int) -> None:
        self.bag = bag
        self.buckets = buckets

    def probabilities(self, text: str) -> NDArray[np.float64]:
        """Return the probability of each class."""
        return self.bag.probabilities(text_features(text, self.buckets))


def text_of(row: Row, column: str, number: int) -> str:
    """Return the text of a row.

    Raises:
        DataError: If it is missing or no text.
    """
    value = row.get(column)
    if not isinstance(value, str):
        what = "is missing" if value is None else f"is {value!r:.60}, which is no text"
        raise DataError(f"row {number + 1}: column {column!r} {what}")
    return value


def answer(classes: Sequence[str], probabilities: NDArray[np.float64]) -> dict[str, JsonValue]:
    """Return an answer: the most probable label, the first of equal ones."""
    best = int(probabilities.argmax())
    return {
        "label": classes[best],
        "probability": float(probabilities[best]),
        "probabilities": {label: float(p) for label, p in zip(classes, probabilities, strict=True)},
    }


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
