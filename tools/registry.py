"""The registry: facts and actions by name, and the one way in which a fact becomes evidence."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from watchkeeper.tools.action import Action
from watchkeeper.tools.confined import ConfinedHost
from watchkeeper.tools.enforcement import check_enforceable
from watchkeeper.tools.errors import ArgumentError, CollectError, UnknownToolError
from watchkeeper.tools.evidence import Evidence, digest_json
from watchkeeper.tools.fact import Arguments, Fact, Provenance
from watchkeeper.tools.findings import Finding
from watchkeeper.tools.host import Target

AnyFact = Fact[Any, Any]
AnyAction = Action[Any]


class Registry:
    """Facts and actions by name."""

    def __init__(self, tools: Iterable[AnyFact | AnyAction] = ()) -> None:
        self._facts: dict[str, AnyFact] = {}
        self._actions: dict[str, AnyAction] = {}
        for tool in tools:
            self.add(tool)

    def add(self, tool: AnyFact | AnyAction) -> None:
        """Register a fact or an action.

        Raises:
            ValueError: If the name is taken.
            UnenforceableError: If no grammar can keep a model to the tool's arguments.
        """
        if tool.name in self._facts or tool.name in self._actions:
            raise ValueError(f"a tool named {tool.name!r} is registered already")
        check_enforceable(tool)
        if isinstance(tool, Fact):
            self._facts[tool.name] = tool
        else:
            self._actions[tool.name] = tool

    @property
    def facts(self) -> tuple[AnyFact, ...]:
        """All facts, in the order of registration."""
        return tuple(self._facts.values())

    @property
    def actions(self) -> tuple[AnyAction, ...]:
        """All actions, in the order of registration."""
        return tuple(self._actions.values())

    def fact(self, name: str) -> AnyFact:
        """Return a fact.

        Raises:
            UnknownToolError: If there is none of that name.
        """
        if name not in self._facts:
            raise UnknownToolError(f"fact {name!r} is not registered (known: {', '.join(self._facts)})")
        return self._facts[name]

    def action(self, name: str) -> AnyAction:
        """Return an action.

        Raises:
            UnknownToolError: If there is none of that name.
        """
        if name not in self._actions:
            raise UnknownToolError(f"action {name!r} is not registered (known: {', '.join(self._actions)})")
        return self._actions[name]

    def gather(
        self,
        name: str,
        target: Target,
        values: dict[str, Any],
        *,
        id: str,  # noqa: A002
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> Evidence:
        """Call a fact and keep what came of it; a host that cannot be read is evidence too.

        Raises:
            UnknownToolError: If there is no such fact.
            ArgumentError: If the arguments are not valid.
        """
        fact = self.fact(name)
        arguments = parse(fact, values)
        target = replace(target, host=ConfinedHost.around(target.host, network=fact.network))
        started = time.monotonic()
        collected_at = now()
        try:
            result = fact.interpret(fact.collect(target, arguments), arguments)
        except (CollectError, OSError) as error:
            return Evidence(
                id=id,
                fact=name,
                host=target.host.name,
                arguments=arguments.model_dump(mode="json"),
                result=None,
                error=str(error) if isinstance(error, CollectError) else _refused(name, error),
                provenance=fact.provenance,
                digest=digest_json(None),
                collected_at=collected_at,
                seconds=time.monotonic() - started,
            )
        if isinstance(target.host, ConfinedHost) and target.host.was_cut:
            result = result.model_copy(update={"cut": True})
        dumped = result.model_dump(mode="json")
        return Evidence(
            id=id,
            fact=name,
            host=target.host.name,
            arguments=arguments.model_dump(mode="json"),
            result=dumped,
            findings=_labelled(fact, fact.findings(result, arguments)),
            provenance=fact.provenance,
            digest=digest_json(dumped),
            collected_at=collected_at,
            seconds=time.monotonic() - started,
        )


def _labelled(fact: AnyFact, findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Say of the findings of an untrusted fact which may be told as they are."""
    if fact.provenance is Provenance.TRUSTED or not fact.plain_findings:
        return tuple(findings)
    return tuple(f if f.told else f.model_copy(update={"told": f.text}) for f in findings)


def _refused(name: str, error: OSError) -> str:
    what = f": {error.filename!r}" if error.filename else ""
    return f"{name}: {error.strerror or type(error).__name__}{what}"


def parse(tool: AnyFact | AnyAction, values: dict[str, Any]) -> Arguments:
    """Validate the arguments of a tool.

    Raises:
        ArgumentError: With the value and the place, if they are not valid.
    """
    try:
        arguments: Arguments = tool.parse_arguments(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "arguments"
        raise ArgumentError(f"{tool.name}: {place}: {first['msg']} (got {first['input']!r:.80})") from error
    return arguments
