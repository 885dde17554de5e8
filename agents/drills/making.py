"""Making drills: a root cause with what shows it, among causes for which less speaks."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from watchkeeper.agents.agent import DIAGNOSTICIAN, Agent
from watchkeeper.agents.case import Case
from watchkeeper.agents.causes import Cause
from watchkeeper.agents.diagnostician import diagnosis_request
from watchkeeper.agents.drills.held_out_kinds import HELD_OUT_KINDS, HELD_OUT_WORDS
from watchkeeper.agents.drills.kinds import FaultKind, Words
from watchkeeper.agents.drills.training_kinds import TRAINING_KINDS, TRAINING_WORDS
from watchkeeper.agents.hypotheses import supported
from watchkeeper.models.calibration_cases import LabelledCase
from watchkeeper.tools.evidence import Evidence
from watchkeeper.tools.fact import Provenance
from watchkeeper.tools.findings import Finding, FindingKind, Severity
from watchkeeper.tools.inventory import HostSpec, Service, Systemd
from watchkeeper.tools.passages import Trusted

_WRONG_CAUSES = (1, 2, 2, 3, 3, 4)
"""How many causes less speaks for; the number is drawn from these."""

_UNTOLD_SHARE = 0.5
"""Share of wrong causes that something normal supports, as in incidents: nothing is told for them."""

_TWO_SIGNS = 0.4
_STOPPED_SHARE = 0.5
_CRITICAL_SHARE = 0.65
_FALSE_ALARM_SHARE = 0.08
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


def drills(
    count: int, *, seed: int = 0, held_out: bool = False, agent: Agent = DIAGNOSTICIAN
) -> tuple[LabelledCase, ...]:
    """Make questions for the root cause, each with its answer.

    Held-out ones share no kind of fault, no wording and no name with the others: what is right about them
    was learned about faults and not from their texts.

    Args:
        count: How many.
        seed: Decides on everything.
        held_out: Whether they are for judging.
        agent: Who will be asked.
    """
    rng = random.Random(f"{seed} {held_out}")
    kinds, words = (HELD_OUT_KINDS, HELD_OUT_WORDS) if held_out else (TRAINING_KINDS, TRAINING_WORDS)
    order: list[FaultKind] = []
    weighed = [kind for kind in kinds for _ in range(kind.weight)]
    while len(order) < count:
        order += rng.sample(weighed, len(weighed))
    made: list[LabelledCase] = []
    while len(made) < count:
        drill = _drill(rng, order[len(made)], kinds, words, agent, held_out=held_out)
        if drill is not None:
            made.append(drill)
    return tuple(made)


@dataclass(frozen=True, slots=True)
class _Scene:
    """Where a drill takes place."""

    rng: random.Random
    names: dict[str, str]

    @classmethod
    def draw(cls, rng: random.Random, words: Words) -> _Scene:
        service, other = rng.sample(words.services, 2)
        names = {
            "service": service,
            "other": other,
            "host": rng.choice(words.hosts),
            "port": str(rng.randint(1024, 32000)),
        }
        names["mount"] = rng.choice(words.mounts).format_map(names)
        names["config"] = rng.choice(words.configs).format_map(names)
        return cls(rng, names)

    def say(self, text: str) -> str:
        """Fill the places of a text; numbers are drawn anew each time."""
        rng = self.rng
        return text.format_map(
            self.names
            | {
                "pid": str(rng.randint(300, 40_000)),
                "few": str(rng.randint(2, 9)),
                "many": str(rng.randint(11, 98)),
                "high": str(rng.randint(93, 100)),
                "middle": str(rng.randint(35, 78)),
                "just": rng.choice(("{} seconds", "{} minutes")).format(rng.randint(2, 58)),
                "long": rng.choice(("{} hours", "{} days", "{} weeks")).format(rng.randint(3, 19)),
            }
        )

    @property
    def host(self) -> HostSpec:
        """The host as an inventory has it."""
        return HostSpec(
            name=self.names["host"],
            services=(
                Service(
                    name=self.names["service"],
                    supervisor=Systemd(kind="systemd"),
                    config=(Path(self.names["config"]),),
                    data=(Path(self.names["mount"]),),
                ),
                Service(name=self.names["other"], supervisor=Systemd(kind="systemd")),
            ),
        )


def _drill(
    rng: random.Random,
    root: FaultKind,
    kinds: Sequence[FaultKind],
    words: Words,
    agent: Agent,
    *,
    held_out: bool,
) -> LabelledCase | None:
    """Draw one; None where nothing speaks for any other cause, so that there is no choice."""
    scene = _Scene.draw(rng, words)
    # What needs a failing check is no cause where it passes.
    others = [
        kind
        for kind in kinds
        if kind is not root and kind.weak and not (root.passes and kind.cause and kind.cause.requires)
    ]
    wrong = rng.sample(others, rng.choice(_WRONG_CAUSES))
    causes = {kind.id: _cause(rng, kind) for kind in (root, *wrong)}
    findings = [_check(scene, words, passes=root.passes)]
    findings += [
        _finding(scene, causes[root.id], root.subject, text, _severity(rng, _CRITICAL_SHARE))
        for text in rng.sample(root.strong, 2 if len(root.strong) > 1 and rng.random() < _TWO_SIGNS else 1)
        if text
    ]
    findings += [
        _finding(
            scene,
            causes[kind.id],
            kind.weak_subject or kind.subject,
            "" if rng.random() < _UNTOLD_SHARE else rng.choice(kind.weak),
            _severity(rng, _FALSE_ALARM_SHARE),
        )
        for kind in wrong
    ]
    if root.stops and rng.random() < _STOPPED_SHARE:
        stopped = words.stopped_cause
        causes[stopped.id] = stopped
        findings.append(_finding(scene, stopped, "{service}", rng.choice(words.stopped), Severity.CRITICAL))
    findings += [
        Finding(kind=FindingKind.CUSTOM, subject="", text=scene.say(text), severity=Severity.WARNING)
        for text in rng.sample(words.noise, rng.randint(0, 2))
    ]
    rng.shuffle(findings)
    case = Case(
        host=scene.host,
        service=scene.names["service"],
        condition=Trusted(scene.say(rng.choice(words.alerts))),
        evidence=tuple(_evidence(scene, number, finding) for number, finding in enumerate(findings)),
    )
    known = list(causes.values())
    rng.shuffle(known)
    hypotheses = supported(known, case)
    if len(hypotheses) < 2:
        return None
    subject = scene.names["service"] if root.passes else scene.say(root.subject)
    (right,) = (
        hypothesis
        for hypothesis in hypotheses
        if hypothesis.cause.id == causes[root.id].id and (root.passes or hypothesis.subject == subject)
    )
    request = diagnosis_request(agent, case, hypotheses)
    return LabelledCase.of(request, right.told(case), topic=root.id, held_out=held_out)


def _cause(rng: random.Random, kind: FaultKind) -> Cause:
    return kind.cause or Cause(id=kind.id, text=rng.choice(kind.texts), supported_by=(kind.id,))


def _severity(rng: random.Random, critical: float) -> Severity:
    return Severity.CRITICAL if rng.random() < critical else Severity.WARNING


def _check(scene: _Scene, words: Words, *, passes: bool) -> Finding:
    if passes:
        kind, texts, severity = FindingKind.CHECK_PASSING, words.passing, Severity.NORMAL
    else:
        kind, texts, severity = FindingKind.CHECK_FAILING, words.failing, Severity.CRITICAL
    return Finding(kind=kind, subject="the check", text=scene.say(scene.rng.choice(texts)), severity=severity)


def _finding(scene: _Scene, cause: Cause, subject: str, text: str, severity: Severity) -> Finding:
    said = scene.say(text or "service {service} is running for {long}")
    return Finding(
        kind=cause.supported_by[0],
        subject=scene.say(subject),
        text=said,
        severity=severity if text else Severity.NORMAL,
    )


def _evidence(scene: _Scene, number: int, finding: Finding) -> Evidence:
    return Evidence(
        id=f"E{number + 1}",
        fact="drill",
        host=scene.names["host"],
        arguments={"number": number},
        result=None,
        findings=(finding,),
        provenance=Provenance.TRUSTED,
        digest="",
        collected_at=_EPOCH,
        seconds=0.0,
    )
