"""Nodes of the lifecycle that watch live answers: the trial, the watch, and the proof of a rollback."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from langgraph.types import interrupt

from watchkeeper.runtime.lifecycle_run import LifecycleRun
from watchkeeper.runtime.lifecycle_state import Change, LifecycleState, Outcome, Update, ends
from watchkeeper.runtime.lifecycle_waits import Shown, shown
from watchkeeper.tools.errors import DataError, RecordingError, ToolError
from watchkeeper.tools.predictors.intervals import wilson
from watchkeeper.tools.predictors.recording import Recorded, Tally
from watchkeeper.tools.predictors.watching import LEAST_LABELS, is_below, outcome_of
from watchkeeper.tools.text import counted
from watchkeeper.tools.versions import CHAMPION, Version
from watchkeeper.tools.versions.bootstrap import binomial_tail, interval_of_mean
from watchkeeper.tools.versions.live import answers_with, version_said

_FIRST_ROWS = 30
"""Rows after which it is looked at first whether a version fails."""


class Watching:
    """The nodes that wait for labels and say what they show."""

    def __init__(self, run: LifecycleRun) -> None:
        self._run = run
        self._request = run.request

    def trial(self, state: LifecycleState) -> Update:
        """Begin to look at what the challenger answers."""
        rules = self._request.trial
        return self._wait(
            state, Change.TRIAL, ("canary", "shadow"), rules.labels, rules.labels, rules.seconds
        )

    def trying(self, state: LifecycleState) -> Update:
        """Wait for labels of the challenger's answers; this node does nothing else."""
        interrupt(state["wait"])
        return {"verdict": "tried"}

    def tried(self, state: LifecycleState) -> Update:
        """Say what the challenger showed; one that showed too little does not answer."""
        try:
            seen = shown(self._run.context.site.home, state["wait"])
        except RecordingError as error:
            return self._unwatched(state, "trial", str(error))
        fails, failures = self._fails(seen.tally, 1 - self._request.live.confidence)
        if fails:
            self._run.judged(state, "trial", failures, ok=False)
            return ends(Outcome.WORSE, f"it failed on live requests: {failures}")
        found, wanted = seen.labelled, self._request.trial.labels
        if len(found) < wanted:
            said = f"{counted(len(found), 'label')} of its answers arrived in time, and {wanted} are wanted"
            self._run.judged(state, "trial", said, ok=False)
            return ends(Outcome.WORSE, f"its trial showed too little: {said}")
        version = self._version(state)
        floor = self._floor(version)
        try:
            fallen, said = self._fallen(found, version, floor, self._request.live.confidence)
        except DataError as error:
            return self._unlabelled(state, "trial", error)
        self._run.judged(state, "trial", f"{said}; {failures}", ok=not fallen)
        if fallen:
            return ends(Outcome.WORSE, f"it did badly on live requests: {said}")
        return {"change": Change.PROMOTE.value, "repeat": 0, "verdict": "propose"}

    def watch(self, state: LifecycleState) -> Update:
        """Begin to look at what the version answers since it does."""
        rules = self._request.live
        if not rules.labels:
            return ends(Outcome.PROMOTED, f"version {state['version']} answers; it is not watched")
        if self._floor(self._version(state)) is None:
            said = (
                "held-out rows promise no share of right answers, and no floor is set, so it is not watched"
            )
            self._run.judged(state, "watch", said)
            return ends(Outcome.PROMOTED, f"version {state['version']} answers; {said}")
        first = min(LEAST_LABELS, rules.labels)
        begun = self._wait(state, Change.PROMOTE, (CHAMPION, "canary"), first, rules.labels, rules.seconds)
        begun["wait"]["rows"] = _FIRST_ROWS
        return begun

    def watching(self, state: LifecycleState) -> Update:
        """Wait for labels of its answers; this node does nothing else."""
        interrupt(state["wait"])
        return {"verdict": "judge"}

    def judge(self, state: LifecycleState) -> Update:
        """Say whether it fails, or whether the live metric fell, where enough came in since the last look."""
        wait, risk = state["wait"], 1 - self._request.live.confidence
        try:
            seen = shown(self._run.context.site.home, wait)
        except RecordingError as error:
            return self._unwatched(state, "watch", str(error))
        over = self._run.context.journal.now() >= datetime.fromisoformat(wait["due"])
        rows = int(wait.get("rows", _FIRST_ROWS))
        if over or seen.tally.rows >= rows:
            # Each time at twice as many rows, with half of the risk that is left.
            fails, said = self._fails(seen.tally, risk * _FIRST_ROWS / (2 * rows))
            if fails:
                self._run.judged(state, "watch", said, ok=False)
                return {"verdict": "rollback", "reason": f"it fails on live requests: {said}"}
            wait = {**wait, "rows": _twice(rows, seen.tally.rows)}
        if over or len(seen.labelled) >= int(wait["count"]):
            return self._judge_labels(state, wait, seen, over=over)
        return {"wait": wait, "verdict": "wait"}

    def prove(self, state: LifecycleState) -> Update:
        """Ask the servers of it that run which version answers now; where none does, the registry."""
        before = state["champion"]
        try:
            found = answers_with(self._run.versions(), self._request.predictor, CHAMPION, before)
        except ToolError as error:
            return ends(
                Outcome.ESCALATED, f"{state['reason']}; taken back, but who answers is not known: {error}"
            )
        self._run.judged(state, "rollback", found.detail, ok=found.ok)
        said = f"{state['reason']}; taken back: {found.detail}"
        if not found.ok:
            return ends(Outcome.ESCALATED, f"{said}, and {version_said(before)} should answer")
        return ends(Outcome.ROLLED_BACK, said)

    def _judge_labels(
        self, state: LifecycleState, wait: dict[str, Any], seen: Shown, *, over: bool
    ) -> Update:
        """Say whether the live metric fell; the looks double, and share the risk of a false alarm."""
        rules, found, version = self._request.live, seen.labelled, self._version(state)
        failures = failures_said(seen.tally)
        if not found:
            said = f"no label arrived in time, so it is not known how it does; {failures}"
            self._run.judged(state, "watch", said)
            return ends(Outcome.PROMOTED, f"version {version.number} answers; {said}")
        confidence = 1 - (1 - rules.confidence) / looks(rules.labels)
        try:
            fallen, said = self._fallen(found, version, self._floor(version), confidence)
        except DataError as error:
            return self._unlabelled(state, "watch", error)
        if fallen:
            self._run.judged(state, "watch", said, ok=False, labels=len(found))
            return {"verdict": "rollback", "reason": f"the live metric fell: {said}"}
        if len(found) >= rules.labels or over:
            few = "" if len(found) >= rules.labels else f" ({rules.labels} were wanted, and the time is over)"
            said = f"{said}{few}; {failures}"
            self._run.judged(state, "watch", said, labels=len(found))
            return ends(Outcome.PROMOTED, f"version {version.number} answers: {said}")
        count = _twice(int(wait["count"]), len(found))
        return {"wait": {**wait, "count": min(count, rules.labels)}, "verdict": "wait"}

    def _wait(
        self,
        state: LifecycleState,
        change: Change,
        roles: tuple[str, ...],
        count: int,
        wanted: int,
        seconds: float,
    ) -> Update:
        run = self._run
        run.enter(state, "trial on live requests" if change is Change.TRIAL else "watch")
        effect = run.context.journal.steps.get(state["steps"][change])
        since = next(
            one.intended_at
            for one in run.context.journal.ledger.list(state["incident"])
            if one.step_id == effect.id
        )
        wait: dict[str, Any] = {
            "wait": "labels",
            "predictor": self._request.predictor,
            "version": state["version"],
            "roles": [*roles],
            "count": count,
            "wanted": wanted,
            "since": since.isoformat(),
            "due": (since + timedelta(seconds=seconds)).isoformat(),
        }
        return {"wait": wait, "verdict": "wait"}

    def _unlabelled(self, state: LifecycleState, stage: str, error: DataError) -> Update:
        """Call people where labels cannot be held against answers: nobody would see that it does badly."""
        said = f"its labels cannot be held against its answers: set label_column ({error})"
        return self._unwatched(state, stage, said)

    def _unwatched(self, state: LifecycleState, stage: str, said: str) -> Update:
        self._run.judged(state, stage, said, ok=False)
        where = "answers, and is not watched" if stage == "watch" else "was tried in vain"
        return ends(Outcome.ESCALATED, f"version {state['version']} {where}: {said}")

    def _fails(self, tally: Tally, risk: float) -> tuple[bool, str]:
        """Say whether it fails at more rows than it may, and no chance."""
        most, said = self._request.live.failures, failures_said(tally)
        low, _ = wilson(tally.failed, tally.rows, 1 - risk)
        return low > most, f"{said}, and {most:.0%} may" if low > most else said

    def _version(self, state: LifecycleState) -> Version:
        return self._run.versions().get(self._request.predictor, state["version"])

    def _floor(self, version: Version) -> float | None:
        rules, promised = self._request.live, version.promised
        if rules.floor is not None or promised is None:
            return rules.floor
        return promised - rules.margin

    def _slack(self, version: Version, confidence: float) -> float:
        """How far below its promise a version may lie: few held-out rows promise little."""
        promised, low = version.promised, version.promised_low(confidence)
        if self._request.live.floor is not None or promised is None or low is None:
            return 0.0
        return promised - low

    def _fallen(
        self, found: tuple[Recorded, ...], version: Version, floor: float | None, confidence: float
    ) -> tuple[bool, str]:
        column = version.record.notes.label_column or None
        outcomes = [outcome_of(one, column=column) for one in found]
        share = sum(outcomes) / len(outcomes)
        low, high = interval_of_mean(outcomes, confidence=confidence)
        said = (
            f"{share:.1%} of {counted(len(outcomes), 'labelled answer')} right "
            f"({confidence:.1%} interval {low:.1%} to {high:.1%})"
        )
        if floor is None:
            return False, said
        # Of few answers that are all alike the interval has no width: the exact test says what chance does.
        chance = binomial_tail(sum(outcomes), len(outcomes), floor)
        least = floor - self._slack(version, confidence)
        fallen = is_below((share, high), (floor, least)) and chance <= (1 - confidence) / 2
        return fallen, f"{said}; at least {floor:.1%} are wanted"


def failures_said(tally: Tally) -> str:
    """Say at how many rows a version failed."""
    if not tally.rows:
        return "no row was recorded"
    return f"it failed at {tally.failed} of {counted(tally.rows, 'row')}"


def _twice(count: int, there: int) -> int:
    """Double a number until it is more than what is there."""
    while count <= there:
        count *= 2
    return count


def looks(wanted: int) -> int:
    """Return how often labels are looked at until so many are there: each time at twice as many."""
    count, number = min(LEAST_LABELS, wanted), 1
    while count < wanted:
        count, number = count * 2, number + 1
    return number
