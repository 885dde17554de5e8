"""Predictors that facts ask: of a folder, or whichever version is the champion when the fact is read."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from pydantic import JsonValue

from watchkeeper.tools.errors import ArtefactError, RecordingError, VersionError
from watchkeeper.tools.facts.measured import AnsweredBy
from watchkeeper.tools.inventory import Registered
from watchkeeper.tools.predictors import Predictor, open_predictor
from watchkeeper.tools.predictors.interface import Row
from watchkeeper.tools.predictors.recording import FILE, Predictions, Recorded
from watchkeeper.tools.serving.following import Follower, Loaded
from watchkeeper.tools.versions.records import CHAMPION
from watchkeeper.tools.versions.versions import FOLDER, Versions

_logger = logging.getLogger(__name__)
P = TypeVar("P", bound=Predictor)


class Answer(NamedTuple):
    """An answer of a predictor.

    Attributes:
        of: What it was asked about, so that the same is recorded once however often it is read.
        asked: The row.
        said: The answer.
    """

    of: tuple[JsonValue, ...]
    asked: Row
    said: dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Opened(Generic[P]):
    """A predictor that can be asked.

    Attributes:
        predictor: It.
        by: The version that it is; None of a folder.
        home: Home of the registry that it comes from.
    """

    predictor: P
    by: AnsweredBy | None
    home: Path

    def record(self, answers: Iterable[Answer]) -> None:
        """Keep the answers of a version, as its server does; an answer is worth more than its record."""
        if self.by is None:
            return
        at = datetime.now(UTC)
        name, version = self.by.predictor, self.by.version
        found = [
            Recorded(name, _id(version, one.of), version, CHAMPION, at, one.asked, one.said)
            for one in answers
        ]
        try:
            champions(self.home).predictions().record(found)
        except RecordingError:
            _logger.exception("answers of %s were not recorded", name)


class Champions:
    """The champions of a home: its registry is asked where its file changed, and each version loaded once.

    Args:
        home: The home.

    Raises:
        MissingExtraError: If the extra ``registry`` is not installed.
        VersionError: If nothing is registered there.
    """

    def __init__(self, home: Path) -> None:
        self._path = home / FOLDER / FILE
        self._versions = Versions(home, create=False)
        self._followers: dict[str, Follower] = {}
        self._predictions: Predictions | None = None
        self._lock = threading.Lock()

    def get(self, name: str) -> Loaded:
        """Return the version that is the champion now.

        Raises:
            VersionError: If there is no such predictor, it has no champion, or that cannot be loaded.
        """
        with self._lock:
            if name not in self._followers:
                self._followers[name] = Follower(self._versions, (name,), aliases=(CHAMPION,))
            follower = self._followers[name]
            follower.look()
            if problem := follower.problems.get((name, CHAMPION)):
                raise VersionError(problem)
            found = follower.get(name, CHAMPION)
        if found is None:
            raise VersionError(
                f"predictor {name!r} has no champion; promote a version with "
                f"`watchkeeper predictors promote {name} VERSION`"
            )
        return found

    def predictions(self) -> Predictions:
        """Return where answers are recorded.

        Raises:
            RecordingError: If it cannot be opened.
        """
        with self._lock:
            if self._predictions is None:
                self._predictions = Predictions(self._path)
            return self._predictions


@lru_cache(maxsize=8)
def champions(home: Path) -> Champions:
    """Return the champions of a home, the same ones to all facts; see `Champions`."""
    return Champions(home)


def opened(place: Path | Registered, kind: type[P], home: Path) -> Opened[P]:
    """Open the predictor that a setting names.

    Args:
        place: Its folder, or its name in the registry.
        kind: What it must be.
        home: Home of the registry.

    Raises:
        ArtefactError: If it is of another kind, or a folder holds none that can be used.
        MissingExtraError: If an extra that it needs is not installed.
        VersionError: If the registry has no champion of that name that can be loaded.
    """
    if isinstance(place, Path):
        predictor, by, what = open_predictor(place), None, str(place)
    else:
        found = champions(home).get(place.registry)
        predictor, by = found.predictor, AnsweredBy(predictor=place.registry, version=found.version.number)
        what = str(by)
    if not isinstance(predictor, kind):
        raise ArtefactError(
            f"{what} is a predictor of kind {predictor.kind!r}, and one of {kind.kind!r} is needed"
        )
    return Opened(predictor, by, home)


def _id(version: int, of: tuple[JsonValue, ...]) -> str:
    return hashlib.sha256(json.dumps([version, *of]).encode()).hexdigest()[:32]
