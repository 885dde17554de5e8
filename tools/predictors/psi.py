"""How far a batch of values lies from a reference: the population stability index, and what chance makes."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import NormalDist

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from watchkeeper.tools.predictors.interface import Row
from watchkeeper.tools.predictors.rows import finite

LEAST_SHARE = 1e-4
"""An empty bin counts as this share, so that the index stays finite."""

BINS = 10
MOST_VALUES = 20
_REPEATS = 5
MISSING = "(missing)"
OTHER = "(other)"


def psi(expected: Sequence[float], found: Sequence[float]) -> float:
    """Return the population stability index of two counts over the same bins.

    It is the sum over all bins of (f - e) ln(f / e), where e and f are a bin's shares (N. Siddiqi, "Credit
    Risk Scorecards", 2006): 0 for equal shares, and by convention a shift from 0.25 on.

    Args:
        expected: Counts of the reference.
        found: Counts of the batch.

    Raises:
        ValueError: If the bins differ, or one of the two is empty.
    """
    if len(expected) != len(found):
        raise ValueError(f"{len(expected)} bins are expected and {len(found)} were found")
    whole_e, whole_f = sum(expected), sum(found)
    if whole_e <= 0 or whole_f <= 0:
        raise ValueError("there is nothing to compare")
    total = 0.0
    for count_e, count_f in zip(expected, found, strict=True):
        if count_e == count_f == 0:
            continue
        e, f = max(count_e / whole_e, LEAST_SHARE), max(count_f / whole_f, LEAST_SHARE)
        total += (f - e) * math.log(f / e)
    return total


def chance_limit(bins: int, expected: int, found: int, *, confidence: float) -> float:
    """Return the index that chance alone exceeds with a probability of 1 - confidence.

    Without a shift it is distributed as (1/n + 1/m) times chi-squared with one degree of freedom less than
    there are bins (B. Yurdakul, "Statistical Properties of Population Stability Index", 2018). The quantile
    is Wilson and Hilferty's approximation (1931).

    Args:
        bins: At least 2.
        expected: Values of the reference.
        found: Values of the batch.
        confidence: Above 0.5 and below 1.
    """
    freedom = bins - 1
    spread = 2 / (9 * freedom)
    quantile = freedom * (1 - spread + NormalDist().inv_cdf(confidence) * math.sqrt(spread)) ** 3
    return quantile * (1 / expected + 1 / found)


class ColumnReference(BaseModel):
    """How the values of a column were distributed.

    Attributes:
        kind: ``number``, ``value``, or ``length`` where texts hardly repeat and only their lengths compare.
        edges: Inner edges of the bins of numbers, rising.
        values: Values that have a bin of their own, where it holds no numbers.
        counts: Values in each bin; the last but one holds all others (of ``value``), the last missing ones.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    edges: tuple[float, ...] = ()
    values: tuple[str, ...] = ()
    counts: tuple[int, ...]

    @classmethod
    def of(cls, values: Sequence[JsonValue]) -> ColumnReference:
        """Describe the values of a column."""
        there = [value for value in values if value is not None]
        kind = _kind(there)
        if kind == "value":
            common = Counter(_text(value) for value in there).most_common(MOST_VALUES)
            empty = cls(kind=kind, values=tuple(sorted(value for value, _ in common)), counts=())
        else:
            empty = cls(kind=kind, edges=_edges(sorted(_numbers(there, kind))), counts=())
        return empty.model_copy(update={"counts": empty.count(values)})

    def count(self, values: Iterable[JsonValue]) -> tuple[int, ...]:
        """Count values into these bins."""
        inner = len(self.values) + 1 if self.kind == "value" else len(self.edges) + 1
        counts = [0] * (inner + 1)
        places = {value: place for place, value in enumerate(self.values)}
        for value in values:
            number = None if self.kind == "value" else _number(value, self.kind)
            if value is None or (self.kind != "value" and number is None):
                counts[-1] += 1
            elif number is None:
                counts[places.get(_text(value), inner - 1)] += 1
            else:
                counts[bisect_right(self.edges, number)] += 1
        return tuple(counts)


class ColumnDrift(BaseModel):
    """How far a column lies from its reference.

    Attributes:
        psi: The index.
        limit: What chance alone hardly ever exceeds, and at least what counts as a shift.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    psi: float
    limit: float

    @property
    def shifted(self) -> bool:
        """Whether it is no chance, and enough to matter."""
        return self.psi > self.limit


class Reference(BaseModel):
    """How the columns of rows were distributed.

    Attributes:
        rows: How many there were.
        columns: By column.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int = Field(gt=0)
    columns: dict[str, ColumnReference]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Reference:
        """Describe rows; columns that hold lists or objects are left out.

        Raises:
            ValueError: If there is none.
        """
        if not rows:
            raise ValueError("a reference needs rows")
        names = sorted({name for row in rows for name in row})
        found = {name: [row.get(name) for row in rows] for name in names}
        plain = {
            name: values
            for name, values in found.items()
            if not any(isinstance(value, list | dict) for value in values)
        }
        return cls(
            rows=len(rows), columns={name: ColumnReference.of(values) for name, values in plain.items()}
        )

    def compare(
        self, rows: Sequence[Row], *, least: float = 0.2, confidence: float = 0.999
    ) -> dict[str, ColumnDrift]:
        """Compare rows with the reference, column by column.

        Args:
            rows: At least one.
            least: The index below which a shift is too small to matter.
            confidence: That a column is not told for nothing; shared among all columns (Bonferroni).

        Raises:
            ValueError: If there is no row.
        """
        drift = {}
        each = 1 - (1 - confidence) / max(1, len(self.columns))
        for name, reference in self.columns.items():
            counts = reference.count(row.get(name) for row in rows)
            bins = sum(1 for e, f in zip(reference.counts, counts, strict=True) if e or f)
            chance = chance_limit(max(2, bins), self.rows, max(1, len(rows)), confidence=each)
            drift[name] = ColumnDrift(psi=psi(reference.counts, counts), limit=max(least, chance))
        return drift


def _kind(values: Sequence[JsonValue]) -> str:
    different = len({_text(value) for value in values})
    # Few numbers that come back again and again are codes or counts: bins between them would hide a change.
    if different <= MOST_VALUES and different <= len(values) / _REPEATS:
        return "value"
    if values and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return "number"
    texts = all(isinstance(value, str) for value in values)
    return "length" if texts and different > MOST_VALUES and different > len(values) / 2 else "value"


def _edges(numbers: Sequence[float]) -> tuple[float, ...]:
    if not numbers:
        return ()
    wanted = [numbers[len(numbers) * place // BINS] for place in range(1, BINS)]
    # Values at an edge belong above it, so an edge at the least value would leave a bin empty.
    return tuple(sorted({edge for edge in wanted if edge > numbers[0]}))


def _numbers(values: Iterable[JsonValue], kind: str) -> list[float]:
    return [number for value in values if (number := _number(value, kind)) is not None]


def _number(value: JsonValue, kind: str) -> float | None:
    if kind == "length":
        return float(len(value)) if isinstance(value, str) else None
    return finite(value)


def _text(value: JsonValue) -> str:
    if isinstance(value, str):
        return value
    number = finite(value)
    return repr(value if number is None else number)
