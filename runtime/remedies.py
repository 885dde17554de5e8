"""Remedies: which actions may mend a hypothesis, with the values that evidence and inventory admit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import JsonValue

from watchkeeper.agents import Case, FactCall, Hypothesis
from watchkeeper.agents.remediator import Remedial
from watchkeeper.models.interface import ToolSpec
from watchkeeper.runtime.context import Context
from watchkeeper.runtime.policy import Policy
from watchkeeper.tools.errors import ArgumentError
from watchkeeper.tools.evidence import Evidence
from watchkeeper.tools.inventory import HostSpec
from watchkeeper.tools.narrowing import without_denied
from watchkeeper.tools.passages import Trusted, passage, stand_in
from watchkeeper.tools.registry import AnyAction
from watchkeeper.tools.schema import Vocabulary, argument_schema, open_arguments, vocabulary_of, words_of


def examinations(context: Context, spec: HostSpec, hypothesis: Hypothesis) -> tuple[FactCall, ...]:
    """Return the facts that must be read before a remedy can be filled in."""
    calls: list[FactCall] = []
    for name, values in hypothesis.cause.examine(spec, hypothesis.subject):
        fact = context.site.registry.fact(name)
        arguments = fact.parse_arguments(values)
        calls.append(
            FactCall(fact=name, arguments=arguments.model_dump(mode="json"), about=fact.describe(arguments))
        )
    return tuple(calls)


def narrowed_vocabulary(
    context: Context, spec: HostSpec, hypothesis: Hypothesis, evidence: tuple[Evidence, ...]
) -> dict[str, list[str]]:
    """Return the values that the arguments of a remedy may take.

    The inventory's values and what facts offer that were read on this host (log-like files that were found,
    processes that were seen), narrowed to the hypothesis' subject where that is one of them, or to what lies
    below it. Where a fact that the cause examines offers values of a kind, no other fact's are taken. Every
    vocabulary is there: one that nothing offers is empty, and never means "anything".
    """
    values: dict[str, list[str]] = {name: [] for name in get_args(Vocabulary)} | vocabulary_of(spec)
    examined = {name for name, _ in hypothesis.cause.examine(spec, hypothesis.subject)}
    offered: list[tuple[bool, str, list[str]]] = []
    for item in evidence:
        if (
            item.result is None
            or item.host != spec.name
            or item.fact not in {fact.name for fact in context.site.registry.facts}
        ):
            continue
        fact = context.site.registry.fact(item.fact)
        for name, found in fact.offers(fact.result_type.model_validate(item.result)).items():
            offered.append((item.fact in examined, name, found))
    # Who holds a port is no answer to who keeps the processors busy.
    asked_for = {name for is_examined, name, _ in offered if is_examined}
    for is_examined, name, found in offered:
        if is_examined or name not in asked_for:
            known = values.setdefault(name, [])
            known += [value for value in found if value not in known]
    for name, known in values.items():
        if hypothesis.subject in known:
            values[name] = [hypothesis.subject]
            continue
        below = [value for value in known if value.startswith(hypothesis.subject.rstrip("/") + "/")]
        values[name] = below or known
    return values


def remedies(context: Context, spec: HostSpec, hypothesis: Hypothesis, case: Case) -> tuple[Remedial, ...]:
    """Return the actions that may mend a hypothesis, without what is always denied on its host.

    An action is offered only where each of its arguments can be chosen from a closed set: one that needs
    anything else, or a value that nothing offers, is left out, and an argument that may be left out is.
    Values that others named stand in the schema of the call as stand-ins.
    """
    evidence = case.evidence
    vocabulary = narrowed_vocabulary(context, spec, hypothesis, evidence)
    stands_for = {
        str(stand_in(value, case.names)): value
        for values in vocabulary.values()
        for value in values
        if value in case.names and value not in words_of(spec)
    }
    told = {
        name: [next((s for s, real in stands_for.items() if real == value), value) for value in values]
        for name, values in vocabulary.items()
    }
    found: list[Remedial] = []
    for name in hypothesis.cause.remedies:
        if not context.team.may_propose(name):
            continue
        action = context.site.registry.action(name)
        if not context.site.policy.allows_ever(action, spec):
            continue
        try:
            narrowed = closed(name, sayable(context.site.policy, action, spec, told, stands_for=stands_for))
        except ArgumentError:
            continue
        found.append(
            Remedial(
                spec=ToolSpec(name=name, description=action.summary, parameters=argument_schema(action)),
                narrowed=_at_most_once(narrowed),
                about=_about(action.summary, narrowed, case, hypothesis.subject, stands_for),
                names=stands_for,
            )
        )
    return tuple(found)


def sayable(
    policy: Policy,
    action: AnyAction,
    spec: HostSpec,
    vocabulary: Mapping[str, Sequence[str]],
    *,
    stands_for: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the schema of an action without the values that the policy denies at every moment.

    Args:
        policy: What may be done.
        action: The action.
        spec: Where.
        vocabulary: The values known, by vocabulary name.
        stands_for: What a stand-in among them stands for: the policy is asked about that.

    Raises:
        ArgumentError: If an argument has no value left.
    """
    meant = stands_for or {}

    def real(value: JsonValue) -> JsonValue:
        return meant.get(value, value) if isinstance(value, str) else value

    return without_denied(
        action,
        argument_schema(action, vocabulary),
        admits=lambda name, value: policy.allows_ever(action, spec, {name: real(value)}),
        admits_element=lambda name, value: policy.allows_element(action, spec, name, real(value)),
    )


def closed(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an action without the arguments that a model would have to make up.

    Raises:
        ArgumentError: If one of them cannot be left out.
    """
    made_up = open_arguments(schema)
    for argument in made_up:
        if argument in schema["required"]:
            raise ArgumentError(
                f"{name}: {argument}: nothing to choose from (it is neither of a vocabulary, nor a list of "
                "values, nor a number between two bounds)"
            )
    return schema | {"properties": {k: v for k, v in schema["properties"].items() if k not in made_up}}


def _about(
    summary: str, narrowed: dict[str, Any], case: Case, subject: str, stands_for: Mapping[str, str]
) -> Trusted:
    """Say what an action would do, and to what where that is sure: its only value, or the subject.

    A subject that the call cannot name is not said: a process is not ended "on" the host that is short of
    memory, and no service is restarted by the name of one.
    """
    values = [
        value
        for name, part in narrowed["properties"].items()
        if name in narrowed["required"]
        for value in part.get("enum") or part.get("items", {}).get("enum", [])
    ]
    below = subject.rstrip("/") + "/"
    shown = case.subject(subject)
    if str(shown) in values or any(
        stands_for.get(str(value), str(value)).startswith(below) for value in values
    ):
        return passage("{summary}: {subject}", summary=Trusted(summary), subject=shown)
    if len(values) == 1:
        # It is the inventory's, a stand-in, or numbers: the vocabulary was told without others' names.
        return passage("{summary}: {value}", summary=Trusted(summary), value=Trusted(str(values[0])))
    return Trusted(summary)


def _at_most_once(schema: dict[str, Any]) -> dict[str, Any]:
    """Let a list of known values be no longer than there are values."""
    properties = dict(schema["properties"])
    for name, field in properties.items():
        values = field.get("items", {}).get("enum")
        if values is not None:
            longest = min(len(values), field.get("maxItems", len(values)))
            properties[name] = field | {"maxItems": longest}
    return schema | {"properties": properties}


def order_of(arguments: dict[str, Any]) -> str:
    """Write the arguments of a call on one line, for people."""
    return ", ".join(f"{name}={value}" for name, value in arguments.items())
