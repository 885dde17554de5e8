"""Closed questions with known answers, to find out how often a model is right when it is sure.

None of them is about a machine that is there. The built-in ones are made from ``calibration_faults``; a site
can bring its own, one JSON object a line.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from watchkeeper.models.calibration_faults import AREAS, FAULTS, Fault
from watchkeeper.models.errors import CalibrationError
from watchkeeper.models.interface import ChoiceRequest, Message, Role, system, user

_FEWEST, _MOST = 4, 6
_HOSTS = ("ares", "bora", "cedar", "delta", "ember", "fjord", "gale", "heron")
_HELD_OUT_SHARE = 3

Text = Annotated[str, Field(min_length=1)]


class LabelledCase(BaseModel):
    """A closed question with its answer; also a line of a file of cases.

    Attributes:
        system: What the model is told to be; may be empty.
        question: What it is asked, evidence included.
        neutral: The same without evidence, where the question is to be asked so too.
        lead: Beginning of the answer.
        options: What it may answer.
        answer: The option that is right.
        topic: What the case is about. Cases of one topic are never on both sides of a cross-validation.
        held_out: Whether it only judges a calibration and is never fitted; of a file in which no case is,
            every third topic.
        neutral_weight: Share of the neutral log-probability that agents take off; a calibration fits its own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    system: str = ""
    question: Text
    neutral: Text | None = None
    lead: str = ""
    options: tuple[Text, ...] = Field(min_length=2)
    answer: str
    topic: str = ""
    held_out: bool = False
    neutral_weight: float = Field(default=1.0, ge=0, le=2)

    @classmethod
    def of(
        cls, request: ChoiceRequest, answer: str, *, topic: str = "", held_out: bool = False
    ) -> LabelledCase:
        """Make a case of a question that is one system turn, if any, and one user turn.

        Raises:
            ValueError: If it has other turns.
        """
        told, question = _turns(request.messages)
        neutral = None if request.neutral is None else _turns(request.neutral)[1]
        return cls(
            system=told,
            question=question,
            neutral=neutral,
            lead=request.lead,
            options=request.options,
            answer=answer,
            topic=topic,
            held_out=held_out,
            neutral_weight=request.neutral_weight,
        )

    @property
    def label(self) -> int:
        """Index of the right option."""
        return self.options.index(self.answer)

    def request(self, *, neutral: bool = False) -> ChoiceRequest:
        """The question as an engine is asked it, with or without its evidence."""
        said = self.neutral if neutral else self.question
        before = (system(self.system),) if self.system else ()
        return ChoiceRequest((*before, user(said or "")), self.lead, self.options)

    def corrected(self, adapter: str | None = None) -> ChoiceRequest:
        """The question with and without its evidence at once, as agents ask it."""
        neutral = None if self.neutral is None else self.request(neutral=True).messages
        return replace(self.request(), neutral=neutral, neutral_weight=self.neutral_weight, adapter=adapter)


@dataclass(frozen=True, slots=True)
class _Frame:
    """One way to put a question."""

    system: str
    opening: str
    seen: str
    question: str
    lead: str


# Of each kind of question the last frame is held out.
_CAUSES = (
    _Frame(
        "You help an operations team to understand what broke.",
        "Something is wrong with {a}.",
        "Seen so far:",
        "Which of these explains it?",
        "This happened because",
    ),
    _Frame(
        "You explain faults of computer systems in one sentence.",
        "Ticket about {a}:",
        "Notes:",
        "Why did this happen?",
        "The explanation is that",
    ),
    _Frame(
        "You are an experienced administrator.",
        "{a} does not work as it should.",
        "What we know:",
        "What is behind this?",
        "I am fairly certain that",
    ),
)
_LOOKS = (
    _Frame(
        "You help an operations team to investigate.",
        "Something is wrong with {a}.",
        "Seen so far:",
        "What should be looked at first?",
        "Look first at",
    ),
    _Frame(
        "You decide which check comes next.",
        "Ticket about {a}:",
        "Notes:",
        "Which check tells most?",
        "The check that tells most is",
    ),
    _Frame(
        "You are an experienced administrator.",
        "{a} does not work as it should.",
        "What we know:",
        "Where do we begin?",
        "I would begin with",
    ),
)
_AREAS = (
    _Frame(
        "You sort reports by the team that must handle them.",
        "Report from {a}.",
        "Content:",
        "Which team is it for?",
        "This is for the team of",
    ),
    _Frame(
        "You label log lines.",
        "Log of {a}, in part.",
        "Lines:",
        "What are these lines about?",
        "They are about",
    ),
    _Frame(
        "You route tickets.",
        "A ticket arrived for {a}.",
        "Body:",
        "Where does the ticket go?",
        "It goes to",
    ),
)


def built_in_cases(seed: int = 0) -> tuple[LabelledCase, ...]:
    """Make the built-in cases: of every fault the cause, and in turns what to look at and whom it is for.

    Two wordings of everything are fitted, a third is held out, so that no text but the names of hosts is on
    both sides.

    Args:
        seed: Decides on names, wrong options and their order.
    """
    rng = random.Random(seed)
    return tuple(_made(rng))


def read_cases(path: Path, *, part: bool = True) -> tuple[LabelledCase, ...]:
    """Read cases from a file of JSON lines; see :class:`LabelledCase` for their fields.

    Args:
        path: The file.
        part: Whether every third topic is held out where no case is marked so.

    Raises:
        CalibrationError: If it cannot be read, or a line is no case; the line is named.
    """
    try:
        # Not by `splitlines`: JSON may hold other line separators as they are.
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CalibrationError(f"{path} cannot be read: {error}") from error
    cases: list[LabelledCase] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            case = LabelledCase.model_validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise CalibrationError(f"{path} line {number}: {place or 'case'}: {first['msg']}") from None
        if len(set(case.options)) != len(case.options) or not all(map(str.strip, case.options)):
            raise CalibrationError(f"{path} line {number}: options must be distinct and not blank")
        if case.answer not in case.options:
            raise CalibrationError(f"{path} line {number}: answer {case.answer!r} is none of the options")
        cases.append(case if case.topic else case.model_copy(update={"topic": f"line {number}"}))
    return _with_held_out(cases) if part else tuple(cases)


def digest_of(cases: Sequence[LabelledCase]) -> str:
    """SHA-256 over cases, in their order."""
    said = (case.model_dump_json(exclude={"neutral_weight"}) for case in cases)
    return hashlib.sha256("\n".join(said).encode()).hexdigest()


def _turns(messages: Sequence[Message]) -> tuple[str, str]:
    match [(message.role, message.content) for message in messages]:
        case [(Role.USER, question)]:
            return "", question
        case [(Role.SYSTEM, told), (Role.USER, question)]:
            return told, question
    raise ValueError("a case has at most one system turn, and one user turn")


def _with_held_out(cases: Sequence[LabelledCase]) -> tuple[LabelledCase, ...]:
    if any(case.held_out for case in cases):
        return tuple(cases)
    topics = list(dict.fromkeys(case.topic for case in cases))
    chosen = set(topics[_HELD_OUT_SHARE - 1 :: _HELD_OUT_SHARE])
    return tuple(case.model_copy(update={"held_out": case.topic in chosen}) for case in cases)


def _made(rng: random.Random) -> Iterator[LabelledCase]:
    for number, fault in enumerate(FAULTS):
        for wording in range(len(fault.signs)):
            held_out = wording == len(fault.signs) - 1
            version = 1 if held_out else 0
            topic = fault.causes[0]
            causes = [other.causes[version] for other in _others(rng, fault)]
            yield _case(rng, _CAUSES, wording, fault, fault.causes[version], causes, topic)
            if (number + wording) % 2:
                looks = [other.looks[version] for other in _others(rng, fault)]
                yield _case(rng, _LOOKS, wording, fault, fault.looks[version], looks, topic)
            else:
                areas = [names[version] for area, names in AREAS.items() if area != fault.area]
                rng.shuffle(areas)
                yield _case(rng, _AREAS, wording, fault, AREAS[fault.area][version], areas, topic)


def _others(rng: random.Random, fault: Fault) -> list[Fault]:
    """Wrong faults in an order in which those of the same area come early."""
    near = [other for other in FAULTS if other.area == fault.area and other is not fault]
    far = [other for other in FAULTS if other.area != fault.area]
    rng.shuffle(near)
    rng.shuffle(far)
    return near[:2] + far[: _MOST - 1]


def _case(
    rng: random.Random,
    frames: Sequence[_Frame],
    wording: int,
    fault: Fault,
    answer: str,
    wrong: Sequence[str],
    topic: str,
) -> LabelledCase:
    frame = frames[min(wording, len(frames) - 1)]
    first, second = rng.sample(_HOSTS, 2)
    names = {"{a}": first, "{b}": second}
    options = [answer, *wrong[: rng.randint(_FEWEST, _MOST) - 1]]
    rng.shuffle(options)

    def asked(signs: Sequence[str]) -> str:
        # The options are not listed: a small model then repeats the first of a list, whatever it saw.
        text = "\n".join([frame.opening, frame.seen, *(f"- {sign}" for sign in signs), frame.question])
        # Not str.format: the lines of a log have braces of their own.
        for name, host in names.items():
            text = text.replace(name, host)
        return text

    return LabelledCase(
        system=frame.system,
        question=asked(fault.signs[wording]),
        neutral=asked(["none"]),
        lead=frame.lead,
        options=tuple(options),
        answer=answer,
        topic=topic,
        held_out=wording == len(fault.signs) - 1,
    )
