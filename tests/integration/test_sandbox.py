"""A fact's command can look and nothing else: real commands that try more, in a real sandbox."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from watchkeeper.tools import confined
from watchkeeper.tools.confined import ConfinedHost
from watchkeeper.tools.define import fact
from watchkeeper.tools.errors import CollectError
from watchkeeper.tools.fact import Result
from watchkeeper.tools.host import CommandResult, LocalHost, Target
from watchkeeper.tools.inventory import HostSpec
from watchkeeper.tools.registry import Registry
from watchkeeper.tools.sandbox import FILE_BYTES, Sandbox, find_sandbox

needs_sandbox = pytest.mark.skipif(
    not find_sandbox().bubblewrap, reason=f"no sandbox here: {find_sandbox().missing}"
)
BARE = Sandbox("", find_sandbox().prlimit, "bubblewrap is not there in this test")


def python(host: ConfinedHost, script: str, *, timeout: float = 20.0) -> CommandResult:
    # The one of the system: the sandbox's path does not lead into an environment of ours.
    return host.run(["python3", "-c", script], timeout=timeout)


def confined_host(sandbox: Sandbox | None = None, *, network: bool = False) -> ConfinedHost:
    return ConfinedHost("here", sandbox or find_sandbox(), network=network)


@needs_sandbox
def test_a_command_cannot_write_anywhere(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    done = confined_host().run(["sh", "-c", f"echo changed > {tmp_path}/file"])
    assert done.status != 0
    assert "Read-only file system" in done.stderr
    assert list(tmp_path.iterdir()) == []


@needs_sandbox
def test_a_command_has_no_network_unless_its_fact_declares_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        dial = f"import socket; socket.create_connection(('127.0.0.1', {port}), 3); print('through')"
        shut, opened = python(confined_host(), dial), python(confined_host(network=True), dial)
    assert shut.status != 0
    assert "through" not in shut.stdout
    assert opened.stdout == "through\n"


@needs_sandbox
def test_a_command_sees_other_processes_and_cannot_end_them() -> None:
    with subprocess.Popen(["sleep", "60"]) as victim:
        seen = confined_host().run(["cat", f"/proc/{victim.pid}/comm"])
        hit = confined_host().run(["kill", "-9", str(victim.pid)])
        still = victim.poll() is None
        victim.kill()
    assert seen.stdout == "sleep\n"
    assert hit.status != 0
    assert still


@needs_sandbox
def test_a_command_gains_no_privilege() -> None:
    status = confined_host().run(["cat", "/proc/self/status"]).stdout
    rights = {line.split(":")[0]: line.split()[-1] for line in status.splitlines() if ":\t" in line}
    assert rights["NoNewPrivs"] == "1"
    # CAP_DAC_READ_SEARCH and CAP_SYS_PTRACE (bits 2 and 19) for root, nothing for others.
    assert int(rights["CapEff"], 16) & ~(1 << 2 | 1 << 19) == 0


@needs_sandbox
def test_what_a_command_started_ends_with_it() -> None:
    mark = f"48271.{os.getpid()}"
    script = f"for i in 1 2 3 4 5 6 7 8 9; do setsid sleep {mark} & done; sleep {mark}"
    with pytest.raises(CollectError, match="did not end within 1 s"):
        confined_host().run(["sh", "-c", script], timeout=1)
    deadline = time.monotonic() + 5
    while _running(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _running(mark) == []


@needs_sandbox
def test_a_command_that_forks_without_end_is_stopped() -> None:
    script = (
        "import os, time\nchildren = 0\ntry:\n while children < 1000:\n  pid = os.fork()\n"
        "  if not pid:\n   time.sleep(30)\n  children += 1\nexcept OSError:\n print('refused', children)"
    )
    before = len(psutil.pids())
    if os.geteuid() == 0:  # the kernel holds root to no number of processes, so the time limit ends all
        with pytest.raises(CollectError, match="did not end within 3 s"):
            python(confined_host(), script + "\ntime.sleep(30)", timeout=3)
    else:
        with pytest.raises(CollectError, match="did not end"):
            python(confined_host(), script, timeout=3)
    deadline = time.monotonic() + 10
    while len(psutil.pids()) > before + 100 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(psutil.pids()) <= before + 100


@pytest.mark.parametrize("sandbox", [pytest.param(None, marks=needs_sandbox), BARE])
def test_a_gigabyte_of_output_is_cut_and_said(sandbox: Sandbox | None) -> None:
    started = time.monotonic()
    done = confined_host(sandbox).run(["head", "-c", "1000000000", "/dev/zero"])
    assert done.cut
    assert len(done.stdout) == confined.OUTPUT_BYTES
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("sandbox", [pytest.param(None, marks=needs_sandbox), BARE])
def test_a_command_that_sleeps_is_ended_in_time(sandbox: Sandbox | None) -> None:
    started = time.monotonic()
    with pytest.raises(CollectError, match=r"'sleep' on host 'here' did not end within 0.5 s"):
        confined_host(sandbox).run(["sleep", "60"], timeout=0.5)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("sandbox", [pytest.param(None, marks=needs_sandbox), BARE])
def test_a_command_cannot_take_all_memory(sandbox: Sandbox | None) -> None:
    if not find_sandbox().prlimit:
        pytest.skip("prlimit is not installed")
    done = python(confined_host(sandbox), "print(len(bytearray(3 << 30)))")
    assert done.status != 0
    assert "MemoryError" in done.stderr


@needs_sandbox
def test_its_own_memory_file_system_is_bounded() -> None:
    done = confined_host().run(
        ["sh", "-c", f"head -c {FILE_BYTES * 2} /dev/zero > /dev/shm/a; wc -c /dev/shm/a"]
    )
    assert done.stdout.split()[0] == str(FILE_BYTES)


@pytest.mark.parametrize("sandbox", [pytest.param(None, marks=needs_sandbox), BARE])
def test_the_environment_is_cleared(sandbox: Sandbox | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a canary")
    names = {line.split("=")[0] for line in confined_host(sandbox).run(["env"]).stdout.splitlines()}
    assert {"LC_ALL", "PATH"} <= names <= {"LC_ALL", "PATH", "PWD"}


@pytest.mark.parametrize("sandbox", [pytest.param(None, marks=needs_sandbox), BARE])
def test_input_is_read_and_status_and_complaints_come_back(sandbox: Sandbox | None) -> None:
    done = confined_host(sandbox).run(["sh", "-c", "cat; echo no >&2; exit 3"], stdin="given\n")
    assert (done.status, done.stdout, done.stderr, done.cut) == (3, "given\n", "no\n", False)


def test_programs_that_are_missing_are_named_as_without_a_sandbox(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("no program")
    with pytest.raises(CollectError, match=r"data' cannot be run on host 'here': Permission denied"):
        confined_host().run([str(tmp_path / "data")])
    with pytest.raises(CollectError, match=r"none' is not installed on host 'here'"):
        confined_host().run([str(tmp_path / "none")])


class Said(Result):
    """What a command printed."""

    text: str


@needs_sandbox
def test_facts_are_confined_and_a_cut_is_said_in_their_result(tmp_path: Path) -> None:
    @fact("flood.text", summary="what floods")
    def flood(target: Target) -> Said:
        return Said(text=target.host.run(["head", "-c", "2000000", "/dev/zero"]).stdout[:3])

    @fact("file.touch", summary="what cannot be changed")
    def touch(target: Target) -> Said:
        return Said(text=target.host.run(["touch", str(tmp_path / "new")]).stderr)

    target = Target(LocalHost("here"), HostSpec(name="here"), tmp_path)
    registry = Registry([flood, touch])
    flooded = registry.gather("flood.text", target, {}, id="E1")
    assert flooded.result is not None
    assert flooded.result["cut"] is True
    registry.gather("file.touch", target, {}, id="E2")
    assert not (tmp_path / "new").exists()
    # An action's target is the host itself.
    assert target.host.run(["touch", str(tmp_path / "new")]).status == 0
    assert (tmp_path / "new").exists()


def test_a_sandbox_that_does_not_work_is_told_with_what_to_do(tmp_path: Path) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    broken.chmod(0o755)
    script = (
        f"from watchkeeper.tools import sandbox; sandbox.PATH = {str(tmp_path)!r} + ':' + sandbox.PATH\n"
        "print(sandbox.find_sandbox().note)\nprint(repr(sandbox.find_sandbox().bubblewrap))"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "WITHOUT a full sandbox: bubblewrap does not work here" in said
    assert "No permissions to create new namespace" in said
    assert said.splitlines()[1] == "''"


def _running(mark: str) -> list[int]:
    return [p.pid for p in psutil.process_iter(["cmdline"]) if mark in (p.info["cmdline"] or [])]
