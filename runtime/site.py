"""A site: its hosts, its tools, its policy, and where what must be kept lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from watchkeeper.runtime.alerts import Condition, expected_status
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

    def describe(self, host: str, condition: Condition) -> str:
        """Say in words what an alert's condition reads, from trusted values only.

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
