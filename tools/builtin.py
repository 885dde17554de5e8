"""The registry of everything that comes with Watchkeeper."""

from __future__ import annotations

from watchkeeper.tools.actions import builtin_actions
from watchkeeper.tools.facts import builtin_facts
from watchkeeper.tools.registry import Registry


def builtin_registry() -> Registry:
    """Return a registry with the built-in facts and actions."""
    return Registry([*builtin_facts(), *builtin_actions()])
