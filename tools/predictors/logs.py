"""Predictors of the class of a log line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from watchkeeper.tools.errors import ArtefactError, DataError
from watchkeeper.tools.predictors.bag import DESCRIPTION, Bag, read_description
from watchkeeper.tools.predictors.features import Features, line_features
from watchkeeper.tools.predictors.interface import Predictor, Row
from watchkeeper.tools.predictors.masks import is_masked, without_header
from watchkeeper.tools.predictors.templates import TemplateMiner, words_of
from watchkeeper.tools.predictors.text import answer, text_of

_PLAIN = re.compile(r"\b[^\W\d_]{2,30}\b")


class LogDescription(BaseModel):
    """What a predictor of log lines must know beside its weights.

    Attributes:
        column: The column of the message.
        fields: Further columns that it reads.
        classes: The labels.
        normal: The label of lines without trouble, if there are only that one and its opposite.
        buckets: Of the features.
        learned_until: When the newest line that it learned from was written (seconds since 1970), if known.
        templates: The templates of the lines that it learned from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str
    fields: tuple[str, ...] = ()
    classes: tuple[str, ...] = Field(min_length=2)
    normal: str | None = None
    buckets: int = Field(ge=1)
    learned_until: float | None = None
    templates: dict[str, Any]


class LogPredictor(Predictor):
    """Tells the class of a log line.

    Attributes:
        description: What it knows beside its weights.
    """

    kind: ClassVar[str] = "log"
    reads_texts: ClassVar[bool] = True
    columns: ClassVar[dict[str, str]] = {"message": "the line, in the column of that name in training"}

    def __init__(self, description: LogDescription, bag: Bag) -> None:
        self.description = description
        # What a predictor reads is known to its class only where it was trained with the usual names.
        fields = dict.fromkeys(description.fields, "a column that was learned from")
        vars(self)["columns"] = {description.column: "the line", **fields}
        self.bag = bag
        self._miner = TemplateMiner.from_json(description.templates)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load one from its folder.

        Raises:
            ArtefactError: If it is damaged.
        """
        description = describe(folder)
        return cls(description, Bag.load(folder, len(description.classes)))

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels."""
        return self.description.classes

    @cached_property
    def words(self) -> frozenset[str]:
        """Plain words of the lines that it learned from: those that its templates hold."""
        words = (word for template in self._miner.templates for word in template.words)
        return frozenset(found for word in words if not is_masked(word) for found in _PLAIN.findall(word))

    def predict(self, rows: Sequence[Row]) -> list[dict[str, JsonValue]]:
        """Answer rows with ``label``, ``probability``, ``probabilities``, and the ``template`` (or None).

        Raises:
            DataError: If a row lacks the message or a field.
        """
        known: dict[tuple[tuple[str, ...], tuple[str, ...]], dict[str, JsonValue]] = {}
        answers = []
        for number, row in enumerate(rows):
            words = words_of(without_header(text_of(row, self.description.column, number)))
            fields = tuple(self._field(row, name, number) for name in self.description.fields)
            if (words, fields) not in known:
                known[words, fields] = self._answer(words, fields)
            answers.append(dict(known[words, fields]))
        return answers

    def _answer(self, words: tuple[str, ...], fields: tuple[str, ...]) -> dict[str, JsonValue]:
        template = self._miner.match_words(words)
        features = features_of(words, self._miner, self.description.fields, fields, self.description.buckets)
        made = answer(self.classes, self.bag.probabilities(features))
        return made | {"template": None if template is None else template.text}

    @staticmethod
    def _field(row: Row, name: str, number: int) -> str:
        value = row.get(name)
        if value is None or isinstance(value, list | dict):
            raise DataError(f"row {number + 1}: column {name!r} is missing or no single value")
        return str(value).strip()


def describe(folder: Path) -> LogDescription:
    """Read what a predictor knows beside its weights.

    Raises:
        ArtefactError: If it is missing or damaged.
    """
    try:
        return LogDescription.model_validate(read_description(folder))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ArtefactError(f"{folder / DESCRIPTION}: {place}: {first['msg']}") from error


def features_of(
    words: tuple[str, ...], miner: TemplateMiner, names: Sequence[str], fields: Sequence[str], buckets: int
) -> Features:
    """Return the features of a line: its masked words, its template, if it has one, and its fields."""
    template = miner.match_words(words)
    known = list(zip(names, fields, strict=True))
    if template is not None:
        known.append(("template", template.text))
    return line_features(words, known, buckets)
