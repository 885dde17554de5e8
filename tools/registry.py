"""The registry: facts and actions by name, and the one way in which a fact becomes evidence."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from watchkeeper.tools.action import Action
from watchkeeper.tools.canonical import safe_json
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
            if isinstance(target.host, ConfinedHost) and target.host.was_cut:
                result = result.model_copy(update={"cut": True})
            dumped = safe_json(result.model_dump(mode="json"))
            digest = digest_json(dumped)
            findings = _labelled(fact, fact.findings(result, arguments))
        except (CollectError, OSError, ValueError, ArithmeticError) as error:
            return Evidence(
                id=id,
                fact=name,
                host=target.host.name,
                arguments=arguments.model_dump(mode="json"),
                result=None,
                error=_refused(name, error),
                provenance=fact.provenance,
                digest=digest_json(None),
                collected_at=collected_at,
                seconds=time.monotonic() - started,
            )
        return Evidence(
            id=id,
            fact=name,
            host=target.host.name,
            arguments=arguments.model_dump(mode="json"),
            result=dumped,
            findings=findings,
            provenance=fact.provenance,
            digest=digest,
            collected_at=collected_at,
            seconds=time.monotonic() - started,
        )


def _labelled(fact: AnyFact, findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Say of the findings of an untrusted fact which may be told as they are."""
    if fact.provenance is Provenance.TRUSTED or not fact.plain_findings:
        return tuple(findings)
    return tuple(f if f.told else f.model_copy(update={"told": f.text}) for f in findings)


def _refused(name: str, error: Exception) -> str:
    if isinstance(error, CollectError):
        return str(error)
    if not isinstance(error, OSError):
        said = " ".join(str(error).split())[:200]
        return f"{name}: what it read cannot be understood ({type(error).__name__}: {said})"
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
        place, message = explain_arguments(tool, error)
        named = ".".join(str(part) for part in place) or "arguments"
        raise ArgumentError(f"{tool.name}: {named}: {message}", place=place) from error
    return arguments


def explain_arguments(tool: AnyFact | AnyAction, error: ValidationError) -> tuple[tuple[int | str, ...], str]:
    """Say what is wrong first with the arguments of a tool, where, and what to write.

    An unknown argument goes before a missing one: it is mostly that one, misspelled.
    """
    errors = error.errors()
    first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    place = first["loc"]
    fields = {
        name: field
        for name, field in tool.arguments_type.model_fields.items()
        if not (isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("internal"))
    }
    if len(place) == 1 and first["type"] in {"extra_forbidden", "missing"}:
        taken = ", ".join(
            name if field.is_required() else f"{name} (may be left out)" for name, field in fields.items()
        )
        takes = f"it takes {taken}" if taken else "it takes none"
        if first["type"] == "missing":
            return place, f"missing; {takes} (see `watchkeeper tools show {tool.name}`)"
        near = get_close_matches(str(place[0]), fields, n=1)
        meant = f" (is {near[0]!r} meant?)" if near else ""
        return place, f"there is no such argument{meant}; {takes} (got {first['input']!r:.80})"
    return place, f"{first['msg'].removeprefix('Value error, ')} (got {first['input']!r:.80})"
