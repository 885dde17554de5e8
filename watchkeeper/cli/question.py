"""Showing a question to who answers it; nothing in it can steer a terminal or hide what is written."""

from __future__ import annotations

import json
from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from watchkeeper.cli.records import when
from watchkeeper.runtime.approval_types import ApprovalKind
from watchkeeper.runtime.question_view import Alternative, QuestionView
from watchkeeper.runtime.wording import visible

_LABEL = 13
_SHOWN = 4
_COLORS = {"+": "green", "-": "red"}


def question_lines(view: QuestionView) -> Iterator[tuple[str, str]]:
    """Say a question as names and texts, each text of one line; empty texts are left out."""
    for name, text in _pairs(view):
        for number, line in enumerate(text.splitlines() or [text]):
            if line.strip():
                yield (visible(name) if number == 0 else "", visible(line.replace("\t", "    ")))


def diff_lines(view: QuestionView) -> Iterator[tuple[str, str]]:
    """Yield the lines of the diff with their colour (or none)."""
    for line in view.diff.splitlines():
        yield _COLORS.get(line[:1], ""), visible(line.replace("\t", "    "))


def show_question(console: Console, view: QuestionView) -> None:
    """Write a question to a terminal or a file."""
    for name, text in question_lines(view):
        console.print(Text(f"{name:<{_LABEL}}  ", style="dim").append(text, style="none"), soft_wrap=True)
    for color, line in diff_lines(view):
        console.print(Text(line, style=color), soft_wrap=True)


def _pairs(view: QuestionView) -> Iterator[tuple[str, str]]:
    asked = view.approval
    yield "approval", asked.id
    yield "question", asked.summary
    yield "status", asked.status.value
    yield "incident", asked.incident_id
    yield "action", f"{view.action} (version {view.version}) on {view.host}"
    yield "arguments", ", ".join(f"{name}={_value(value)}" for name, value in view.arguments.items())
    sure = "" if view.probability is None else f" (probability {view.probability:.2f})"
    yield "why", f"{view.hypothesis}{sure}" if view.hypothesis else ""
    for claim in view.evidence:
        yield "evidence", f"{claim.text} [{', '.join(claim.evidence_ids)}]"
    for name, text in view.lines:
        # Under one name, so that no text of an action passes for what the policy or a person said.
        yield "says", f"{name}: {text}"
    yield "risk", view.risk
    yield "undo", f"{view.reversibility}: {view.undo}" if view.undo else view.reversibility
    yield "policy", f"tier {asked.tier}: {view.policy}" if view.policy else f"tier {asked.tier}"
    yield from _alternatives(view.alternatives)
    yield "asked by", f"{asked.requester} at {when(asked.requested_at)} UTC"
    if asked.quorum > 1:
        said = ", ".join(vote.by for vote in asked.votes) or "nobody yet"
        yield "people", f"{asked.quorum} must say yes; {said}"
    if asked.decided_by is None:
        if asked.kind is ApprovalKind.IN_DOUBT:
            yield "expires", f"never; its incident is handed over at {when(view.deadline)} UTC"
        else:
            yield "expires", f"{when(view.deadline)} UTC; silence is a no"
    else:
        own = " (who asked)" if asked.self_approved else ""
        yield "answer", f"{asked.answer} by {asked.decided_by} at {when(asked.decided_at)} UTC{own}"
    if asked.edited is not None:
        yield "edited to", ", ".join(f"{name}={_value(value)}" for name, value in asked.edited.items())
    yield "reason", asked.reason
    yield "digest", asked.digest


def _alternatives(options: tuple[Alternative, ...]) -> Iterator[tuple[str, str]]:
    for decision in dict.fromkeys(option.decision for option in options):
        of = [option for option in options if option.decision == decision]
        yield "considered", f"{of[0].question} ({decision})"
        for option in of[:_SHOWN]:
            yield "", f"{'>' if option.chosen else ' '} {option.probability:.2f} {option.text}"
        if len(of) > _SHOWN:
            yield "", f"  and {len(of) - _SHOWN} more"


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
