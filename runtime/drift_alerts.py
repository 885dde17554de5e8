"""Drift of a predictor as alerts: one for each episode and each new sign, however often it is looked at."""

from __future__ import annotations

from collections.abc import Sequence
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
_SERVING = {
    "latency": (FindingKind.PREDICTOR_SLOWER, "answers slower than at first", Severity.WARNING),
    "errors": (FindingKind.PREDICTOR_FAILING, "fails more often than it may", Severity.CRITICAL),
}


class Episode(BaseModel):
    """A time in which a version is not as it was.

    Attributes:
        version: The version.
        since: When it was first told.
        signals: All that was told of it, also what is over by now; of how the version is served, only what
            is not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int
    since: datetime
    signals: tuple[str, ...]


class DriftEpisodes:
    """Which episodes were told; kept in the home.

    An episode begins with the first signal of a version and ends when there is none any more, or another
    version answers. A signal that it had not yet is told, too; one that comes and goes is told once, except
    that it is slow or fails, which is told each time: a drift may last for months. Whoever looks asks
    `alerts`, submits what it returns, and calls `told`: where a crash comes in between, they are submitted
    again, and grouped into the incidents that they opened.

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

    def alerts(self, report: DriftReport, *, host: str) -> tuple[Alert, ...]:
        """Return alerts of the signals of a report that its episode had not yet; none where there is none.

        Raises:
            StoreError: If it cannot be read which episodes were told.
        """
        known = self._episode(report)
        new = set(report.signals) - set(known.signals if known else ())
        found = []
        if new - _SERVING.keys():
            found.append(drift_alert(report, host=host))
        found += [serving_alert(report, sign, host=host) for sign in _SERVING if sign in new]
        return tuple(found)

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
            lasting = [one for one in before if one not in _SERVING or one in report.signals]
            signals = tuple(dict.fromkeys((*lasting, *report.signals)))
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
    """Return the alert of a version that is asked or answers what it was not.

    It fires while `predictor.quality` says so.
    """
    worse = not _WORSE.isdisjoint(report.signals)
    what = "answers worse than it did" if worse else "is asked or answers what it was not"
    firing = (FindingKind.PREDICTOR_DRIFT, FindingKind.PREDICTOR_WORSE)
    return _alert(report, what, firing, Severity.CRITICAL if worse else Severity.WARNING, host=host)


def serving_alert(report: DriftReport, sign: str, *, host: str) -> Alert:
    """Return the alert of a version that answers slower than at first, or fails to.

    Each sign, ``latency`` and ``errors``, has an incident of its own: while a version drifts for weeks, or is
    retrained, another trouble is to be heard of. It fires while `predictor.quality` says so.
    """
    kind, what, severity = _SERVING[sign]
    return _alert(report, what, (kind,), severity, host=host)


def is_of_serving(alert: Alert) -> bool:
    """Whether an alert is about how a version is served, and not about what it answers."""
    return any(kind.value in alert.condition.firing for kind, _, _ in _SERVING.values())


def _alert(
    report: DriftReport, what: str, firing: Sequence[FindingKind], severity: Severity, *, host: str
) -> Alert:
    return Alert(
        title=f"predictor {report.predictor} (version {report.version}) {what}",
        host=host,
        severity=severity,
        condition=Condition(
            fact="predictor.quality",
            arguments={"name": report.predictor},
            firing=tuple(kind.value for kind in firing),
        ),
        description=f"signals: {', '.join(report.signals)}",
        labels={"predictor": report.predictor, "version": str(report.version)},
    )
