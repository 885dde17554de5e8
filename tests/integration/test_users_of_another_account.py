"""Who may make the first user, asked under a second account of the system."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.lamp import folder_in_memory
from watchkeeper.cli import users as commands
from watchkeeper.runtime.audit import AuditLog
from watchkeeper.runtime.users import FILE

OTHER = "nobody"
ADD = ["add", "mallory", "--role", "admin", "--account", OTHER]


def run(arguments: list[str]) -> tuple[int, str]:
    result = CliRunner().invoke(commands.app, arguments)
    return result.exit_code, result.output


def run_as(account: str, arguments: list[str]) -> tuple[int, str]:
    """Run a command in a process of another account, which may read nothing that is ours alone."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reading)
            other = pwd.getpwnam(account)
            os.setgroups([])
            os.setgid(other.pw_gid)
            os.setuid(other.pw_uid)
            code, said = run(arguments)
            os.write(writing, said.encode())
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), said


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another account")
def test_who_does_not_own_a_home_adds_no_first_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WATCHKEEPER_TOKEN", raising=False)
    with folder_in_memory() as folder:
        folder.chmod(0o755)
        # What the command imports is ours to read alone: it is imported before the process is another's.
        monkeypatch.setenv("WATCHKEEPER_HOME", str(folder / "before"))
        assert run([*ADD[:-1], "no-such-account"])[0] == 2
        home = folder / "home"
        home.mkdir()
        home.chmod(0o777)  # that they can write into it makes it no home of theirs
        monkeypatch.setenv("WATCHKEEPER_HOME", str(home))
        code, said = run_as(OTHER, ADD)
        assert (code, "which owns the home, or root may add one" in " ".join(said.split())) == (2, True), said
        assert not (home / FILE).exists()
        theirs = Path(folder / "theirs")
        theirs.mkdir(mode=0o700)
        os.chown(theirs, pwd.getpwnam(OTHER).pw_uid, -1)
        monkeypatch.setenv("WATCHKEEPER_HOME", str(theirs))
        assert run_as(OTHER, ADD) == (0, "mallory: admin\n")
        (entry,) = [entry.data for entry in AuditLog(theirs).entries() if entry.kind == "users-changed"]
    assert isinstance(entry, dict)
    assert entry["by"] == OTHER
