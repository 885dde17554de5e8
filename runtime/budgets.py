"""Budgets of one incident, and what is told when it ends before its cause is mended."""

from __future__ import annotations

from collections import Counter
from typing import Any

from watchkeeper.agents import FactCall, supported
from watchkeeper.runtime.changes import Changes
from watchkeeper.runtime.context import Context
from watchkeeper.runtime.events import CausesRuledOut, DiagnosisMade, Escalated, Spent
from watchkeeper.runtime.incidents import Incident
from watchkeeper.runtime.journal import Journal
from watchkeeper.runtime.ledger import Effect, EffectState
from watchkeeper.runtime.remedies import order_of
from watchkeeper.runtime.state import IncidentState
from watchkeeper.runtime.steps import Step, StepStatus
from watchkeeper.runtime.wording import describe_event
from watchkeeper.tools.evidence import digest_json
from watchkeeper.tools.findings import Severity
from watchkeeper.tools.schema import candidate_calls

_MANY = 10
"""Findings, causes and facts that are named; the rest is counted."""


def spent(context: Context, state: IncidentState) -> Spent:
    """Say what an incident took of its budgets so far; kept in the store, so a restart forgets none of it."""
    settings = context.settings
    incident_id = state["incident"]
    usage = context.journal.usage(incident_id)
    return Spent(
        tokens=usage.prompt_tokens - usage.cached_tokens + usage.generated_tokens,
        max_tokens=settings.max_tokens,
        seconds=round(context.journal.incidents.worked(incident_id), 3),
        max_seconds=settings.max_seconds,
        actions=context.journal.ledger.taken(incident_id),
        max_actions=settings.max_actions,
        facts=len(state.get("gathered", ())),
        max_facts=settings.max_facts,
    )


def exhausted(context: Context, state: IncidentState) -> str:
    """Say why an incident may not go on, between two of its steps; empty if it may."""
    used = spent(context, state)
    if used.tokens > used.max_tokens:
        return f"the budget of {used.max_tokens} tokens is spent ({used.tokens})"
    if used.seconds > used.max_seconds:
        return f"the budget of {used.max_seconds:g} s of work is spent ({used.seconds:.0f} s)"
    return _circling(context, state["incident"])


def beyond(context: Context, changes: Changes, incident: Incident, queue: list[dict[str, Any]]) -> str:
    """Say why a plan may not be begun: the budget of actions or a rate limit is too small; empty if not."""
    actions = [step["action"] for step in queue]
    budget = context.settings.max_actions
    left = budget - context.journal.ledger.taken(incident.id)
    if left <= 0:
        return f"the budget of {budget} actions is spent, so {actions[0]} was not tried"
    if len(actions) > left:
        return f"{actions[0]} takes {len(actions)} actions and the budget of {budget} leaves {left}"
    no_room = changes.no_room(incident.alert.host, actions)
    return f"{actions[0]} was not tried: {no_room}" if no_room else ""


def remaining_calls(context: Context, state: IncidentState) -> list[FactCall]:
    """Every call that makes sense on the host and was not made yet, in the registry's order."""
    incident = context.incident(state)
    spec = context.site.inventory.host(incident.alert.host)
    condition = incident.alert.condition
    made = set(state.get("gathered", ()))
    calls: dict[str, FactCall] = {}
    wanted = [(condition.fact, dict(condition.arguments))]
    for fact in context.site.registry.facts:
        if context.team.may_ask(fact.name):
            wanted += [(fact.name, values) for values in candidate_calls(fact, spec)]
    for name, values in wanted:
        fact = context.site.registry.fact(name)
        arguments = fact.parse_arguments(values)
        about = fact.describe(arguments)
        if (name, values) == wanted[0]:
            about = context.site.told(incident.alert.host, condition)
        call = FactCall(fact=name, arguments=arguments.model_dump(mode="json"), about=about)
        if call.key not in made and call.about not in {c.about for c in calls.values()}:
            calls[call.key] = call
    return list(calls.values())


def unread(context: Context, state: IncidentState) -> str:
    """Say that the budget of facts kept something from being read; empty if it did not."""
    limit, left = context.settings.max_facts, remaining_calls(context, state)
    if not left or len(state.get("gathered", ())) < limit:
        return ""
    return f"the budget of {limit} facts is spent, and {len(left)} more were not read"


def handover(context: Context, state: IncidentState) -> Escalated:
    """Put together what people get: why, what was found, what was spent, and what was left undone."""
    return Escalated(
        reason=state.get("reason") or "no reason was given",
        found=tuple(found_out(context.journal, state["incident"])),
        left=tuple(_left(context, state)),
        spent=spent(context, state),
    )


def _circling(context: Context, incident_id: str) -> str:
    """Say that a fact is read again and again, which finds out nothing."""
    limit = context.settings.limits.repeats.readings
    read = Counter(
        (item.fact, digest_json(item.arguments)) for item in context.journal.incidents.evidence(incident_id)
    )
    (fact, _), times = max(read.items(), key=lambda item: item[1], default=(("", ""), 0))
    if times <= limit:
        return ""
    return f"loop: {fact} was read {times} times with the same arguments, which finds out nothing new"


def found_out(journal: Journal, incident_id: str) -> list[str]:
    """Say what was found out of an incident."""
    events = journal.incidents.events(incident_id)
    diagnoses = [event for event in events if isinstance(event, DiagnosisMade | CausesRuledOut)]
    found = []
    if diagnoses:
        found.append(describe_event(diagnoses[-1]).removeprefix("diagnosis: "))
    said = [
        f"{finding.text} [{item.id}]"
        for item in journal.incidents.evidence(incident_id)
        for finding in item.findings
        if finding.severity is not Severity.NORMAL
    ]
    return found + _some(list(dict.fromkeys(said)), "findings")


def effects_left(journal: Journal, incident_id: str) -> list[str]:
    """Say which effects of an incident are still there, or may be."""
    steps = {step.id: step for step in journal.steps.list(incident_id)}
    effects = journal.ledger.list(incident_id)
    return [said for effect in effects if (said := _standing(effect, steps[effect.step_id]))]


def _left(context: Context, state: IncidentState) -> list[str]:
    left = effects_left(context.journal, state["incident"])
    left += [
        f"not begun: {step['action']} ({order_of(dict(step['arguments']))})"
        for step in state.get("queue", ())[1:]
    ]
    tried = [turn["hypothesis"] for turn in state.get("turns", ())]
    causes = supported(context.team.causes, context.case(state), without=tried)
    left += _some([f"not tried: {hypothesis.text}" for hypothesis in causes], "causes")
    left += _some([f"not read: {call.about}" for call in remaining_calls(context, state)], "facts")
    return left


def _standing(effect: Effect, step: Step) -> str:
    """Say what of an effect is still there, or may be; empty if nothing is."""
    what = f"{step.id} {step.action} on {step.host} ({order_of(dict(step.arguments))})"
    match effect.state:
        case EffectState.INTENDED:
            return f"in doubt, may have been done: {what}"
        case EffectState.ROLLING_BACK:
            return f"taking back was begun and not finished: {what}"
        case EffectState.ROLLBACK_FAILED:
            return f"could not be taken back: {what}: {step.detail}"
        case EffectState.FAILED:
            return f"failed, may have been done in part: {what}: {step.detail}"
        case EffectState.DONE if step.status is StepStatus.FAILED:
            return f"was done and cannot be taken back: {what}: {step.detail}"
        case EffectState.DONE:
            return f"was done and not taken back: {what}"
        case _:
            return ""


def _some(lines: list[str], what: str) -> list[str]:
    more = len(lines) - _MANY
    return lines[:_MANY] + ([f"and {more} more {what}"] if more > 0 else [])
