"""Services of supervisord, over XML-RPC on its UNIX socket (http://supervisord.org/api.html)."""

from __future__ import annotations

import http.client
import re
import signal
import socket
import time
import xmlrpc.client
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.parsers.expat import ExpatError

from watchkeeper.tools.errors import ApplyError, CollectError
from watchkeeper.tools.supervisors import (
    POLL_SECONDS,
    RESTART_WINDOW,
    RunState,
    ServiceState,
    wait_until_down,
)

LOG_TAIL_BYTES = 64 * 1024

# supervisor.states.ProcessStates and supervisor.xmlrpc.Faults: numbers of the wire protocol.
_STOPPED, _STARTING, _RUNNING, _BACKOFF, _STOPPING, _EXITED, _FATAL = 0, 10, 20, 30, 40, 100, 200
_BAD_NAME, _SPAWN_ERROR, _ALREADY_STARTED, _NOT_RUNNING = 10, 50, 60, 70
_FAULT_WORDS = {20: "its command was not found", 21: "its command cannot be executed"}

_EVENT = re.compile(
    r"^(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),(?P<ms>\d{3}) (?:INFO|WARN) "
    r"(?:(?P<spawned>spawned: '(?P<spawn_name>[^']*)' with pid \d+)"
    r"|(?:(?P<exited>exited)|stopped): (?P<exit_name>\S+) \("
    r"(?:exit status (?P<status>\d+)|terminated by (?P<signal>SIG\w+))"
    r"(?: \(core dumped\))?(?:; (?:not )?expected)?\))$",
    re.MULTILINE,
)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path
        self._limit = timeout

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._limit)
        self.sock.connect(self._path)


class _UnixTransport(xmlrpc.client.Transport):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__()
        self._path = path
        self._limit = timeout

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        connection = _UnixConnection(self._path, self._limit)
        self._connection = host, connection  # where close() finds it
        return connection


class SupervisordService:
    """One program of a supervisord.

    Args:
        socket_path: Path of supervisord's UNIX socket.
        program: Name of the program, ``group:name`` where it is in a group of another name.
        timeout: Seconds that one call may take.
        stop_timeout: Seconds that the program may take to end.
    """

    def __init__(
        self, socket_path: Path, program: str, *, timeout: float = 5.0, stop_timeout: float = 100.0
    ) -> None:
        self._socket = socket_path
        self._program = program
        self._timeout = timeout
        self._stop_timeout = stop_timeout

    def status(self) -> ServiceState:
        """Return the program's state.

        Raises:
            CollectError: If supervisord does not answer, or has no such program.
        """
        try:
            info = self._call("getProcessInfo", self._program)
        except xmlrpc.client.Fault as fault:
            raise self._unreadable(fault) from fault
        try:
            log = self._call("readLog", -LOG_TAIL_BYTES, 0)
        except (xmlrpc.client.Fault, CollectError):
            # Supervisord may keep no log, or one with bytes that XML cannot carry: then the
            # signal that ended a process is not known, and neither is the number of restarts.
            log = None
        if not isinstance(info, dict):
            raise CollectError(f"supervisord at {str(self._socket)!r} answered {info!r:.80} for a status")
        return interpret_supervisord(
            info, log if isinstance(log, str) else None, utc_offset=time.localtime().tm_gmtoff
        )

    def supervisor_pid(self) -> int:
        """Return the process of supervisord itself.

        Raises:
            CollectError: If it does not answer.
        """
        try:
            pid = self._call("getPID")
        except xmlrpc.client.Fault as fault:
            raise self._unreadable(fault) from fault
        return int(str(pid))

    def start(self) -> None:
        """Have the program started; returns when its process was spawned.

        Raises:
            CollectError: If supervisord does not answer.
            ApplyError: If it cannot spawn the program.
        """
        self._change("startProcess", unless=_ALREADY_STARTED)

    def stop(self) -> None:
        """Have the program stopped; returns when it is down.

        Raises:
            CollectError: If supervisord does not answer.
            ApplyError: If it refuses, or the program does not end in time.
        """
        if not self._is_stopping():
            self._change("stopProcess", unless=_NOT_RUNNING)
        wait_until_down(self, self._program, timeout=self._stop_timeout)

    def restart(self) -> None:
        """Stop the program if it is up, and start it.

        Raises:
            CollectError: If supervisord does not answer.
            ApplyError: If it refuses, or the program does not end in time.
        """
        self.stop()
        self.start()

    def _is_stopping(self) -> bool:
        return self.status().state is RunState.UNKNOWN

    def _change(self, method: str, *, unless: int) -> None:
        try:
            self._call(method, self._program, False)  # returning at once: waiting is bounded on our side
        except xmlrpc.client.Fault as fault:
            if fault.faultCode == unless:
                return
            if fault.faultCode == _BAD_NAME:
                raise self._unreadable(fault) from fault
            if fault.faultCode == _SPAWN_ERROR:
                # A process that ended within the first milliseconds counts as one that failed to spawn.
                time.sleep(POLL_SECONDS)
                why = self.status().exit or "could not be spawned"
            else:
                why = _FAULT_WORDS.get(fault.faultCode, fault.faultString)
            raise ApplyError(
                f"supervisord refuses {method} of program {self._program!r}: {why}; its own log says more"
            ) from fault

    def _call(self, method: str, *arguments: str | int | bool) -> object:
        transport = _UnixTransport(str(self._socket), self._timeout)
        try:
            with xmlrpc.client.ServerProxy("http://localhost/RPC2", transport=transport) as proxy:
                answer: object = getattr(proxy.supervisor, method)(*arguments)
                return answer
        except FileNotFoundError as error:
            raise CollectError(
                f"supervisord's socket {str(self._socket)!r} does not exist: is supervisord running, and is "
                "the inventory's 'socket' the 'file' of its [unix_http_server] section?"
            ) from error
        except PermissionError as error:
            raise CollectError(
                f"supervisord's socket {str(self._socket)!r} may not be used by this user: run as its owner, "
                "or set 'chmod' and 'chown' in its [unix_http_server] section"
            ) from error
        except ConnectionRefusedError as error:
            raise CollectError(
                f"nothing listens on supervisord's socket {str(self._socket)!r}: supervisord has ended"
            ) from error
        except TimeoutError as error:
            raise CollectError(
                f"supervisord at {str(self._socket)!r} did not answer {method} within {self._timeout:g} s"
            ) from error
        except (OSError, http.client.HTTPException, xmlrpc.client.ProtocolError, ExpatError) as error:
            raise CollectError(
                f"supervisord at {str(self._socket)!r} could not answer {method}: {error!r:.200}"
            ) from error
        except xmlrpc.client.ResponseError as error:
            raise CollectError(f"what listens on {str(self._socket)!r} is not supervisord") from error

    def _unreadable(self, fault: xmlrpc.client.Fault) -> CollectError:
        if fault.faultCode == _BAD_NAME:
            return CollectError(
                f"supervisord at {str(self._socket)!r} has no program {self._program!r} "
                "(where it is in a group of another name, the inventory's 'program' is 'group:name')"
            )
        return CollectError(f"supervisord at {str(self._socket)!r} answered: {fault.faultString!r:.200}")


def interpret_supervisord(info: Mapping[str, Any], log: str | None, *, utc_offset: int) -> ServiceState:
    """Turn supervisord's answer and the tail of its log into a state; pure.

    The answer alone says of a killed process only that it was killed (``exitstatus`` -1); which signal
    it was, and how often the program was started again, stands in the log.

    Args:
        info: What ``getProcessInfo`` returned.
        log: The last bytes of supervisord's own log; None if it keeps none.
        utc_offset: Seconds that the host's local time is ahead of UTC: the log's times are local.
    """
    code, now = int(info["state"]), int(info["now"])
    start, stop = int(info["start"]), int(info["stop"])
    state, since = {
        _STOPPED: (RunState.STOPPED, stop),
        _STARTING: (RunState.STARTING, start),
        _RUNNING: (RunState.RUNNING, start),
        _BACKOFF: (RunState.STARTING, stop),
        _STOPPING: (RunState.UNKNOWN, 0),
        _EXITED: (RunState.FAILED if int(info["exitstatus"]) else RunState.STOPPED, stop),
        _FATAL: (RunState.FAILED, stop),
    }.get(code, (RunState.UNKNOWN, 0))
    exit_text, restarts = ("", None) if log is None else _read_log(log, str(info["name"]), now, utc_offset)
    if not exit_text:
        exit_text = _exit_without_log(info, code)
    return ServiceState(
        state=state,
        pid=int(info["pid"]) or None,
        started=_moment(start),
        since=_moment(since),
        exit=exit_text,
        restarts=restarts,
        now=datetime.fromtimestamp(now, UTC),
    )


def _exit_without_log(info: Mapping[str, Any], code: int) -> str:
    if code in (_FATAL, _BACKOFF):
        problem = str(info["spawnerr"])
        if problem.startswith("can't find command"):
            return "its command was not found"
        return "exited too quickly" if problem.startswith("Exited too quickly") else "could not be spawned"
    if code not in (_STOPPED, _EXITED) or not int(info["stop"]):
        return ""
    status = int(info["exitstatus"])
    return "killed by a signal" if status == -1 else f"exit status {status}"


def _read_log(log: str, name: str, now: int, utc_offset: int) -> tuple[str, int]:
    exit_text, restarts, ended_by_itself = "", 0, False
    horizon = datetime.fromtimestamp(now, UTC) - RESTART_WINDOW
    for event in _EVENT.finditer(log):
        if name not in (event["spawn_name"], event["exit_name"]):
            continue
        moment = datetime.strptime(event["time"], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
        moment -= timedelta(seconds=utc_offset)
        if event["spawned"]:
            restarts += ended_by_itself and moment >= horizon
            ended_by_itself = False
            continue
        ended_by_itself = bool(event["exited"])
        if event["signal"]:
            number = signal.Signals.__members__.get(event["signal"])
            exit_text = "killed by a signal" if number is None else f"killed by signal {int(number)}"
        else:
            exit_text = f"exit status {event['status']}"
    return exit_text, restarts


def _moment(seconds: int) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None
