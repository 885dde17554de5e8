"""A site: its hosts, its tools, its policy, and where what must be kept lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from watchkeeper.runtime.alerts import Condition
from watchkeeper.runtime.policy import Policy
from watchkeeper.tools.host import LocalHost, Target
from watchkeeper.tools.inventory import Inventory
from watchkeeper.tools.registry import Registry


@dataclass(frozen=True, slots=True)
class Site:
    """What agents may look at and touch.

    Attributes:
        inventory: The hosts.
        registry: The facts and actions.
        policy: What may be done.
        home: Folder of Watchkeeper's state.
    """

    inventory: Inventory
    registry: Registry
    policy: Policy
    home: Path

    def target(self, host: str) -> Target:
        """Return the way to a host.

        Raises:
            UnknownHostError: If it is not in the inventory.
        """
        spec = self.inventory.host(host)
        return Target(LocalHost(spec.name), spec, self.home / "hosts" / spec.name)

    def describe(self, condition: Condition) -> str:
        """Say in words what an alert's condition reads, from trusted values only."""
        if condition.fact == "http.check":
            expected = condition.arguments.get("expect", 200)
            return f"GET {condition.arguments.get('url')} must answer {expected}"
        fact = self.registry.fact(condition.fact)
        return fact.describe(fact.parse_arguments(dict(condition.arguments)))
