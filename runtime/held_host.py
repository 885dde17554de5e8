"""A host on which the effect of a worker that lost its work goes no further."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from watchkeeper.runtime.errors import StoreError
from watchkeeper.runtime.store import Store
from watchkeeper.tools.host import CommandResult, Host, Target


def held_target(store: Store, target: Target) -> Target:
    """Return the target of an effect that is to begin now, once it is sure that its work is still held.

    Args:
        store: Where it is kept what is held; see `Store.fenced`.
        target: Where the effect is to be.

    Raises:
        FencedError: If another worker took it over.
        StoreError: If that cannot be found out.
    """
    store.check_fences()
    return replace(target, host=HeldHost(target.host, store))


class HeldHost:
    """A host for one effect: before each of its commands it is made sure that the work is still held.

    A process may stand still anywhere (stopped, swapped out, its machine asleep), for longer than its leases
    last. Where another worker went on with its work meanwhile, nothing further is begun here. A store that
    does not answer ends no effect half-way.

    Args:
        host: Where the commands run.
        store: Where it is kept what is held; see `Store.fenced`.
    """

    def __init__(self, host: Host, store: Store) -> None:
        self._host = host
        self._store = store

    @property
    def name(self) -> str:
        """Name in the inventory."""
        return self._host.name

    @property
    def is_local(self) -> bool:
        """Whether this process runs on it."""
        return self._host.is_local

    def run(self, command: Sequence[str], *, timeout: float = 30.0, stdin: str = "") -> CommandResult:
        """Run a command and return what it printed.

        Raises:
            CollectError: If the program is missing or did not end in time.
            FencedError: If another worker took over what this is done for.
        """
        with suppress(StoreError):
            self._store.check_fences()
        return self._host.run(command, timeout=timeout, stdin=stdin)
