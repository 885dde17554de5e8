"""What is kept of a version, and of every move of an alias."""

from __future__ import annotations

import re
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from watchkeeper.tools.errors import VersionError
from watchkeeper.tools.predictors import Manifest
from watchkeeper.tools.predictors.intervals import wilson
from watchkeeper.tools.training.interface import Evaluation

CHAMPION = "champion"
"""The version that answers."""

CHALLENGER = "challenger"
"""The version that is to show whether it is better."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_ALIAS = re.compile(r"[a-z][a-z0-9-]{0,31}")
_LIKE_A_VERSION = re.compile(r"v\d+")

MOST_REASON = 1000
"""Characters of the reason for a move."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class JobRecord(_Record):
    """The job that made a version.

    Attributes:
        id: Its id.
        requested_by: Who asked for it.
        started_at: When it began.
        seconds: How long it took.
        hardware: On what, by name, e.g. ``{"cpu": "...", "cores": "2", "memory": "24 GB"}``.
        energy_joules: What it drew; None where nobody measured or estimated that.
        energy_source: How that is known, e.g. ``estimated from 65 W``.
        code_version: Version of Watchkeeper that ran it.
        details: What else is worth keeping.
    """

    id: str
    requested_by: str = ""
    started_at: datetime | None = None
    seconds: float | None = Field(default=None, ge=0)
    hardware: dict[str, str] = {}
    energy_joules: float | None = Field(default=None, ge=0)
    energy_source: str = ""
    code_version: str = ""
    details: dict[str, JsonValue] = {}


class Notes(_Record):
    """What people should know of a version that no number says.

    Attributes:
        purpose: What it is for.
        limits: What it is not for, and where it is known to be wrong.
        explanations: How its answers are explained.
        plots: Pictures among its files, each with a few words on it.
        label_column: Column of its answers that labels are held against; empty where there is but one.
    """

    purpose: str = ""
    limits: tuple[str, ...] = ()
    explanations: str = ""
    plots: dict[str, str] = {}
    label_column: str = ""


class VersionRecord(_Record):
    """Everything that is kept of a version beside its files; it is never changed.

    Attributes:
        name: The predictor that it is a version of.
        digest: SHA-256 of the canonical JSON of ``files``.
        files: SHA-256 of every file, by its path.
        manifest: What it is and what it learned from.
        evaluation: How good it is on data that it did not learn from.
        job: What made it.
        notes: What people should know.
        registered_at: When it was registered.
    """

    name: str
    digest: str
    files: dict[str, str]
    manifest: Manifest
    evaluation: Evaluation | None = None
    job: JobRecord | None = None
    notes: Notes = Notes()
    registered_at: datetime


class Version(_Record):
    """A version as it stands.

    Attributes:
        number: From 1.
        folder: Where its files are.
        aliases: The aliases that name it.
        record: What is kept of it.
    """

    number: int
    folder: Path
    aliases: tuple[str, ...] = ()
    record: VersionRecord

    @property
    def name(self) -> str:
        """The predictor that it is a version of."""
        return self.record.name

    @property
    def digest(self) -> str:
        """Digest of its files."""
        return self.record.digest

    @property
    def quality(self) -> float | None:
        """Its primary metric on held-out data; None where it was not evaluated."""
        evaluation = self.record.evaluation
        return None if evaluation is None else evaluation.metrics.get(evaluation.primary)

    @property
    def promised(self) -> float | None:
        """Share of held-out examples that were answered right; None where none was called right or wrong."""
        evaluation = self.record.evaluation
        if evaluation is None or not evaluation.outcomes or not evaluation.promises:
            return None
        return sum(evaluation.outcomes) / len(evaluation.outcomes)

    def promised_low(self, confidence: float) -> float | None:
        """Lower end of the interval of `promised` (Wilson): few held-out rows promise little.

        Args:
            confidence: Share of such intervals that hold the truth.
        """
        evaluation = self.record.evaluation
        if evaluation is None or self.promised is None:
            return None
        return wilson(sum(evaluation.outcomes), len(evaluation.outcomes), confidence)[0]


class MoveState(StrEnum):
    """What came of a move.

    ``INTENDED``: written down, and not known to have taken place.
    """

    INTENDED = "intended"
    DONE = "done"
    NOT_DONE = "not-done"


class Move(_Record):
    """One move of an alias.

    Attributes:
        number: From 1, in the order of the moves of this predictor.
        name: The predictor.
        alias: What was moved.
        before: The version that it named; None for none.
        after: The version that it names since; None for none.
        by: Who moved it.
        at: When.
        reason: Why.
        key: Name of this occasion: the same key moves once.
        undoes: Number of the move that this one takes back.
        state: What came of it.
    """

    number: int
    name: str
    alias: str
    before: int | None
    after: int | None
    by: str
    at: datetime
    reason: str = Field(default="", max_length=MOST_REASON)
    key: str = Field(max_length=200)
    undoes: int | None = None
    state: MoveState = MoveState.INTENDED


def check_name(name: str) -> str:
    """Return the name of a predictor.

    Raises:
        VersionError: If it is none.
    """
    if not _NAME.fullmatch(name):
        raise VersionError(
            f"{name!r:.80} is no name of a predictor: small letters, digits, '.', '_' and '-', at most 64"
        )
    return name


def check_alias(alias: str) -> str:
    """Return an alias.

    Raises:
        VersionError: If it is none.
    """
    if not _ALIAS.fullmatch(alias):
        raise VersionError(f"{alias!r:.80} is no alias: small letters, digits and '-', at most 32")
    if alias == "latest" or _LIKE_A_VERSION.fullmatch(alias):
        raise VersionError(f"{alias!r} is no alias: the registry keeps it for versions")
    return alias
