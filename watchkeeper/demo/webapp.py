"""A small web application: ``/health`` tells whether it can do its work, everything else lists records.

Stands alone (standard library only) and is run by path: ``python webapp.py CONFIG``. The environment
variable ``SERVICE_PROFILE`` names a JSON file with what is particular to an installation: names of the
settings, wording and format of log lines, and where starts are counted.
"""

from __future__ import annotations

import configparser
import json
import logging
import os
import random
import signal
import sys
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NoReturn

LEVELS = ("debug", "info", "warning", "error")


class SettingError(Exception):
    """A setting is missing or invalid."""


@dataclass(frozen=True)
class Settings:
    """What the configuration file says."""

    port: int
    threads: int
    timeout: float
    page: int
    level: str
    data: Path
    reference: Path


def read_table(path: Path, style: str) -> dict[str, dict[str, Any]]:
    """Read sections of settings from a JSON or INI file.

    Raises:
        SettingError: If the file cannot be read or parsed.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if style == "json":
            table = json.loads(text)
        else:
            parser = configparser.ConfigParser(interpolation=None)
            parser.read_string(text, source=path.name)
            table = {section: dict(parser[section]) for section in parser.sections()}
    except OSError as error:
        raise SettingError(f"cannot be read: {error.strerror}") from error
    except (ValueError, configparser.Error) as error:
        raise SettingError(f"cannot be parsed: {' '.join(str(error).split())}") from error
    if not isinstance(table, dict) or not all(isinstance(part, dict) for part in table.values()):
        raise SettingError("cannot be parsed: sections expected at the top level")
    return table


def read_settings(path: Path, style: str, keys: dict[str, list[str]]) -> Settings:
    """Read and check the configuration file.

    Raises:
        SettingError: If a setting is missing or invalid.
    """
    table = read_table(path, style)

    def value(role: str) -> Any:
        section, key = keys[role]
        try:
            return table[section][key]
        except KeyError as error:
            raise SettingError(f"{section}.{key} is missing") from error

    def number(role: str, low: float, high: float) -> float:
        raw = value(role)
        place = ".".join(keys[role])
        try:
            parsed = float(raw)
        except (TypeError, ValueError) as error:
            raise SettingError(f"invalid value {raw!r} for {place}: not a number") from error
        if not low <= parsed <= high:
            raise SettingError(f"invalid value {raw!r} for {place}: must be between {low:g} and {high:g}")
        return parsed

    level = str(value("level"))
    if level.lower() not in LEVELS:
        raise SettingError(
            f"invalid value {level!r} for {'.'.join(keys['level'])}: one of {', '.join(LEVELS)}"
        )
    return Settings(
        port=int(number("port", 1, 65535)),
        threads=int(number("threads", 1, 64)),
        timeout=number("timeout", 0.1, 300),
        page=int(number("page", 1, 1000)),
        level=level,
        data=Path(str(value("data"))),
        reference=Path(str(value("reference"))),
    )


@dataclass(frozen=True)
class Health:
    """An HTTP status and, if it is not 200, what to write to the log."""

    status: int
    problem: str = ""


class Application:
    """What requests are answered from."""

    def __init__(self, settings: Settings, profile: dict[str, Any]) -> None:
        self.settings = settings
        self.profile = profile
        self.wording: dict[str, str] = profile["wording"]
        self.log = logging.getLogger(profile["name"])
        self._probe = threading.Lock()

    def health(self) -> Health:
        """Look whether this service can do its work: read, write, and see its worker alive."""
        data, reference = self.settings.data, self.settings.reference
        try:
            json.loads(reference.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            return Health(500, self._say("no_reference", path=reference, problem=error))
        try:
            with self._probe:
                self._try_writing(data / self.profile["probe"])
        except FileNotFoundError as error:
            return Health(500, self._say("no_write", path=data, problem=error))
        except OSError as error:
            return Health(503, self._say("no_write", path=data, problem=error))
        try:
            age = time.time() - (data / self.profile["heartbeat"]).stat().st_mtime
        except OSError:
            age = float("inf")
        if age > self.profile["heartbeat_limit"]:
            return Health(503, self._say("no_heartbeat", worker=self.profile["worker"], age=f"{age:.1f} s"))
        return Health(200)

    def _say(self, kind: str, **values: object) -> str:
        return self.wording[kind].format(**values)

    @staticmethod
    def _try_writing(path: Path) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(descriptor, b"\0" * 8192)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
            path.unlink(missing_ok=True)

    def records(self) -> dict[str, object]:
        """Return the newest records."""
        text = (self.settings.data / self.profile["records"]).read_text(encoding="utf-8")
        lines = text.splitlines()
        return {"count": len(lines), "newest": lines[-self.settings.page :]}

    def chatter(self, stopped: threading.Event) -> None:
        """Write lines of an ordinary day to the log."""
        chance = random.Random()
        while not stopped.wait(chance.uniform(0.5, 2.0)):
            if chance.random() < self.profile["hiccups"]:
                level, line = chance.choice(self.profile["hiccup_lines"])
            else:
                level, line = "INFO", chance.choice(self.profile["routine_lines"])
            values = {"small": chance.randint(2, 99), "number": chance.randint(1000, 99999)}
            self.log.log(logging.getLevelName(level), line.format(**values))


def handler_for(application: Application) -> type[BaseHTTPRequestHandler]:
    """Make the request handler of an application."""

    class Handler(BaseHTTPRequestHandler):
        server_version = "httpd"
        sys_version = ""
        timeout = application.settings.timeout

        def do_GET(self) -> None:
            if self.path == "/health":
                health = application.health()
                if health.problem:
                    application.log.error(health.problem)
                self._answer(health.status, {"status": "ok" if health.status == 200 else "unavailable"})
                return
            try:
                status, body = 200, application.records()
            except OSError as error:
                status, body = 500, {"error": str(error)}
            agent = self.headers.get("User-Agent", "-")
            application.log.info("GET %s %d agent='%s'", self.path, status, agent)
            self._answer(status, body)

        def _answer(self, status: int, body: dict[str, Any]) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (name given by the base class)
            """Requests are logged by the application."""

    return Handler


def main() -> NoReturn:
    """Serve until told to stop."""
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
        settings = read_settings(config, profile["style"], profile["keys"])
    except SettingError as error:
        log.error(profile["wording"]["config_error"].format(path=config, problem=error))
        raise SystemExit(2) from error
    logging.getLogger().setLevel(settings.level.upper())
    application = Application(settings, profile)
    try:
        server = ThreadingHTTPServer(("127.0.0.1", settings.port), handler_for(application))
    except OSError as error:
        log.error("cannot listen on 127.0.0.1:%d: %s", settings.port, error)
        raise SystemExit(3) from error
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    threading.Thread(target=application.chatter, args=(stopped,), daemon=True).start()
    log.info(
        "%s, listening on 127.0.0.1:%d with %d threads",
        profile["wording"]["started"],
        settings.port,
        settings.threads,
    )
    stopped.wait()
    log.info("stopping")
    raise SystemExit(0)


if __name__ == "__main__":
    main()
