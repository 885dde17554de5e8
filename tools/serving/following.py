"""The versions that answer: they follow the aliases while the server runs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from watchkeeper.tools.errors import ToolError
from watchkeeper.tools.predictors import Predictor
from watchkeeper.tools.versions.records import CHALLENGER, CHAMPION, Version

_logger = logging.getLogger(__name__)

_MOST_SECONDS = 60.0
"""After which what could not be loaded is tried again at the latest."""


class Source(Protocol):
    """Where versions come from; `Versions` is one."""

    folder: Path

    def names(self) -> tuple[str, ...]:
        """Return the names of all predictors."""
        ...

    def aliases(self, name: str) -> dict[str, int]:
        """Return which version each alias names."""
        ...

    def open(self, name: str, which: str | int) -> tuple[Version, Predictor]:
        """Load a version after its files were checked."""
        ...


@dataclass(frozen=True, slots=True)
class Loaded:
    """A version that can answer."""

    version: Version
    predictor: Predictor


class Follower:
    """Holds what the aliases of predictors name, loaded.

    A version that cannot be loaded leaves the one before in its place, and is tried again, each time after
    twice as long, or at once where anything changed in the registry.

    Attributes:
        problems: Why a version cannot be loaded, by predictor and alias.
        failed: Which version that is.
        loading: Which version is being loaded.

    Args:
        source: Where versions come from.
        names: The predictors; all of them where empty.
        aliases: The aliases that are followed.
        interval: Seconds between two looks.
    """

    def __init__(
        self,
        source: Source,
        names: Sequence[str] = (),
        *,
        aliases: Sequence[str] = (CHAMPION, CHALLENGER),
        interval: float = 0.25,
    ) -> None:
        self._source = source
        self._names = tuple(names)
        self._aliases = tuple(aliases)
        self._interval = interval
        self._loaded: dict[tuple[str, str], Loaded] = {}
        self._known: tuple[str, ...] = ()
        self._seen: tuple[tuple[int, int], ...] | None = None
        self._tries = 0
        self._again_at = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchkeeper-follow", daemon=True)
        self.problems: dict[tuple[str, str], str] = {}
        self.failed: dict[tuple[str, str], int] = {}
        self.loading: dict[tuple[str, str], int] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The predictors that are known."""
        return self._known

    def get(self, name: str, alias: str) -> Loaded | None:
        """Return what an alias names, or None."""
        return self._loaded.get((name, alias))

    def start(self) -> None:
        """Load what the aliases name now, and follow them from then on.

        A challenger that cannot be loaded keeps no champion from answering; it stays in ``problems``.

        Raises:
            ToolError: If a champion cannot be loaded.
        """
        self.look()
        for (_, alias), problem in self.problems.items():
            if alias == CHAMPION:
                raise ToolError(problem)
            _logger.warning("%s", problem)
        self._thread.start()

    def stop(self) -> None:
        """Follow no more."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()

    def look(self) -> None:
        """Load what the aliases name now, where that has changed."""
        seen = self._marks()
        if seen != self._seen:
            self._tries = 0
        elif not self.problems or time.monotonic() < self._again_at:
            return
        problems: dict[tuple[str, str], str] = {}
        failed: dict[tuple[str, str], int] = {}
        self._known = self._names or self._source.names()
        for name in self._known:
            numbers = self._source.aliases(name)
            for alias in self._aliases:
                place = (name, alias)
                try:
                    self._follow(name, alias, numbers.get(alias))
                except Exception as error:
                    problems[place] = f"{alias} of {name!r} cannot be loaded: {error}"
                    failed[place] = numbers[alias]
                    if not isinstance(error, ToolError) and problems[place] != self.problems.get(place):
                        _logger.exception("version of %s was not loaded", name)
        if problems:
            self._tries += 1
            wait = min(self._interval * 2 ** min(self._tries, 20), _MOST_SECONDS)
            self._again_at = time.monotonic() + wait
        self.problems, self.failed = problems, failed
        self._seen = seen

    def _follow(self, name: str, alias: str, number: int | None) -> None:
        now = self._loaded.get((name, alias))
        if number is None:
            self._loaded.pop((name, alias), None)
        elif now is None or now.version.number != number:
            self._load(name, alias, number)

    def _load(self, name: str, alias: str, number: int) -> None:
        self.loading[name, alias] = number
        try:
            loaded = Loaded(*self._source.open(name, number))
            # Loading takes its time: what was promoted may have been taken back meanwhile.
            if self._source.aliases(name).get(alias) == number:
                self._loaded[name, alias] = loaded
        finally:
            # Only now, so that whoever sees nothing being loaded knows that nothing is about to answer.
            del self.loading[name, alias]

    def _watch(self) -> None:
        while not self._ended.wait(self._interval):
            try:
                self.look()
            except Exception as error:  # noqa: BLE001 (what is loaded goes on answering)
                self.problems[("", "")] = f"the aliases cannot be read: {error}"

    def _marks(self) -> tuple[tuple[int, int], ...]:
        """Return what changes with every write into the registry, which costs next to nothing to look at."""
        marks = []
        for name in ("mlflow.db", "mlflow.db-wal"):
            path = self._source.folder / name
            if path.exists():
                status = path.stat()
                marks.append((status.st_mtime_ns, status.st_size))
        return tuple(marks)
