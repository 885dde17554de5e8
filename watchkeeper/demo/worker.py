"""A small worker: appends records to a data file, touches a heartbeat and writes logs.

Stands alone (standard library only) and is run by path: ``python worker.py CONFIG``; ``SERVICE_PROFILE``
is as for the web application. On SIGUSR1 its trace log, kept beside the data, grows until the file
system is full. A full file system is reported and outlived; a record counts as accepted only once it is
whole on disk, and is then noted where nobody but an observer looks.
"""

from __future__ import annotations

import configparser
import errno
import json
import logging
import os
import random
import signal
import sys
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

TICK = 0.2


class Records:
    """An append-only file of records: sequence number, time, article, quantity, checksum; tab-separated."""

    def __init__(self, path: Path, acknowledged: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self._acknowledged = os.open(acknowledged, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole != len(content):
            # A process that ended in the middle of a write leaves half a line, which nobody was promised.
            os.ftruncate(self._file, whole)
        last = content[:whole].rstrip(b"\n").rpartition(b"\n")[2]
        self._next = int(last.split(b"\t")[0]) + 1 if last else 1

    def append(self, chance: random.Random) -> None:
        """Store one record and acknowledge it.

        Raises:
            OSError: If it could not be stored; the file is then as before.
        """
        body = f"{self._next}\t{time.time():.3f}\tA-{chance.randint(100, 999)}\t{chance.randint(1, 40)}"
        checksum = f"{zlib.crc32(body.encode()):08x}"
        line = f"{body}\t{checksum}\n".encode()
        before = os.fstat(self._file).st_size
        written = 0
        try:
            written = os.write(self._file, line)
            if written < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file)
        except OSError:
            if written:
                os.ftruncate(self._file, before)
            raise
        os.write(self._acknowledged, f"{self._next} {checksum}\n".encode())
        self._next += 1


class Trace:
    """A log beside the data, written through a descriptor that stays open."""

    def __init__(self, path: Path, profile: dict[str, Any]) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._line: str = profile["trace_line"]
        self._name: str = profile["name"]
        self._formatter = logging.Formatter(profile["log_format"], profile["log_time"])
        self._count = random.randrange(10_000)

    def lines(self, count: int) -> bytes:
        """Make that many lines of the present moment."""
        record = logging.LogRecord(self._name, logging.DEBUG, "", 0, "@", None, None)
        prefix, _, suffix = self._formatter.format(record).rpartition("@")
        lines = []
        for _ in range(count):
            self._count += 1
            lines.append(
                prefix + self._line.format(number=self._count, small=self._count % 90) + suffix + "\n"
            )
        return "".join(lines).encode()

    def write(self, count: int = 1) -> None:
        """Append lines.

        Raises:
            OSError: If there is no room for all of them.
        """
        content = self.lines(count)
        if os.write(self._file, content) < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def overflow(self) -> None:
        """Append until there is no room for a single line."""
        count = 500
        while count:
            try:
                self.write(count)
            except OSError:
                count //= 4


@dataclass(frozen=True)
class Settings:
    """What the configuration file says; times in seconds."""

    interval: float
    trace_every: float
    data: Path


def read_settings(config: Path, profile: dict[str, Any]) -> Settings:
    """Read and check the configuration file.

    Raises:
        ValueError: If it is not valid.
    """
    text = config.read_text(encoding="utf-8")
    if profile["style"] == "json":
        table = json.loads(text)
    else:
        parser = configparser.ConfigParser(interpolation=None)
        parser.read_string(text, source=config.name)
        table = {section: dict(parser[section]) for section in parser.sections()}

    def value(role: str) -> Any:
        section, key = profile["keys"][role]
        try:
            return table[section][key]
        except KeyError as error:
            raise ValueError(f"{section}.{key} is missing") from error

    def seconds(role: str) -> float:
        number = float(value(role))
        if not 0.05 <= number <= 60:
            place = ".".join(profile["keys"][role])
            raise ValueError(f"invalid value {number!r} for {place}: must be between 0.05 and 60")
        return number

    return Settings(seconds("interval"), seconds("trace_every"), Path(str(value("data"))))


def beat(descriptor: int) -> None:
    """Touch the heartbeat in place: it needs no new room on the file system."""
    os.pwrite(descriptor, f"{time.time():017.3f}\n".encode(), 0)


def work(profile: dict[str, Any], settings: Settings) -> None:
    """Append records until told to stop."""
    log = logging.getLogger(profile["name"])
    chance = random.Random()
    stopped, overflowing = threading.Event(), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    signal.signal(signal.SIGUSR1, lambda *_: overflowing.set())
    data = settings.data
    heartbeat = os.open(data / profile["heartbeat"], os.O_WRONLY | os.O_CREAT, 0o644)
    records = Records(data / profile["records"], Path(profile["acknowledged"]))
    trace = Trace(data / profile["trace"], profile)
    next_record = next_line = next_trace = next_complaint = 0.0

    def attempt(write: Callable[[], None], path: Path) -> None:
        nonlocal next_complaint
        try:
            write()
        except OSError as error:
            if time.monotonic() >= next_complaint:
                next_complaint = time.monotonic() + 1.5
                log.error(profile["wording"]["no_append"].format(path=path, problem=error))

    log.info("%s, next record every %g s", profile["wording"]["started"], settings.interval)
    while not stopped.is_set():
        now = time.monotonic()
        beat(heartbeat)
        if overflowing.is_set():
            overflowing.clear()
            trace.overflow()
            next_trace = 0.0
        if now >= next_record:
            next_record = now + settings.interval
            attempt(lambda: records.append(chance), records.path)
        if now >= next_trace:
            next_trace = now + settings.trace_every
            attempt(trace.write, trace.path)
        if now >= next_line:
            next_line = now + chance.uniform(0.7, 2.5)
            if chance.random() < profile["hiccups"]:
                level, line = chance.choice(profile["hiccup_lines"])
            else:
                level, line = "INFO", chance.choice(profile["routine_lines"])
            values = {"small": chance.randint(2, 99), "number": chance.randint(1000, 99999)}
            log.log(logging.getLevelName(level), line.format(**values))
        stopped.wait(TICK)
    log.info("stopping")


def main() -> NoReturn:
    """Work until told to stop."""
    config = Path(sys.argv[1])
    profile = json.loads(Path(os.environ["SERVICE_PROFILE"]).read_text(encoding="utf-8"))
    with Path(profile["starts"]).open("a", encoding="utf-8") as starts:
        starts.write(json.dumps({"program": profile["name"], "pid": os.getpid(), "at": time.time()}) + "\n")
    logging.basicConfig(
        filename=profile["log"],
        format=profile["log_format"],
        datefmt=profile["log_time"],
        level=logging.INFO,
        encoding="utf-8",
    )
    log = logging.getLogger(profile["name"])
    try:
        settings = read_settings(config, profile)
    except (OSError, ValueError, configparser.Error) as error:
        problem = " ".join(str(error).split())
        log.error(profile["wording"]["config_error"].format(path=config, problem=problem))
        raise SystemExit(2) from error
    work(profile, settings)
    raise SystemExit(0)


if __name__ == "__main__":
    main()
