"""A small world for tests: a lamp that shines if its switch, bulb and fuse let it.

The parts are kept in a file that is only ever appended to, one line a change, by a command of its own: the
file is the state of the world and at the same time a witness, outside of any process under test, of how
often each change took place.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from watchkeeper import (
    ActionPlan,
    Agent,
    AgentRole,
    Alert,
    Cause,
    Finding,
    Inventory,
    Orchestrator,
    Outcome,
    ProbeAnswer,
    Result,
    ScriptedEngine,
    Settings,
    Severity,
    Target,
    Verification,
    action,
    fact,
)
from watchkeeper.agents.causes import FollowUp
from watchkeeper.models.interface import ChoiceRequest, Engine, GenerationRequest
from watchkeeper.runtime.leases import LEASE_SECONDS
from watchkeeper.tools.errors import ApplyError, PlanError, RollbackError
from watchkeeper.tools.fact import Arguments, Fact, Provenance, Raw
from watchkeeper.tools.registry import AnyAction, AnyFact

FACTS = frozenset({"lamp.light", "switch.position", "bulb.state", "fuse.state", "lamp.diary"})
GOOD = {"switch": "on", "bulb": "new", "fuse": "whole"}
ALERT = Alert.model_validate(
    {"title": "the lamp is dark", "host": "house", "condition": {"fact": "lamp.light"}}
)
INVENTORY = Inventory.model_validate({"hosts": [{"name": "house", "labels": {"environment": "test"}}]})
CAUSES = (
    Cause(
        id="switch-off",
        text="the switch was turned off",
        supported_by=("switch-odd",),
        remedies=("switch.set",),
    ),
    Cause(
        id="bulb-bad",
        text="the bulb does not shine any more",
        supported_by=("bulb-odd",),
        remedies=("bulb.replace",),
    ),
    Cause(
        id="fuse-blown",
        text="the fuse has blown",
        supported_by=("fuse-odd",),
        remedies=("fuse.bridge",),
    ),
)
SURGE = (
    Cause(
        id="surge",
        text="a surge went through all parts",
        supported_by=("switch-odd",),
        remedies=("switch.set",),
        follow_up=(
            (
                "switch.set",
                lambda *_: (FollowUp("bulb.replace", {}), FollowUp("fuse.replace", {})),
            ),
        ),
    ),
)
"""One cause, whose remedy takes three actions."""
AGENTS = (
    Agent(role=AgentRole.DIAGNOSTICIAN, instructions="You find out why a lamp is dark.", causes=CAUSES),
    Agent(role=AgentRole.INVESTIGATOR, instructions="You look at a lamp.", facts=FACTS),
)
ALLOW = """
version: 1
rules:
  - {name: all, match: {tools: ["*"]}, decision: allow, reason: a toy}
"""


class Light(Result):
    """Whether the lamp shines."""

    shines: bool


class Part(Result):
    """What a part is like."""

    value: str


class Diary(Result):
    """What people wrote about the lamp."""

    lines: tuple[str, ...]


class Lamp:
    """The world.

    Args:
        root: Folder that it lives in.
    """

    def __init__(self, root: Path) -> None:
        self.log = root / "parts.log"
        self.diary = root / "diary.txt"

    @classmethod
    def dark(cls, root: Path, **parts: str) -> Lamp:
        """Make a lamp whose parts are good but for the given ones."""
        lamp = cls(root)
        lamp.log.touch()
        for part, value in (GOOD | parts).items():
            lamp.put(part, value)
        return lamp

    def put(self, part: str, value: str) -> None:
        """Change a part, as somebody else would."""
        with self.log.open("a") as file:
            file.write(f"somebody {part} {value}\n")

    def parts(self) -> dict[str, str]:
        """Return what every part is like now."""
        return {part: value for _, part, value in self._lines()}

    def shines(self) -> bool:
        """Whether it shines."""
        parts = self.parts()
        return (
            parts["switch"] == "on"
            and parts["bulb"] in {"new", "dusty"}
            and parts["fuse"] == "whole"
            and "power" not in parts  # nobody looks after a power cut
        )

    def changes(self) -> Counter[str]:
        """Count the changes by who made them: the key of a step, ``undo-`` and the key, or ``somebody``."""
        return Counter(who for who, _, _ in self._lines())

    def change(self, target: Target, who: str, part: str, value: str) -> None:
        """Change a part by a command of its own, so that whoever asks for it may die meanwhile."""
        script = 'printf "%s %s %s\\n" "$1" "$2" "$3" >> "$4"'
        done = target.host.run(["sh", "-c", script, "sh", who, part, value, str(self.log)])
        if done.status:
            raise ApplyError(f"{part!r} cannot be changed: {done.stderr}")

    def _lines(self) -> list[tuple[str, str, str]]:
        lines = [line.split() for line in self.log.read_text().splitlines()]
        return [(who, part, value) for who, part, value in lines]

    def tools(self, *, knows: bool = True) -> tuple[AnyFact | AnyAction, ...]:
        """Return facts and actions about it.

        Args:
            knows: Whether the probes of its actions can tell what happened.
        """

        @fact("lamp.light", summary="whether the lamp shines", findings=_shining)
        def light(target: Target) -> Light:
            return Light(shines=self.shines())

        @fact("switch.position", summary="how the switch is set", findings=_odd("switch"))
        def switch(target: Target) -> Part:
            return Part(value=self.parts()["switch"])

        @fact("bulb.state", summary="how the bulb looks", findings=_odd("bulb"))
        def bulb(target: Target) -> Part:
            return Part(value=self.parts()["bulb"])

        @fact("fuse.state", summary="how the fuse looks", findings=_odd("fuse"))
        def fuse(target: Target) -> Part:
            return Part(value=self.parts()["fuse"])

        set_switch = action("switch.set", summary="set the switch", reversibility="reversible")
        replace = action("bulb.replace", summary="put in a new bulb", reversibility="reversible")
        exchange = action("fuse.replace", summary="put in a new fuse", reversibility="compensable")
        bridge = action("fuse.bridge", summary="bridge the fuse", reversibility="irreversible")
        return (
            light,
            switch,
            bulb,
            fuse,
            DiaryFact(self.diary),
            set_switch(_switch_setting(self, knows=knows)),
            replace(_replacing(self, "bulb", "new", knows=knows)),
            bridge(_replacing(self, "fuse", "whole", knows=knows)),
            exchange(_replacing(self, "fuse", "whole", knows=knows)),
        )


class DiaryFact(Fact[Arguments, Diary]):
    """Lines that anyone may have written."""

    name = "lamp.diary"
    summary = "what people wrote about the lamp"
    provenance = Provenance.UNTRUSTED
    arguments_type = Arguments
    result_type = Diary

    def __init__(self, path: Path) -> None:
        self._path = path

    def collect(self, target: Target, arguments: Arguments) -> Raw:
        return {"lines": self._path.read_text().splitlines() if self._path.exists() else []}

    def interpret(self, raw: Raw, arguments: Arguments) -> Diary:
        return Diary.model_validate(raw)

    def quotations(self, result: Diary) -> tuple[str, ...]:
        return result.lines

    def suspicious(self, result: Diary) -> tuple[str, ...]:
        return tuple(line for line in result.lines if "ignore" in line.lower())


def _shining(result: Light) -> Iterable[Finding]:
    if result.shines:
        yield Finding(kind="check-passing", subject="lamp", text="The lamp shines.")
    else:
        yield Finding(
            kind="check-failing", subject="lamp", text="The lamp is dark.", severity=Severity.CRITICAL
        )


def _odd(part: str) -> Callable[[Part], Iterable[Finding]]:
    def findings(result: Part) -> Iterable[Finding]:
        if result.value != GOOD[part]:
            text = f"The {part} is {result.value}."
            yield Finding(kind=f"{part}-odd", subject=part, text=text, severity=Severity.WARNING)

    return findings


def _replacing(lamp: Lamp, part: str, value: str, *, knows: bool) -> type[Any]:
    class Replacing:
        def plan(self, target: Target, key: str) -> ActionPlan:
            return _plan(lamp, key, part, value)

        def apply(self, target: Target, plan: ActionPlan) -> Outcome:
            return _apply(lamp, target, plan)

        def verify(self, target: Target, plan: ActionPlan) -> Verification:
            return _verify(lamp, plan)

        def probe(self, target: Target, plan: ActionPlan) -> ProbeAnswer:
            return _probe(lamp, plan) if knows else ProbeAnswer.UNKNOWN

        def rollback(self, target: Target, plan: ActionPlan) -> Outcome:
            return _rollback(lamp, target, plan)

    return Replacing


def _switch_setting(lamp: Lamp, *, knows: bool) -> type[Any]:
    class Setting(_replacing(lamp, "switch", "", knows=knows)):  # type: ignore[misc]  # a class made above
        def plan(self, target: Target, key: str, position: Literal["on", "off"]) -> ActionPlan:
            if lamp.parts()["switch"] == "stuck":
                raise PlanError("the switch is stuck")
            return _plan(lamp, key, "switch", position)

    return Setting


def _plan(lamp: Lamp, key: str, part: str, value: str) -> ActionPlan:
    before = lamp.parts()[part]
    return ActionPlan(
        key=key,
        summary=f"make the {part} {value}",
        diff="" if before == value else f"-{part}: {before}\n+{part}: {value}",
        preconditions={part: before},
        details={"part": part, "before": before, "after": value},
        risk="sparks",
    )


def _apply(lamp: Lamp, target: Target, plan: ActionPlan) -> Outcome:
    part, after = str(plan.details["part"]), str(plan.details["after"])
    jinx = lamp.parts().get("jinx")
    if jinx == part:
        lamp.change(target, plan.key, part, "cracked")
    if jinx in {part, "yes"}:
        raise ApplyError(f"the {part} broke off")
    lamp.change(target, plan.key, part, after)
    return Outcome(detail=f"the {part} is {after}", changed=(part,))


def _verify(lamp: Lamp, plan: ActionPlan) -> Verification:
    part, after = str(plan.details["part"]), plan.details["after"]
    return Verification(ok=lamp.parts()[part] == after, detail=f"the {part} is {lamp.parts()[part]}")


def _probe(lamp: Lamp, plan: ActionPlan) -> ProbeAnswer:
    return ProbeAnswer.DONE if lamp.changes()[plan.key] else ProbeAnswer.NOT_DONE


def _rollback(lamp: Lamp, target: Target, plan: ActionPlan) -> Outcome:
    part, before = str(plan.details["part"]), str(plan.details["before"])
    if lamp.parts().get("glued") == part:
        raise RollbackError(f"the {part} is glued in")
    if lamp.parts()[part] != before:
        lamp.change(target, f"undo-{plan.key}", part, before)
    return Outcome(detail=f"the {part} is {before} again", changed=(part,))


@contextmanager
def folder_in_memory() -> Iterator[Path]:
    """Make a folder whose files need no disk, where there is one: hundreds of syncs cost nothing there."""
    memory = Path("/dev/shm")
    usable = memory.is_dir() and os.access(memory, os.W_OK)
    with tempfile.TemporaryDirectory(prefix="wk-", dir=memory if usable else None) as folder:
        yield Path(folder)


def prefers(*causes: str, **answers: Any) -> ScriptedEngine:
    """Return an engine that prefers causes in this order, and fills in sensible arguments.

    Args:
        *causes: Parts of the causes' texts, the most probable first.
        **answers: ``generate``: arguments by action, where others are wanted.
    """
    filled = {"switch.set": {"position": "on"}} | answers.get("generate", {})

    def choose(request: ChoiceRequest) -> int | None:
        if request.lead != "The root cause is that":
            return None
        ranked = [i for cause in causes for i, text in enumerate(request.options) if cause in text]
        return ranked[0] if ranked else None

    def generate(request: GenerationRequest) -> dict[str, Any] | None:
        return filled.get(request.tool_choice)

    return ScriptedEngine(choose=choose, generate=generate)


def orchestrator(
    home: Path,
    lamp: Lamp,
    engine: Engine,
    *,
    requester: str = "ann",
    token: str | None = None,
    rules: str | None = None,
    knows: bool = True,
    lease_seconds: float = LEASE_SECONDS,
    causes: tuple[Cause, ...] = CAUSES,
    escalation: str | None = None,
    inventory: Inventory = INVENTORY,
    **settings: Any,
) -> Orchestrator:
    """Return an orchestrator of the lamp that does not wait where nothing is to be waited for."""
    path = home.with_name("policy.yaml")
    if rules is not None:
        path.write_text(rules)
    called = home.with_name("escalation.yaml")
    if escalation is not None:
        called.write_text(escalation)
    values: dict[str, Any] = {"settle_seconds": 0, "reading_pause_seconds": 0} | settings
    return Orchestrator(
        inventory=inventory,
        engine=engine,
        tools=lamp.tools(knows=knows),
        agents=(replace(AGENTS[0], causes=causes), *AGENTS[1:]),
        policy=None if rules is None else path,
        escalation=None if escalation is None else called,
        settings=Settings(home=home, **values),
        requester=None if token else requester,
        token=token,
        lease_seconds=lease_seconds,
    )
