"""The curator: what is done about a predictor that is not as it was. It is told numbers, never columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from watchkeeper.agents.agent import Agent
from watchkeeper.agents.decision import Decision
from watchkeeper.agents.prompts import trusted_prompt
from watchkeeper.models.interface import Cancellation, ChoiceRequest, Engine
from watchkeeper.tools.passages import Trusted, passage


class Course(StrEnum):
    """What can be done about a predictor that is not as it was."""

    WAIT = "wait"
    RETRAIN = "retrain"
    ESCALATE = "escalate"


ABOUT = {
    Course.WAIT: "to wait, because what was found is too little to act on",
    Course.RETRAIN: "to train a new version on newer data, because the old version no longer fits",
    Course.ESCALATE: "to call a person, because training again would not help",
}


@dataclass(frozen=True, slots=True)
class Situation:
    """What is known of a predictor; numbers only, since others chose the names of its columns.

    Attributes:
        predictor: Its name in the configuration.
        predictions: Predictions that were looked at.
        asked_shifted: Columns of what it was asked that shifted.
        answers_shifted: Columns of what it answered that shifted.
        labels: Labels that arrived.
        share: Share of answers that agree with them; None without labels.
        held_out: Share of right answers on held-out data; None where it is not known.
        worse: Whether it is worse than on held-out data, and no chance.
        fresh_rows: Rows that a new version would learn from; 0 where there are none.
        right_before: Share of right answers before the stream of labelled ones changed for the worse; None
            where it did not.
        right_since: Share of right ones since then.
        slower: How many times as long as at first its answers take; None where that is no more than they may.
        failing: Share of rows at which it fails; None where that is no more than it may.
    """

    predictor: Trusted
    predictions: int
    asked_shifted: int
    answers_shifted: int
    labels: int
    share: float | None
    held_out: float | None
    worse: bool
    fresh_rows: int
    right_before: float | None = None
    right_since: float | None = None
    slower: float | None = None
    failing: float | None = None

    def told(self) -> tuple[Trusted, ...]:
        """Say it to an agent."""
        said = [
            passage(
                "Predictor {name}: {asked} columns of what it is asked and {answers} of what it answers "
                "shifted over {count} predictions.",
                name=self.predictor,
                asked=self.asked_shifted,
                answers=self.answers_shifted,
                count=self.predictions,
            )
        ]
        if self.share is None:
            said.append(Trusted("No labels arrived, so it is not known whether its answers are still right."))
        elif self.held_out is None:
            said.append(
                passage(
                    "It is right in {share} % of {labels} labelled answers.",
                    share=round(100 * self.share),
                    labels=self.labels,
                )
            )
        else:
            said.append(
                passage(
                    "It is right in {share} % of {labels} labelled answers; it was right in {before} % when "
                    "it was made{sure}.",
                    share=round(100 * self.share),
                    labels=self.labels,
                    before=round(100 * self.held_out),
                    sure=Trusted(", so it is certainly worse now" if self.worse else ""),
                )
            )
        if self.right_before is not None and self.right_since is not None:
            said.append(
                passage(
                    "Since a change, {since} % of its labelled answers are right; before, {before} % were.",
                    since=round(100 * self.right_since),
                    before=round(100 * self.right_before),
                )
            )
        if self.slower is not None:
            said.append(
                passage("Its answers take {times} times as long as at first.", times=round(self.slower))
            )
        if self.failing is not None:
            said.append(passage("It fails at {share} % of rows.", share=round(100 * self.failing)))
        if self.fresh_rows:
            said.append(passage("There are {rows} newer labelled rows to learn from.", rows=self.fresh_rows))
        else:
            said.append(Trusted("There are no newer labelled rows to learn from."))
        return tuple(said)

    def courses(self, *, may_retrain: bool) -> tuple[Course, ...]:
        """Return what makes sense.

        Nobody waits where it is certainly worse or fails, and nobody retrains without data, or because it is
        slow or fails: what it learned has no part in that.
        """
        worse = self.worse or self.right_before is not None
        learns = self.fresh_rows > 0 and (worse or self.asked_shifted + self.answers_shifted > 0)
        return tuple(
            course
            for course, sensible in (
                (Course.RETRAIN, may_retrain and learns),
                (Course.WAIT, not worse and self.failing is None),
                (Course.ESCALATE, True),
            )
            if sensible
        )


def choose_course(
    engine: Engine,
    agent: Agent,
    situation: Situation,
    courses: Sequence[Course],
    *,
    cancel: Cancellation | None = None,
) -> tuple[Course, Decision]:
    """Choose what is done about a predictor.

    Args:
        engine: Who answers.
        agent: What it is told.
        situation: What is known.
        courses: What may be answered; not empty.
        cancel: Raised to end the question.
    """
    question = Trusted("What is the right thing to do?")
    messages = trusted_prompt(agent, *situation.told(), question)
    choice = engine.choose(
        ChoiceRequest(
            messages=messages,
            lead="The right thing to do is",
            options=tuple(Trusted(ABOUT[course]) for course in courses),
            neutral=trusted_prompt(agent, question),
        ),
        cancel=cancel,
    )
    decision = Decision.of_choice(
        choice,
        role=agent.title,
        question="What is done about a predictor that is not as it was?",
        messages=messages,
        evidence=(),
        identity=engine.identity,
    )
    return courses[choice.best], decision
