"""Sinks: the ways in which a notification reaches people."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict

from watchkeeper.runtime.errors import NotSentError
from watchkeeper.runtime.escalation_rules import FILE, TERMINAL, EscalationRules

NOTIFICATIONS = "notifications.jsonl"
"""The file of the channel ``file``, in the home."""


class Message(BaseModel):
    """What somebody is told.

    Attributes:
        id: Of the notification: ``ESC-7K3QW-2-1``, its escalation, call and place in it.
        recipient: Who.
        channel: By which way.
        title: In one line.
        text: All of it.
        at: When it was written.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    recipient: str
    channel: str
    title: str
    text: str
    at: datetime


class Sink(Protocol):
    """A way to people."""

    @property
    def repeatable(self) -> bool:
        """Whether sending a message a second time, after a crash, does not tell anybody twice."""
        ...

    def send(self, message: Message) -> None:
        """Send a message.

        Raises:
            NotSentError: If it was certainly not sent.
            DeliveryUnknownError: If that cannot be told.
        """
        ...


class TerminalSink:
    """Writes to the console of the running process, each message once.

    Args:
        write: Writes a line; None where there is no console, but a program that reads the events.
    """

    repeatable = True

    def __init__(self, write: Callable[[str], None] | None = None) -> None:
        self._write = write
        self._written: set[str] = set()

    def send(self, message: Message) -> None:
        """Write a message, if this process did not before."""
        if self._write is not None and message.id not in self._written:
            escalation = "-".join(message.id.split("-")[:2])
            self._write(f"to {message.recipient}: {message.title} ({escalation})")
        self._written.add(message.id)


class FileSink:
    """Appends messages to a file, a line of JSON each; one that is there is not written again.

    Args:
        path: The file; created if missing, readable for its owner alone.
    """

    repeatable = True

    def __init__(self, path: Path) -> None:
        self._path = path

    def send(self, message: Message) -> None:
        """Append a message, if its id is not in the file.

        Raises:
            NotSentError: If the file cannot be written.
        """
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise NotSentError(f"{str(self._path)!r} cannot be written: {error.strerror}") from error
        with os.fdopen(descriptor, "rb+", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            size = file.seek(0, os.SEEK_END)
            try:
                if self._holds(message.id):
                    return
                file.seek(max(0, size - 1))
                # A line that a crash tore is ended, so that it spoils no other.
                start = b"" if size == 0 or file.read(1) == b"\n" else b"\n"
                rest = memoryview(start + message.model_dump_json().encode() + b"\n")
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
            except OSError as error:
                file.truncate(size)
                raise NotSentError(f"{str(self._path)!r} cannot be written: {error.strerror}") from error

    def _holds(self, message_id: str) -> bool:
        mark = json.dumps(message_id).encode()
        with self._path.open("rb") as file:
            return any(mark in line and _id_of(line) == message_id for line in file)


def _id_of(line: bytes) -> str | None:
    try:
        kept = json.loads(line)
    except ValueError:
        return None
    return str(kept.get("id")) if isinstance(kept, dict) else None


Sinks = Callable[[str, EscalationRules], Sink]
"""Gives the sink of a channel, by its name and the rules that say what it is."""


def sinks_of(home: Path, write: Callable[[str], None] | None = None) -> Sinks:
    """Return the sinks of a process.

    Args:
        home: Folder of Watchkeeper's state.
        write: Writes a line to the console, where there is one.
    """
    terminal, file = TerminalSink(write), FileSink(home / NOTIFICATIONS)

    def sink(channel: str, rules: EscalationRules) -> Sink:
        if channel == TERMINAL:
            return terminal
        if channel == FILE:
            return file
        from watchkeeper.runtime.notify_apprise import AppriseSink

        return AppriseSink(rules.channels[channel].secret, home)

    return sink
