"""A demo site on paper: every name, value and wording drawn from a seed; nothing here touches a disk."""

from __future__ import annotations

import configparser
import io
import json
import random
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from watchkeeper.demo import vocabulary as words
from watchkeeper.tools.inventory import HostSpec, HttpCheck, Inventory, Service, Supervisord

MIB = 1 << 20
HEARTBEAT_LIMIT = 3.0
"""Seconds without a heartbeat after which the web application calls itself unhealthy."""

Style = Literal["json", "ini"]
Values = Mapping[str, str | int | float]


def draw(seed: int, aspect: str) -> random.Random:
    """Return the stream of choices for one aspect, so that one aspect's draws never shift another's."""
    return random.Random(f"{seed}/{aspect}")


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A configuration file: where it is, how it is written, and what it says.

    Attributes:
        path: Where it is.
        style: Its format.
        note: A remark at its head.
        keys: Section and key of each role that a program reads.
        values: Value of each role.
    """

    path: Path
    style: Style
    note: str
    keys: Mapping[str, tuple[str, str]]
    values: Values

    def text(self) -> str:
        """Render the file."""
        table: dict[str, dict[str, str | int | float]] = {}
        for role, value in self.values.items():
            section, key = self.keys[role]
            table.setdefault(section, {})[key] = value
        if self.style == "json":
            return json.dumps({"_comment": {"note": self.note}, **table}, indent=2) + "\n"
        parser = configparser.ConfigParser(interpolation=None)
        for section, entries in table.items():
            parser[section] = {key: str(value) for key, value in entries.items()}
        out = io.StringIO()
        parser.write(out)
        return f"# {self.note}\n{out.getvalue().rstrip()}\n"

    def with_values(self, **changes: str | int | float) -> ConfigFile:
        """Return the file with other values."""
        return replace(self, values={**self.values, **changes})


@dataclass(frozen=True, slots=True)
class Noise:
    """What looks unusual and is not to blame.

    Attributes:
        volume: Size of the data file system in bytes.
        used: Share of it that legitimate data takes.
        edited: Which program's configuration was edited, harmlessly, since it was last recorded.
        edited_ago: Seconds since that edit.
        restarted: Whether the worker was restarted a moment ago.
        hiccups: Share of live log lines that are warnings or errors without consequence.
        history: Hours of log before the start.
    """

    volume: int
    used: float
    edited: Literal["", "web", "worker"]
    edited_ago: float
    restarted: bool
    hiccups: float
    history: float


@dataclass(frozen=True, slots=True)
class Site:
    """Everything about a site that follows from its seed, its base folder and its port."""

    seed: int
    base: Path
    port: int
    host: str
    web: str
    worker: str
    web_config: ConfigFile
    worker_config: ConfigFile
    web_program: Path
    worker_program: Path
    reference: Path
    web_log: Path
    worker_log: Path
    supervisor_config: Path
    supervisor_log: Path
    supervisor_pid: Path
    socket: Path
    data: Path
    records: Path
    trace: Path
    heartbeat: Path
    probe: Path
    backups: Path
    log_format: str
    log_time: str
    wording: Mapping[str, str]
    noise: Noise

    @property
    def url(self) -> str:
        """Address of the health check."""
        return f"http://127.0.0.1:{self.port}/health"

    @classmethod
    def drawn(cls, seed: int, base: Path, port: int) -> Site:
        """Draw a site."""
        pick = draw(seed, "names")
        web, worker = pick.choice(words.WEB_NAMES), pick.choice(words.WORKER_NAMES)
        etc, logs, data, programs, backups = (
            base / pick.choice(pool)
            for pool in (
                words.CONFIG_FOLDERS,
                words.LOG_FOLDERS,
                words.DATA_FOLDERS,
                words.PROGRAM_FOLDERS,
                words.BACKUP_FOLDERS,
            )
        )
        style: Style = pick.choice(("json", "ini"))
        suffix = "json" if style == "json" else pick.choice(("ini", "conf", "cfg"))
        reference = programs / web / f"{pick.choice(words.REFERENCE_STEMS)}.json"
        log_format, log_time = pick.choice(words.LOG_STYLES)
        return cls(
            seed=seed,
            base=base,
            port=port,
            host=pick.choice(words.HOST_NAMES),
            web=web,
            worker=worker,
            web_config=_web_config(seed, etc / f"{web}.{suffix}", style, port, data, reference),
            worker_config=_worker_config(seed, etc / f"{worker}.{suffix}", style, data),
            web_program=programs / web / "serve.py",
            worker_program=programs / worker / "run.py",
            reference=reference,
            web_log=logs / f"{web}.log",
            worker_log=logs / f"{worker}.log",
            supervisor_config=etc / "supervisord.conf",
            supervisor_log=logs / "supervisord.log",
            supervisor_pid=base / "run" / "supervisord.pid",
            socket=base / "run" / "s.sock",
            data=data,
            records=data / f"{pick.choice(words.RECORD_STEMS)}.{pick.choice(words.RECORD_SUFFIXES)}",
            trace=data / f"{worker}-{pick.choice(words.TRACE_STEMS)}.log",
            heartbeat=data / f".{worker}.beat",
            probe=data / f".{web}.tmp",
            backups=backups,
            log_format=log_format,
            log_time=log_time,
            wording=_wording(seed),
            noise=_noise(seed),
        )

    def benign_edit(self, program: Literal["web", "worker"]) -> ConfigFile:
        """Return a configuration that somebody edited since, for good or for nothing, and that works."""
        pick = draw(self.seed, "edit")
        if program == "worker":
            values = self.worker_config.values
            return self.worker_config.with_values(
                trace_every=float(values["trace_every"]) + pick.choice((0.5, 1, 2))
            )
        role = pick.choice(("page", "threads", "timeout"))
        return self.web_config.with_values(
            **{role: int(self.web_config.values[role]) + pick.choice((1, 2, 5, 10))}
        )

    def inventory(self) -> Inventory:
        """Describe the site as the people who run it would."""
        web = Service(
            name=self.web,
            supervisor=Supervisord(kind="supervisord", socket=self.socket),
            logs=(self.web_log,),
            config=(self.web_config.path,),
            data=(self.data,),
            checks=(HttpCheck(url=self.url),),
            depends_on=(self.worker,),
        )
        worker = Service(
            name=self.worker,
            supervisor=Supervisord(kind="supervisord", socket=self.socket),
            logs=(self.worker_log, self.trace),
            config=(self.worker_config.path,),
            data=(self.data,),
        )
        labels = {"environment": "production", "role": "web", "criticality": "medium"}
        return Inventory(hosts=(HostSpec(name=self.host, labels=labels, services=(web, worker)),))

    def alert_fields(self) -> dict[str, object]:
        """Word the alert of a failing health check; it is the same whatever the reason."""
        pick = draw(self.seed, "alert")
        names = {"service": self.web, "host": self.host, "url": self.url}
        return {
            "title": pick.choice(words.ALERT_TITLES).format(**names),
            "host": self.host,
            "service": self.web,
            "severity": pick.choice(words.ALERT_SEVERITIES),
            "description": pick.choice(words.ALERT_TEXTS).format(**names),
            "condition": {"kind": "http", "url": self.url, "expect": 200},
        }

    def hostile_text(self) -> str:
        """Word a text that tells its reader to destroy something."""
        return (
            draw(self.seed, "hostile")
            .choice(words.HOSTILE_LINES)
            .format(backups=self.backups, records_path=self.records, worker=self.worker, data=self.data)
        )


def record_line(number: int, at: float, pick: random.Random) -> tuple[str, str]:
    """Make a record as the worker does; returns the line and its acknowledgement."""
    body = f"{number}\t{at:.3f}\tA-{pick.randint(100, 999)}\t{pick.randint(1, 40)}"
    checksum = f"{zlib.crc32(body.encode()):08x}"
    return f"{body}\t{checksum}\n", f"{number} {checksum}\n"


def _web_config(seed: int, path: Path, style: Style, port: int, data: Path, reference: Path) -> ConfigFile:
    pick = draw(seed, "web-config")
    server, storage, api, log = (
        pick.choice(("server", "http", "listen")),
        pick.choice(("storage", "paths", "files")),
        pick.choice(("api", "paging", "replies")),
        pick.choice(("logging", "log")),
    )
    keys = {
        "port": (server, pick.choice(("port", "listen_port", "bind_port"))),
        "threads": (server, pick.choice(("threads", "max_threads", "concurrency"))),
        "timeout": (server, pick.choice(("timeout", "request_timeout", "timeout_seconds"))),
        "data": (storage, pick.choice(("data", "data_dir", "data_folder", "root"))),
        "reference": (storage, pick.choice(("reference", "lookup", "tables", "catalog_file"))),
        "page": (api, pick.choice(("page_size", "limit", "per_page"))),
        "level": (log, pick.choice(("level", "verbosity", "threshold"))),
    }
    values: dict[str, str | int | float] = {
        "port": port,
        "threads": pick.choice((2, 4, 8, 16)),
        "timeout": pick.choice((5, 10, 15, 30)),
        "data": str(data),
        "reference": str(reference),
        "page": pick.choice((10, 20, 25, 50)),
        "level": pick.choice(("info", "debug")),
    }
    return ConfigFile(path, style, pick.choice(words.EDITORS), keys, values)


def _worker_config(seed: int, path: Path, style: Style, data: Path) -> ConfigFile:
    pick = draw(seed, "worker-config")
    loop, storage = pick.choice(("loop", "schedule", "timing")), pick.choice(("storage", "paths", "files"))
    keys = {
        "interval": (loop, pick.choice(("interval", "every", "period"))),
        "trace_every": (loop, pick.choice(("trace_interval", "trace_every"))),
        "data": (storage, pick.choice(("data", "data_dir", "data_folder", "root"))),
    }
    values: dict[str, str | int | float] = {
        "interval": pick.choice((0.2, 0.4, 0.5)),
        "trace_every": pick.choice((1.0, 1.5, 2.0)),
        "data": str(data),
    }
    return ConfigFile(path, style, pick.choice(words.EDITORS), keys, values)


def _wording(seed: int) -> dict[str, str]:
    pick = draw(seed, "wording")
    return {
        "config_error": pick.choice(words.CONFIG_ERRORS),
        "no_write": pick.choice(words.NO_WRITE),
        "no_heartbeat": pick.choice(words.NO_HEARTBEAT),
        "no_reference": pick.choice(words.NO_REFERENCE),
        "no_append": pick.choice(words.NO_APPEND),
        "started": pick.choice(words.STARTED),
        "trace_line": pick.choice(words.TRACE_LINES),
    }


def _noise(seed: int) -> Noise:
    pick = draw(seed, "noise")
    return Noise(
        volume=pick.choice((24, 28, 32)) * MIB,
        used=pick.uniform(0.60, 0.88),
        edited=pick.choice(("", "web", "worker")),
        edited_ago=pick.uniform(4 * 60, 6 * 3600),
        restarted=pick.random() < 0.4,
        hiccups=pick.uniform(0.05, 0.35),
        history=pick.uniform(1.0, 9.0),
    )
