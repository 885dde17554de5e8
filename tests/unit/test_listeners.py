"""Listeners hear of the events of an incident in their order, whichever threads wrote them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.lamp import ALERT, folder_in_memory
from watchkeeper.runtime.events import Event, Progress, StageEntered
from watchkeeper.runtime.journal import Journal
from watchkeeper.runtime.listeners import Listeners


@pytest.fixture
def journal() -> Iterator[Journal]:
    with folder_in_memory() as folder, Journal(folder / "home") as opened:
        yield opened


@pytest.fixture
def incident(journal: Journal) -> str:
    return journal.open(ALERT).id


def entered(journal: Journal, incident: str, name: str = "gate") -> Event:
    return journal.record(incident, StageEntered(stage=name))


def heard_by(journal: Journal) -> list[int]:
    heard: list[int] = []
    journal.listen(lambda event: heard.append(event.seq))
    return heard


class Cut:
    """A thread that writes an event and stands still between that and telling it."""

    def __init__(self, journal: Journal, incident: str, *, ends: str = "tells") -> None:
        self.written, self.go_on = threading.Event(), threading.Event()
        self._journal, self._incident, self._ends = journal, incident, ends
        self.thread = threading.Thread(target=self._write, daemon=True)
        self.thread.start()
        assert self.written.wait(10)

    def _write(self) -> None:
        with suppress(RuntimeError), self._journal.store.transaction():
            self._journal.store.afterwards(self._pause)
            entered(self._journal, self._incident)
            if self._ends == "is undone":
                self.written.set()
                raise RuntimeError("no")

    def _pause(self) -> None:
        self.written.set()
        self.go_on.wait(10)
        if self._ends == "fails":
            raise RuntimeError("no")


def test_an_event_waits_for_those_that_were_written_before_it(journal: Journal, incident: str) -> None:
    heard = heard_by(journal)
    first = Cut(journal, incident)
    second = threading.Thread(target=entered, args=(journal, incident))
    second.start()
    second.join(0.2)
    assert second.is_alive()
    assert heard == []
    first.go_on.set()
    second.join(10)
    first.thread.join(10)
    assert heard == [2, 3]


def test_an_event_of_another_incident_waits_for_none(journal: Journal, incident: str) -> None:
    heard = heard_by(journal)
    first = Cut(journal, incident)
    other = journal.open(ALERT.model_copy(update={"title": "another lamp", "service": "other"})).id
    assert other != incident
    entered(journal, other)
    assert len(heard) == 1
    first.go_on.set()
    first.thread.join(10)
    assert len(heard) == 2


def test_what_is_undone_is_not_told_and_holds_up_nobody(journal: Journal, incident: str) -> None:
    heard = heard_by(journal)
    Cut(journal, incident, ends="is undone").thread.join(10)
    entered(journal, incident)
    with journal.store.transaction():
        with suppress(RuntimeError), journal.store.transaction():
            entered(journal, incident, "verify")
            raise RuntimeError("only this part")
        entered(journal, incident, "report")
        assert heard == [2]
    assert heard == [2, 3]
    assert [e.stage for e in journal.incidents.events(incident) if isinstance(e, StageEntered)] == [
        "gate",
        "report",
    ]


def test_an_event_is_told_whatever_else_fails_once_it_is_on_the_disk(journal: Journal, incident: str) -> None:
    heard = heard_by(journal)
    failing = Cut(journal, incident, ends="fails")
    failing.go_on.set()
    failing.thread.join(10)
    assert heard == [2]
    entered(journal, incident)
    assert heard == [2, 3]


def test_an_event_that_was_waited_for_in_vain_is_told_late(journal: Journal, incident: str) -> None:
    journal._listeners = Listeners(journal.store, patience=0.05)
    heard = heard_by(journal)
    slow = Cut(journal, incident)
    entered(journal, incident)
    assert heard == [3]
    slow.go_on.set()
    slow.thread.join(10)
    assert heard == [3, 2]


def test_what_a_listener_writes_is_told_after_what_it_was_told(journal: Journal, incident: str) -> None:
    heard: list[tuple[str, int]] = []

    def first(event: Event) -> None:
        heard.append(("first", event.seq))
        if event.seq == 2:
            entered(journal, incident, "verify")

    journal.listen(first)
    journal.listen(lambda event: heard.append(("second", event.seq)))
    entered(journal, incident)
    assert heard == [("first", 2), ("second", 2), ("first", 3), ("second", 3)]


def test_a_listener_that_fails_keeps_no_later_event_from_the_others(journal: Journal, incident: str) -> None:
    def fail(event: Event) -> None:
        if event.seq == 2:
            raise RuntimeError("no")

    forget = journal.listen(fail)
    heard = heard_by(journal)
    with pytest.raises(RuntimeError):
        entered(journal, incident)
    entered(journal, incident)
    forget()
    assert heard == [3]


def test_what_a_listener_writes_before_it_fails_is_told(journal: Journal, incident: str) -> None:
    def write_and_fail(event: Event) -> None:
        if event.seq == 2:
            entered(journal, incident, "verify")
            raise RuntimeError("no")

    journal.listen(write_and_fail)
    heard = heard_by(journal)
    with pytest.raises(RuntimeError, match="no"):
        entered(journal, incident)
    assert heard == [3]


def test_many_threads_are_heard_in_order(journal: Journal) -> None:
    incidents = [
        journal.open(ALERT.model_copy(update={"title": f"lamp {n}", "service": f"lamp-{n}"})).id
        for n in range(2)
    ]
    heard: dict[str, list[int]] = {incident: [] for incident in incidents}

    def listen(event: Event) -> None:
        if event.kind != "progress":
            heard[event.incident_id].append(event.seq)

    journal.listen(listen)

    def write(number: int) -> None:
        for turn in range(12):
            incident = incidents[(number + turn) % 2]
            entered(journal, incident, f"{number}-{turn}")
            journal.record(incident, Progress(text="."))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for incident in incidents:
        kept = [event.seq for event in journal.incidents.events(incident)]
        assert heard[incident] == kept[1:]
