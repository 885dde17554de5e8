"""A site: its hosts, its tools, its policy, and where what must be kept lies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import JsonValue

from watchkeeper.agents.case import call_key
from watchkeeper.runtime.alerts import Condition, expected_status
from watchkeeper.runtime.escalation_rules import EscalationRules
from watchkeeper.runtime.policy import Policy
from watchkeeper.runtime.settings import Settings
from watchkeeper.tools.host import LocalHost, Target
from watchkeeper.tools.inventory import Inventory
from watchkeeper.tools.passages import Trusted, passage
from watchkeeper.tools.plugins import load_registry
from watchkeeper.tools.registry import Registry
from watchkeeper.tools.schema import words_of
from watchkeeper.tools.training.record import JobBoard


@dataclass(frozen=True, slots=True)
class Site:
    """What agents may look at and touch.

    Attributes:
        inventory: The hosts.
        registry: The facts and actions.
        policy: What may be done.
        home: Folder of Watchkeeper's state.
        escalation: Who is called.
        jobs: Whoever keeps training jobs; None where nobody does.
    """

    inventory: Inventory
    registry: Registry
    policy: Policy
    home: Path
    escalation: EscalationRules = field(default_factory=EscalationRules)
    jobs: JobBoard | None = None

    def target(self, host: str) -> Target:
        """Return the way to a host.

        Raises:
            UnknownHostError: If it is not in the inventory.
        """
        spec = self.inventory.host(host)
        return Target(LocalHost(spec.name), spec, self.home / "hosts" / spec.name, self.jobs)

    def labels(self, host: str) -> dict[str, str]:
        """Return the labels of a host; none of one that is not in the inventory (any more)."""
        return next((spec.labels for spec in self.inventory.hosts if spec.name == host), {})

    def describe(self, host: str, condition: Condition) -> str:
        """Say in words for people what an alert's condition reads.

        Args:
            host: Where it is read.
            condition: The condition.

        Raises:
            UnknownHostError: If the host is not in the inventory.
            UnknownToolError: If the fact is not registered.
        """
        if condition.fact == "http.check":
            url = str(condition.arguments.get("url"))
            expected = condition.arguments.get("expect") or expected_status(self.inventory.host(host), url)
            return f"GET {url} must answer {expected}"
        fact = self.registry.fact(condition.fact)
        return fact.describe(fact.parse_arguments(dict(condition.arguments)))

    def told(self, host: str, condition: Condition) -> Trusted:
        """Say the same to agents with tools: values that whoever raised the alert chose are left out.

        Raises:
            UnknownHostError: If the host is not in the inventory.
            UnknownToolError: If the fact is not registered.
        """
        if self.is_of_inventory(host, condition):
            return Trusted(self.describe(host, condition))
        return passage(
            "{summary}, with values that the alert names",
            summary=Trusted(self.registry.fact(condition.fact).summary),
        )

    def is_of_inventory(self, host: str, condition: Condition) -> bool:
        """Whether every text among a condition's arguments is one of the host's inventory."""
        known = words_of(self.inventory.host(host))
        return all(text in known for text in _texts(dict(condition.arguments)))

    def names(self) -> frozenset[str]:
        """Return the names of all hosts, services and tools."""
        hosts = self.inventory.hosts
        named = {host.name for host in hosts} | {s.name for host in hosts for s in host.services}
        tools = {fact.name for fact in self.registry.facts} | {a.name for a in self.registry.actions}
        return frozenset(named | tools)

    def call_of(self, condition: Condition) -> str:
        """Name the call of a fact that a condition makes, as its evidence does."""
        fact = self.registry.fact(condition.fact)
        arguments = fact.parse_arguments(dict(condition.arguments)).model_dump(mode="json")
        return call_key(condition.fact, arguments)


def load_site(settings: Settings) -> Site:
    """Return a site as the settings describe it, to look at it: its policy is the one that asks for all.

    Raises:
        InventoryError: If the inventory is not usable.
        PluginError: If tools that are installed or named in the settings cannot be loaded.
    """
    registry = load_registry(settings.tools, settings.log_predictor)
    inventory = Inventory.load(settings.inventory_path)
    return Site(inventory, registry, Policy.default(registry), settings.home)


def _texts(value: JsonValue) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
