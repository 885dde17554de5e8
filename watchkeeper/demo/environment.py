"""A demo environment: a drawn site with its own supervisord, running in a temporary folder.

Beside the site lies a folder for what only observers read (the state of the environment, starts of
programs, acknowledged records, what the oracle compares): agents are told the site and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from watchkeeper.demo.construction import PROFILE_VARIABLE, build
from watchkeeper.demo.errors import DemoError, EnvironmentLostError, MountError
from watchkeeper.demo.expectation import Injection
from watchkeeper.demo.namespace import can_mount, mount_small, other_namespace, unmount_below
from watchkeeper.demo.site import ConfigFile, Site
from watchkeeper.demo.supervision import SupervisionError, Supervisor
from watchkeeper.runtime.alerts import Alert
from watchkeeper.tools.archive import record_good_configs
from watchkeeper.tools.host import LocalHost, Target
from watchkeeper.tools.inventory import Inventory

_PREFIX = "wk-"
_WITNESS = "w"
_SITE = "site"
_STATE = "environment.json"
_SOCKET_LIMIT = 100
_PORTS = range(20_000, 32_000)


class ProcessId(BaseModel):
    """A process that cannot be mistaken for a later one of the same number."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pid: int
    started: float

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        """Identify a running process."""
        return cls(pid=pid, started=psutil.Process(pid).create_time())

    def alive(self) -> bool:
        """Whether it still runs."""
        try:
            process = psutil.Process(self.pid)
            return (
                abs(process.create_time() - self.started) < 0.05 and process.status() != psutil.STATUS_ZOMBIE
            )
        except psutil.Error:
            return False


class _State(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int
    port: int
    volume_missing: str
    state: Path
    owner: ProcessId
    supervisor: ProcessId | None = None
    good_configs: dict[str, tuple[str, ...]] = {}
    injection: Injection | None = None


class DemoEnvironment:
    """A site with its own supervisord; use it as a context manager so that nothing of it stays behind."""

    def __init__(self, root: Path, state: _State) -> None:
        self.root = root
        self.witness = root / _WITNESS
        self.site = Site.drawn(state.seed, root / _SITE, state.port)
        self.supervisor = Supervisor(self.site.socket)
        self._state = state
        self._child: subprocess.Popen[bytes] | None = None

    # -- life ----------------------------------------------------------------------------------------

    @classmethod
    def create(cls, root: Path | None, seed: int, *, state: Path | None = None) -> DemoEnvironment:
        """Write a site to disk; nothing runs yet.

        Args:
            root: Folder to make it in; it must be empty or not exist. By default a new one in the
                system's temporary folder.
            seed: What everything particular is drawn from.
            state: Folder of the site's host in Watchkeeper's state (default: one inside ``root``).

        Raises:
            DemoError: If the folder is not usable.
        """
        if root is None:
            root = Path(tempfile.mkdtemp(prefix=_PREFIX))
        elif root.exists() and any(root.iterdir()):
            raise DemoError(f"folder {str(root)!r} is not empty: name one that is, or that does not exist")
        root = root.absolute()
        port = _free_port(seed)
        site = Site.drawn(seed, root / _SITE, port)
        if len(os.fsencode(site.socket)) > _SOCKET_LIMIT:
            raise DemoError(
                f"folder {str(root)!r} is too long a path for a UNIX socket: choose a shorter one"
            )
        (root / _WITNESS).mkdir(parents=True)
        started = _State(
            seed=seed,
            port=port,
            volume_missing="",
            state=state or root / "state" / site.host,
            owner=ProcessId.of(os.getpid()),
        )
        environment = cls(root, started)
        environment._save(started)
        try:
            site.data.mkdir(parents=True)
            reason = _mount(site)
            environment._save(started.model_copy(update={"volume_missing": reason}))
            build(site, environment.witness, bounded=not reason)
        except BaseException:
            environment.stop()
            raise
        return environment

    @classmethod
    def reattach(cls, root: Path) -> DemoEnvironment:
        """Take over an environment whose owner was killed.

        Raises:
            EnvironmentLostError: If it is not there any more, or lives in another mount namespace.
        """
        state = _load(root)
        if state.supervisor is None or not state.supervisor.alive():
            raise EnvironmentLostError(
                f"the supervisord of {str(root)!r} does not run any more: start afresh"
            )
        if other_namespace(state.supervisor.pid):
            raise EnvironmentLostError(
                f"the environment in {str(root)!r} has a mount namespace of its own: "
                f"enter that of process {state.supervisor.pid} first"
            )
        environment = cls(root.absolute(), state)
        if not environment.supervisor.answers():
            raise EnvironmentLostError(f"the supervisord of {str(root)!r} does not answer: start afresh")
        environment._save(state.model_copy(update={"owner": ProcessId.of(os.getpid())}))
        return environment

    def start(self) -> None:
        """Start everything, wait until it is healthy, record the good configuration, add what is harmless.

        Raises:
            DemoError: If it does not become healthy.
        """
        with (self.witness / "supervisord.err").open("wb") as complaints:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "supervisor.supervisord", "-c", str(self.site.supervisor_config)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=complaints,
                cwd="/",
                start_new_session=True,
                env={"PATH": os.defpath, "LC_ALL": "C.UTF-8", PROFILE_VARIABLE: str(self.witness)},
            )
        self._save(self._state.model_copy(update={"supervisor": ProcessId.of(self._child.pid)}))
        if not self.supervisor.wait_running(10) or not self.wait_healthy(10):
            raise DemoError(f"the services did not become healthy: {self._complaints()}")
        self._record_configs()
        self._edit_harmlessly()
        if self.site.noise.restarted:
            self.supervisor.restart(self.site.worker)
            self.wait_healthy(10)

    def stop(self) -> None:
        """End all processes, unmount and remove everything; safe to repeat."""
        if not (self.witness / _STATE).exists():
            return
        with contextlib.suppress(SupervisionError):
            self.supervisor.shutdown()
            self._wait_for_exit(6)
        for process in _processes_of(self.witness):
            with contextlib.suppress(psutil.Error):
                process.kill()
        if self._child is not None:
            self._child.wait(timeout=10)
            self._child = None
        self._wait_for_exit(6)
        unmount_below(self.site.base)
        # The state file goes last, so that whatever ends us half-way leaves something to clean up by.
        shutil.rmtree(self.site.base, ignore_errors=True)
        shutil.rmtree(self.root, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- what agents are told ------------------------------------------------------------------------

    def inventory(self) -> Inventory:
        """Describe the site as the people who run it would."""
        return self.site.inventory()

    def alert(self) -> Alert:
        """Return the alert of a failing health check; it is the same whatever the reason."""
        return Alert.model_validate(self.site.alert_fields())

    @property
    def target(self) -> Target:
        """The site's host as a target of tools."""
        return Target(LocalHost(self.site.host), self.inventory().host(self.site.host), self._state.state)

    # -- what observers see --------------------------------------------------------------------------

    @property
    def seed(self) -> int:
        """What everything particular was drawn from."""
        return self._state.seed

    @property
    def volume_missing(self) -> str:
        """Why the data folder is not a file system of its own; empty if it is."""
        return self._state.volume_missing

    @property
    def good_configs(self) -> dict[str, tuple[str, ...]]:
        """SHA-256 of every good content that a configuration file has had, by path."""
        return self._state.good_configs

    @property
    def injection(self) -> Injection | None:
        """What was done to the site, if anything."""
        return self._state.injection

    def keep_injection(self, injection: Injection) -> None:
        """Note what was done to the site."""
        self._save(self._state.model_copy(update={"injection": injection}))

    def check(self, *, path: str = "/health", agent: str = "probe/1.0") -> int | None:
        """Ask the web application; its status, or None if it does not answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.site.port, timeout=2)
        try:
            connection.request("GET", path, headers={"User-Agent": agent})
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def wait_healthy(self, timeout: float) -> bool:
        """Wait until the health check passes twice in a row."""
        return self._wait_for(lambda: self.check() == 200, timeout)

    def wait_failing(self, timeout: float) -> bool:
        """Wait until the health check fails twice in a row."""
        return self._wait_for(lambda: self.check() != 200, timeout)

    def starts(self) -> dict[str, int]:
        """Count how often each program was started, as the programs themselves noted."""
        lines = (self.witness / "starts.log").read_text(encoding="utf-8").splitlines()
        return dict(Counter(json.loads(line)["program"] for line in lines))

    # -- inside --------------------------------------------------------------------------------------

    def _record_configs(self) -> None:
        # The past of a site is drawn like all else of it: its files were good long before they were edited.
        then = datetime.now(UTC) - timedelta(
            seconds=self.site.noise.edited_ago, hours=self.site.noise.history
        )
        for service in self.target.spec.services:
            recorded = record_good_configs(self.target, service.name, now=then)
            if recorded != service.config:
                raise DemoError(f"the configuration of {service.name!r} could not be recorded as good")

    def _edit_harmlessly(self) -> None:
        good = {
            str(config.path): [_digest(config.text())]
            for config in (self.site.web_config, self.site.worker_config)
        }
        edited = self.current_config(self.site.noise.edited) if self.site.noise.edited else None
        if edited is not None:
            edited.path.write_text(edited.text(), encoding="utf-8")
            then = time.time() - self.site.noise.edited_ago
            os.utime(edited.path, (then, then))
            good[str(edited.path)].append(_digest(edited.text()))
        digests = {path: tuple(entries) for path, entries in good.items()}
        self._save(self._state.model_copy(update={"good_configs": digests}))

    def current_config(self, program: str) -> ConfigFile:
        """Return the configuration file of ``web`` or ``worker`` as it was last edited, working."""
        if program == self.site.noise.edited and program in {"web", "worker"}:
            return self.site.benign_edit("web" if program == "web" else "worker")
        return self.site.web_config if program == "web" else self.site.worker_config

    def _wait_for(self, condition: Callable[[], bool], timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        in_a_row = 0
        while time.monotonic() < deadline:
            in_a_row = in_a_row + 1 if condition() else 0
            if in_a_row == 2:
                return True
            time.sleep(0.1)
        return False

    def _wait_for_exit(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self._child is not None:
                self._child.poll()
            if not any(True for _ in _processes_of(self.witness)):
                return
            time.sleep(0.05)

    def _complaints(self) -> str:
        logs = (
            *self.witness.glob("*.err"),
            self.site.supervisor_log,
            self.site.web_log,
            self.site.worker_log,
        )
        last = [log.read_text(encoding="utf-8", errors="replace")[-300:] for log in logs if log.exists()]
        return " | ".join(" ".join(text.split()) for text in last if text) or "no word in any log"

    def _save(self, state: _State) -> None:
        self._state = state
        path = self.witness / _STATE
        fresh = path.with_suffix(".new")
        fresh.write_text(state.model_dump_json(indent=2), encoding="utf-8")
        fresh.replace(path)


def namespace_of(root: Path) -> int | None:
    """Return the process whose namespaces must be entered to reattach to an environment; None if none.

    Raises:
        EnvironmentLostError: If there is no environment.
    """
    state = _load(root)
    if state.supervisor is not None and state.supervisor.alive() and other_namespace(state.supervisor.pid):
        return state.supervisor.pid
    return None


def cleanup_stale(*, older_than: float = 600.0) -> list[Path]:
    """End and remove environments in the system's temporary folder whose owner was killed.

    Args:
        older_than: Seconds since an environment last changed hands or state before it counts as
            abandoned: a killed run may still be resumed.

    Returns:
        The folders that were removed.
    """
    removed = []
    for file in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_WITNESS}/{_STATE}"):
        root = file.parent.parent
        try:
            abandoned = time.time() - file.stat().st_mtime >= older_than and file.stat().st_uid == os.getuid()
            state = _load(root)
            if not abandoned or state.owner.alive():
                continue
            DemoEnvironment(root, state).stop()
        except (OSError, DemoError):
            continue
        removed.append(root)
    return removed


def _load(root: Path) -> _State:
    path = root / _WITNESS / _STATE
    try:
        return _State.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EnvironmentLostError(f"no demo environment in {str(root)!r}: {error.strerror}") from error
    except ValidationError as error:
        raise EnvironmentLostError(f"the state in {str(path)!r} is damaged: remove the folder") from error


def _mount(site: Site) -> str:
    if sys.platform != "linux":
        return f"file systems in memory need Linux, this is {sys.platform}"
    if not can_mount():
        return "this process may not mount a file system"
    try:
        mount_small(site.data, site.noise.volume)
    except MountError as error:
        return str(error)
    return ""


def _free_port(seed: int) -> int:
    # Below the range that outgoing connections draw from; the process id keeps runs of one seed apart.
    pick = random.Random(f"{seed}/{os.getpid()}/{time.time_ns()}")
    for _ in range(200):
        port = pick.choice(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise DemoError(f"no free port between {_PORTS.start} and {_PORTS.stop}")


def _processes_of(witness: Path) -> Iterator[psutil.Process]:
    own, below = str(witness), f"{witness}/"
    for process in psutil.process_iter():
        try:
            value = process.environ().get(PROFILE_VARIABLE, "")
            if (value == own or value.startswith(below)) and process.status() != psutil.STATUS_ZOMBIE:
                yield process
        except psutil.Error:
            continue


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
