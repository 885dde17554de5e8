"""What a rule speaks of that is not there: labels that no host has, arguments that no action takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from fnmatch import fnmatchcase

from pydantic import BaseModel, ConfigDict

from watchkeeper.runtime.policy import Policy
from watchkeeper.runtime.policy_evaluation import CompiledRule
from watchkeeper.runtime.policy_rules import Rule
from watchkeeper.tools.inventory import HostSpec, Inventory
from watchkeeper.tools.registry import Registry


class Doubt(BaseModel):
    """A part of a rule that can hold for nothing there is.

    Attributes:
        rule: Its name.
        place: Where it is written: the file with its line, and the part of the rule.
        message: What is not there, and what may have been meant.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: str
    place: str
    message: str


def doubts(policy: Policy, registry: Registry, inventory: Inventory | None) -> tuple[Doubt, ...]:
    """Return what rules speak of that is not there.

    Args:
        policy: The rules.
        registry: The actions.
        inventory: The hosts; without them nothing is said about labels.
    """
    hosts = None if inventory is None else tuple(inventory)
    found: list[Doubt] = []
    for number, compiled in enumerate(policy.compiled):
        said = [*_of_arguments(compiled, registry), *(_of_labels(compiled.rule, hosts) if hosts else ())]
        found += [
            Doubt(rule=compiled.rule.name, place=policy.where(number, *place), message=message)
            for place, message in said
        ]
    return tuple(found)


def _of_labels(rule: Rule, hosts: tuple[HostSpec, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    labels = sorted({name for host in hosts for name in host.labels})
    alone = True
    for name, pattern in rule.match.hosts.items():
        values = sorted({host.labels[name] for host in hosts if name in host.labels})
        if not values:
            yield ("match", "hosts", name), f"no host has a label {name!r}{_meant(name, labels)}"
        elif not any(fnmatchcase(value, pattern) for value in values):
            said = f"no host's label {name!r} fits {pattern!r}{_meant(pattern, values)}"
            yield ("match", "hosts", name), said
        else:
            continue
        alone = False
    if alone and not any(rule.match.fits_host(host.labels) for host in hosts):
        yield ("match", "hosts"), "each of these labels is there, but no host has all of them"


def _of_arguments(compiled: CompiledRule, registry: Registry) -> Iterator[tuple[tuple[str, ...], str]]:
    if compiled.condition is None:
        return
    meant = [tool for tool in registry.actions if compiled.rule.match.fits_action(tool.name)]
    known = sorted({name for tool in meant for name in tool.arguments_type.model_fields})
    for name in sorted(compiled.condition.text.read_of("arguments") - set(known)):
        actions = ", ".join(sorted(tool.name for tool in meant))
        said = f"it reads arguments.{name}, which none of its actions takes{_meant(name, known)}"
        yield ("when",), f"{said}: a condition that cannot be evaluated denies ({actions})"


def _meant(name: str, known: Iterable[str]) -> str:
    listed = list(known)
    near = get_close_matches(name, listed, n=1)
    if near:
        return f" (is {near[0]!r} meant?)"
    return f" (there are: {', '.join(listed) or 'none'})"
