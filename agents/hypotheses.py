"""Hypotheses: the causes that some evidence supports, each with its subject and its support."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from watchkeeper.agents.case import Case
from watchkeeper.agents.causes import Cause
from watchkeeper.tools.findings import Finding
from watchkeeper.tools.passages import Trusted


@dataclass(frozen=True, slots=True)
class Support:
    """A finding and the evidence that it was made from."""

    evidence: str
    finding: Finding


def key_of(cause: str, subject: str) -> str:
    """Return the stable name of a cause with its subject."""
    return f"{cause}:{subject}"


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A cause with its subject.

    Attributes:
        cause: What may be wrong.
        subject: What it is said of.
        support: What speaks for it; never empty.
    """

    cause: Cause
    subject: str
    support: tuple[Support, ...]

    @property
    def key(self) -> str:
        """A stable name, so that it has its turn once."""
        return key_of(self.cause.id, self.subject)

    @property
    def text(self) -> str:
        """The hypothesis in words for people, continuing "The root cause is that"."""
        return self.cause.text.format(subject=self.subject)

    def told(self, case: Case) -> Trusted:
        """The same in words for agents with tools: a subject that strangers named is a stand-in."""
        return Trusted(self.cause.text.format(subject=case.subject(self.subject)))


def supported(causes: Sequence[Cause], case: Case, *, without: Iterable[str] = ()) -> tuple[Hypothesis, ...]:
    """Return the hypotheses that the evidence supports, in the order of the causes.

    Args:
        causes: What is known to go wrong.
        case: The evidence.
        without: Keys of hypotheses that had their turn.
    """
    found = [Support(evidence, finding) for evidence, finding in case.findings()]
    kinds = {item.finding.kind for item in found}
    tried = set(without)
    hypotheses: list[Hypothesis] = []
    for cause in causes:
        if any(kind not in kinds for kind in cause.requires):
            continue
        further = tuple(item for item in found if item.finding.kind in cause.strengthened_by)
        excluded = {item.finding.subject for item in found if item.finding.kind in cause.excluded_by}
        by_subject: dict[str, list[Support]] = {}
        for item in found:
            if item.finding.kind in cause.supported_by and item.finding.subject not in excluded:
                by_subject.setdefault(item.finding.subject, []).append(item)
        for subject, support in by_subject.items():
            hypothesis = Hypothesis(cause, subject, tuple(support) + further)
            elsewhere = cause.of_alerted and subject != case.service
            if hypothesis.key not in tried and not elsewhere:
                hypotheses.append(hypothesis)
    return tuple(hypotheses)


def shown_by_alert(hypotheses: Sequence[Hypothesis], case: Case) -> tuple[int, ...]:
    """Return the indices of the hypotheses that the alert's own condition shows, but for consequences.

    They have their turn first: a machine is busy, and a file was changed an hour ago, beside whatever else is
    wrong with it. A condition that only says that something fails shows none, and one whose words or readings
    are strangers' decides nothing.
    """
    alarms = case.alarms()
    return tuple(
        number
        for number, hypothesis in enumerate(hypotheses)
        if not hypothesis.cause.may_follow
        and any(
            (item.evidence, item.finding) in alarms and item.finding.kind in hypothesis.cause.supported_by
            for item in hypothesis.support
        )
    )


def giving_way(chosen: int, hypotheses: Sequence[Hypothesis], probabilities: Sequence[float]) -> int:
    """Return the index of what has its turn in place of the chosen: the cause whose remedies change less.

    Args:
        chosen: Index of the most probable hypothesis.
        hypotheses: What the evidence supports.
        probabilities: One for each of them.
    """
    passed = {chosen}
    while True:
        smaller = [
            number
            for number, hypothesis in enumerate(hypotheses)
            if number not in passed and hypothesis.cause.id in hypotheses[chosen].cause.gives_way_to
        ]
        if not smaller:
            return chosen
        chosen = max(smaller, key=lambda number: probabilities[number])
        passed.add(chosen)


@dataclass(frozen=True, slots=True)
class PutOff:
    """A hypothesis that has its turn later than another, by a rule and whatever their probabilities.

    Attributes:
        later: Which.
        first: What has its turn before it.
        why: In words.
    """

    later: Hypothesis
    first: Hypothesis
    why: str


def put_offs(
    chosen: Hypothesis, hypotheses: Sequence[Hypothesis], probabilities: Sequence[float], case: Case
) -> tuple[PutOff, ...]:
    """Apply the rules that put the model's choice off (design/0026); the last one's ``first`` has its turn.

    Args:
        chosen: What the model chose.
        hypotheses: What the evidence supports.
        probabilities: One for each of them.
        case: The evidence, and the alert's condition.
    """
    found: list[PutOff] = []
    turn = hypotheses.index(chosen)
    shown = shown_by_alert(hypotheses, case)
    if shown and turn not in shown:
        first = max(shown, key=lambda number: probabilities[number])
        why = "the alert's own condition shows another cause"
        found.append(PutOff(hypotheses[turn], hypotheses[first], why))
        turn = first
    smaller = giving_way(turn, hypotheses, probabilities)
    if smaller != turn:
        found.append(PutOff(hypotheses[turn], hypotheses[smaller], "what changes less has its turn first"))
    return tuple(found)
