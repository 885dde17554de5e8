"""Drift of a predictor as an alert: one for each episode and each new sign, however often it is looked at."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from watchkeeper.runtime.alerts import Alert, Condition
from watchkeeper.runtime.errors import StoreError
from watchkeeper.tools.durable import private_folder, write_durably
from watchkeeper.tools.findings import FindingKind, Severity
from watchkeeper.tools.predictors.watching import DriftReport
from watchkeeper.tools.versions.versions import FOLDER

_WORSE = {"quality", "stream:quality"}


class Episode(BaseModel):
    """A time in which a version is not as it was.

    Attributes:
        version: The version.
        since: When it was first told.
        signals: All that was told of it, also what is over by now.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int
    since: datetime
    signals: tuple[str, ...]


class DriftEpisodes:
    """Which episodes were told; kept in the home.

    An episode begins with the first signal of a version and ends when there is none any more, or another
    version answers. A signal that it had not yet is told, too; one that comes and goes is told once. Whoever
    looks asks `alert`, submits what it returns, and calls `told`: where a crash comes in between, the alert
    is submitted again, and grouped into the incident that it opened.

    Args:
        home: Folder of Watchkeeper's state.
    """

    def __init__(self, home: Path) -> None:
        self._folder = home / FOLDER / "episodes"

    def current(self, predictor: str) -> Episode | None:
        """Return the episode of a predictor that was told, or None.

        Raises:
            StoreError: If that cannot be read.
        """
        path = self._path(predictor)
        try:
            return Episode.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise StoreError(f"{str(path)!r} cannot be read: remove it, and drift is told again") from error

    def alert(self, report: DriftReport, *, host: str) -> Alert | None:
        """Return the alert of a report with a signal that its episode had not yet; None where it has none.

        Raises:
            StoreError: If it cannot be read which episodes were told.
        """
        known = self._episode(report)
        if set(report.signals) <= set(known.signals if known else ()):
            return None
        return drift_alert(report, host=host)

    def told(self, report: DriftReport, at: datetime) -> None:
        """Keep what a report adds to its episode, or that it is over.

        Raises:
            StoreError: If that cannot be kept.
        """
        path = self._path(report.predictor)
        known = self._episode(report)
        try:
            if not report.signals:
                path.unlink(missing_ok=True)
                return
            before = known.signals if known else ()
            signals = tuple(dict.fromkeys((*before, *report.signals)))
            if signals != before:
                private_folder(path.parent)
                episode = Episode(version=report.version, since=known.since if known else at, signals=signals)
                write_durably(path, episode.model_dump_json().encode())
        except OSError as error:
            raise StoreError(f"{str(path)!r} cannot be written: {error.strerror}") from error

    def _episode(self, report: DriftReport) -> Episode | None:
        """Return the episode that a report belongs to; None where it begins one."""
        known = self.current(report.predictor)
        return known if known is not None and known.version == report.version else None

    def _path(self, predictor: str) -> Path:
        return self._folder / f"{predictor}.json"


def drift_alert(report: DriftReport, *, host: str) -> Alert:
    """Return the alert of a version that is not as it was: it fires while `predictor.quality` says so."""
    worse = not _WORSE.isdisjoint(report.signals)
    what = "answers worse than it did" if worse else "is asked or answers what it was not"
    return Alert(
        title=f"predictor {report.predictor} (version {report.version}) {what}",
        host=host,
        severity=Severity.CRITICAL if worse else Severity.WARNING,
        condition=Condition(
            fact="predictor.quality",
            arguments={"name": report.predictor},
            firing=(FindingKind.PREDICTOR_DRIFT.value, FindingKind.PREDICTOR_WORSE.value),
        ),
        description=f"signals: {', '.join(report.signals)}",
        labels={"predictor": report.predictor, "version": str(report.version)},
    )
