"""Actions in two parts: what is looked at, and a pure plan made from it."""

from __future__ import annotations

from abc import abstractmethod
from typing import TypeVar

from watchkeeper.tools.action import Action, ActionPlan
from watchkeeper.tools.fact import Arguments, Raw
from watchkeeper.tools.host import Target

A = TypeVar("A", bound=Arguments)


class ObservedAction(Action[A]):
    """An action whose plan is a pure function of what was observed, so that golden files test it."""

    @abstractmethod
    def observe(self, target: Target, arguments: A) -> Raw:
        """Look at the target; changes nothing.

        Raises:
            PlanError: If it cannot be looked at.
        """

    @abstractmethod
    def plan_from(self, raw: Raw, arguments: A, *, key: str) -> ActionPlan:
        """Say what would change, from what was observed alone; pure.

        Raises:
            PlanError: If the action makes no sense on this target.
        """

    def plan(self, target: Target, arguments: A, *, key: str) -> ActionPlan:
        """Look at the target and say what would change; changes nothing.

        Raises:
            PlanError: If the action makes no sense on this target.
        """
        return self.plan_from(self.observe(target, arguments), arguments, key=key)
