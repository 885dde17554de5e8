"""Leases on names, such as ids of incidents: one holder at a time, on however many machines."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import Connection, or_, select, update
from sqlalchemy.exc import IntegrityError

from watchkeeper.runtime import schema
from watchkeeper.runtime.clock import Clock, short_id
from watchkeeper.runtime.errors import FencedError, StoreError

if TYPE_CHECKING:
    from watchkeeper.runtime.store import Store

LEASE_SECONDS = 30.0
"""Seconds after which what a silent process held is anybody's."""


LONGEST_LEASE = 86_400.0
"""Seconds beyond which no lease runs: one that does was written by a clock that was ahead."""


def check_term(seconds: float) -> None:
    """Refuse a lease that others would take for one of a clock that was ahead.

    Raises:
        ValueError: If it is longer than `LONGEST_LEASE`.
    """
    if seconds > LONGEST_LEASE:
        raise ValueError(f"a lease lasts {LONGEST_LEASE:g} s at most, not {seconds:g}")


def elapsed_seconds() -> float:
    """Seconds of a clock that nobody sets, and that goes on while the machine sleeps where it has one."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


@dataclass(slots=True)
class Renewal:
    """When a lease was renewed last, by the clock of this process (see `elapsed_seconds`)."""

    at: float = field(default_factory=elapsed_seconds)


@dataclass(frozen=True, slots=True)
class Lease:
    """A name that one holder has.

    Attributes:
        name: What is held.
        holder: Who holds it; no two runs have the same name, not even in one process.
        fence: Token of this lease: the next one of the name has a higher one, and this one is void.
        seconds: How long it lasts from each renewal.
        renewal: When that was last.
    """

    name: str
    holder: str
    fence: int
    seconds: float
    renewal: Renewal = field(default_factory=Renewal, compare=False, repr=False)

    def is_fresh(self) -> bool:
        """Whether it surely has not run out; the store is not asked."""
        return elapsed_seconds() < self.renewal.at + self.seconds


def new_holder() -> str:
    """Name a holder: the machine, the process, and something that makes it unique."""
    return f"{socket.gethostname()}:{os.getpid()}:{short_id(6)}"


def check_lease(connection: Connection, lease: Lease) -> None:
    """Make sure, until the end of this transaction, that a lease was not given to another holder.

    A lease that ran out and that nobody took is still good.

    Raises:
        FencedError: If it was.
    """
    table = schema.leases
    # On PostgreSQL a renewal goes on beside this lock, and another holder waits for it.
    held = connection.execute(
        select(table.c.fence)
        .where(table.c.name == lease.name, table.c.fence == lease.fence, table.c.holder == lease.holder)
        .with_for_update(read=True, key_share=True)
    ).first()
    if held is None:
        raise FencedError(
            f"{lease.name!r} was taken over from {lease.holder!r}, which was taken for dead: nothing more of "
            "it is written here, and it goes on where it was taken over"
        )


class Leases:
    """Leases in the store.

    Args:
        store: Where they are kept.
        now: The time; by default the store's, which is one for all machines.
    """

    def __init__(self, store: Store, *, now: Clock | None = None) -> None:
        self._store = store
        self._now = now or store.now

    def acquire(
        self, name: str, holder: str, *, seconds: float = LEASE_SECONDS, force: bool = False
    ) -> Lease | None:
        """Take a name; None where another holder has it.

        Args:
            name: What is to be held.
            holder: Who takes it; see `new_holder`.
            seconds: How long it lasts, unless it is renewed.
            force: Take it from whoever has it, where it is known otherwise that they are gone.

        Raises:
            StoreError: If it cannot be written.
            ValueError: If it is to last for longer than any lease.
        """
        check_term(seconds)
        table = schema.leases
        renewal = Renewal()
        with self._store.transaction() as connection:
            row = connection.execute(
                select(table.c.fence).where(table.c.name == name).with_for_update()
            ).first()
            at = self._now()
            until = at + timedelta(seconds=seconds)
            if row is None:
                try:
                    with connection.begin_nested():
                        connection.execute(
                            table.insert().values(name=name, holder=holder, fence=1, expires_at=until)
                        )
                except IntegrityError:
                    # Somebody else was the first of all meanwhile.
                    return None
                return Lease(name, holder, 1, seconds, renewal)
            fence = int(row[0]) + 1
            ahead = at + timedelta(seconds=LONGEST_LEASE)
            free = or_(table.c.holder.is_(None), table.c.expires_at <= at, table.c.expires_at > ahead)
            query = update(table).where(table.c.name == name)
            taken = connection.execute(
                (query if force else query.where(free)).values(holder=holder, fence=fence, expires_at=until)
            ).rowcount
            return Lease(name, holder, fence, seconds, renewal) if taken == 1 else None

    def renew(self, lease: Lease) -> None:
        """Keep a name for another term.

        Raises:
            FencedError: If another holder took it.
            StoreError: If it cannot be written.
        """
        table = schema.leases
        began = elapsed_seconds()
        with self._store.transaction() as connection:
            check_lease(connection, lease)
            until = self._now() + timedelta(seconds=lease.seconds)
            connection.execute(update(table).where(table.c.name == lease.name).values(expires_at=until))
        lease.renewal.at = began

    def release(self, lease: Lease) -> bool:
        """Give a name back; False where another holder took it before."""
        table = schema.leases
        with self._store.transaction() as connection:
            changed: int = connection.execute(
                update(table)
                .where(
                    table.c.name == lease.name,
                    table.c.fence == lease.fence,
                    table.c.holder == lease.holder,
                )
                .values(holder=None, expires_at=None)
            ).rowcount
            return changed == 1

    def ends_at(self, name: str) -> datetime | None:
        """Return when a name is anybody's, unless it is renewed; None where it is free."""
        table = schema.leases
        with self._store.reading() as connection:
            return connection.execute(select(table.c.expires_at).where(table.c.name == name)).scalar()

    def holder(self, name: str) -> str | None:
        """Return who has a name, or had it last where its time ran out; None where it is free."""
        table = schema.leases
        with self._store.reading() as connection:
            return connection.execute(select(table.c.holder).where(table.c.name == name)).scalar()

    @contextmanager
    def kept(self, lease: Lease, on_lost: Callable[[FencedError], object]) -> Iterator[None]:
        """Renew a lease from a thread until the block ends, then give it back.

        Args:
            lease: What was acquired.
            on_lost: Called once, from that thread, when it was taken over, or could not be renewed in time.
        """
        ended = threading.Event()
        thread = threading.Thread(
            target=self._keep,
            args=(lease, ended, on_lost),
            name=f"watchkeeper-lease-{lease.name}",
            daemon=True,
        )
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            # What cannot be given back runs out.
            with suppress(StoreError):
                self.release(lease)

    def _keep(self, lease: Lease, ended: threading.Event, on_lost: Callable[[FencedError], object]) -> None:
        renewed = time.monotonic()
        while not ended.wait(lease.seconds / 3):
            began = time.monotonic()
            try:
                self.renew(lease)
            except FencedError as error:
                on_lost(error)
                return
            except StoreError as error:
                if time.monotonic() - renewed >= lease.seconds:
                    on_lost(FencedError(f"{lease.name!r} could not be kept for {lease.seconds:g} s: {error}"))
                    return
            else:
                renewed = began
