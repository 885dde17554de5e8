"""What every predictor can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from pydantic import JsonValue

Row = Mapping[str, JsonValue]
"""One question or answer, by column."""


class Predictor(ABC):
    """A trained model, loaded.

    Predictors answer a row the same whatever other rows are asked with it.

    Attributes:
        kind: Its kind, e.g. ``anomaly``.
        columns: Columns that it reads, with a few words on each.
        reads_texts: Whether those hold texts whatever they look like: ``0012`` is then not 12.
    """

    kind: ClassVar[str]
    columns: ClassVar[dict[str, str]]
    reads_texts: ClassVar[bool] = False

    @abstractmethod
    def predict(self, rows: Sequence[Row]) -> list[dict[str, JsonValue]]:
        """Answer rows, in their order.

        Raises:
            DataError: If a row lacks a column or holds a value of a wrong kind; it names row and column.
        """
