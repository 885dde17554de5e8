"""Listeners: told of the events of an incident in their order, whichever threads wrote them.

A place in the order is taken while an event is written, when the writer holds the store's write lock, and is
given up if that is undone. An event whose turn has not come is told by the thread that makes it come.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from watchkeeper.runtime.events import Event
from watchkeeper.runtime.store import Store

Listener = Callable[[Event], None]

_PATIENCE_SECONDS = 5.0
"""How long an event waits for one before it whose thread ended between writing and telling it."""


@dataclass(slots=True, eq=False)
class _Place:
    event: Event
    since: float = field(default_factory=time.monotonic)
    written: bool = False
    skipped: bool = False
    done: bool = False


class Listeners:
    """Who is told of events.

    Args:
        store: Where the events are written.
        patience: Seconds that an event waits for one before it.
    """

    def __init__(self, store: Store, *, patience: float = _PATIENCE_SECONDS) -> None:
        self._store = store
        self._patience = patience
        self._listeners: list[Listener] = []
        self._places: dict[str, deque[_Place]] = {}
        self._telling: dict[str, int] = {}
        self._changed = threading.Condition()

    def add(self, listener: Listener) -> Callable[[], None]:
        """Call a listener with every event from now on; returns the way to stop that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def promise(self, event: Event) -> None:
        """Have an event told once it is on the disk, after those that were written before it.

        To be called in the transaction that writes it. Where that is undone nobody is told.
        """
        place = _Place(event)
        with self._changed:
            self._places.setdefault(event.incident_id, deque()).append(place)
        self._store.undone(lambda: self._give_up(place))
        self._store.afterwards(lambda: self._tell(place))

    def tell(self, event: Event) -> None:
        """Tell an event that is not written, at once."""
        for listener in list(self._listeners):
            listener(event)

    def _tell(self, place: _Place) -> None:
        """Return when the event was told, by this thread or by another one."""
        incident_id = place.event.incident_id
        with self._changed:
            place.written = True
            late = place.skipped
        if late:
            self.tell(place.event)
            return
        deadline = time.monotonic() + self._patience
        while True:
            self._tell_those_whose_turn_it_is(incident_id)
            with self._changed:
                if place.done or self._telling.get(incident_id) == threading.get_ident():
                    return
                left = deadline - time.monotonic()
                if left > 0:
                    self._changed.wait(left)
                elif incident_id in self._telling:
                    return  # to a listener that takes long; this one is told after that
                else:
                    self._skip_the_lost(incident_id)

    def _tell_those_whose_turn_it_is(self, incident_id: str) -> None:
        failed: Exception | None = None
        with self._turn(incident_id) as mine:
            while mine and (place := self._next(incident_id)) is not None:
                try:
                    self.tell(place.event)
                except Exception as error:  # noqa: BLE001 (whoever wrote a later one may rely on this thread)
                    failed = failed or error
                finally:
                    place.done = True
        if failed is not None:
            raise failed

    def _next(self, incident_id: str) -> _Place | None:
        with self._changed:
            queue = self._places.get(incident_id)
            if not queue or not queue[0].written:
                return None
            return self._remove(queue[0])

    @contextmanager
    def _turn(self, incident_id: str) -> Iterator[bool]:
        """Tell the events of an incident from one thread at a time."""
        with self._changed:
            mine = incident_id not in self._telling
            if mine:
                self._telling[incident_id] = threading.get_ident()
        try:
            yield mine
        finally:
            if mine:
                with self._changed:
                    del self._telling[incident_id]
                    self._changed.notify_all()

    def _give_up(self, place: _Place) -> None:
        with self._changed:
            self._remove(place)
            self._changed.notify_all()

    def _skip_the_lost(self, incident_id: str) -> None:
        queue = self._places.get(incident_id)
        if queue and not queue[0].written:
            self._remove(queue[0]).skipped = True

    def _remove(self, place: _Place) -> _Place:
        queue = self._places.get(place.event.incident_id)
        if queue and place in queue:
            queue.remove(place)
            if not queue:
                del self._places[place.event.incident_id]
        return place
