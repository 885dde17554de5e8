"""Whether an alias is what answers: every server of the predictor is asked, and waited for while it loads."""

from __future__ import annotations

import contextlib
import os
import platform
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import psutil
import pytest

from tests.serving import Answer, flaky
from watchkeeper.tools.action import Verification
from watchkeeper.tools.versions import Versions, live
from watchkeeper.tools.versions.server_file import RunningServer, announced, running_servers


@dataclass
class Registry:
    """The part of `Versions` that is asked here."""

    folder: Path
    champion: int = 2

    def aliases(self, name: str) -> dict[str, int]:
        return {"champion": self.champion}


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_FOLLOWS_SECONDS", 0.3)
    monkeypatch.setattr(live, "_PAUSE", 0.02)


def health(champion: int | None, *, loading: int | None = None, failed: int | None = None) -> dict[str, Any]:
    """What a server of the predictor ``busy`` says."""

    def of(number: int | None) -> dict[str, Any]:
        return {} if number is None else {"busy": {"champion": number}}

    return {"status": "ok", "predictors": of(champion), "loading": of(loading), "failed": of(failed)}


@contextlib.contextmanager
def serving(folder: Path, said: dict[str, Any], *, pid: int | None = None, **options: Any) -> Iterator[str]:
    """Run a server that says so, as that of this process or of another one."""
    with flaky(lambda *_: Answer(), models=said) as server, contextlib.ExitStack() as stack:
        address = server.url.removesuffix("/v1")
        if pid is None:
            stack.enter_context(announced(folder, address, **options))
        else:
            write(folder, address, pid, psutil.Process(pid).create_time(), **options)
        yield address


def write(folder: Path, address: str, pid: int, started: float, **options: Any) -> Path:
    given = {"address": address, "machine": platform.node(), "pid": pid, "started": started} | options
    path = folder / "servers" / f"{given['machine']}-{pid}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(RunningServer.model_validate(given).model_dump_json())
    return path


def asked(folder: Path, number: int = 2) -> Verification:
    return live.answers_with(cast("Versions", Registry(folder)), "busy", "champion", number)


def test_a_server_of_other_predictors_is_not_asked(tmp_path: Path) -> None:
    with serving(tmp_path, health(None), names=("desk",)):
        found = asked(tmp_path)
    assert found == Verification(
        ok=True, detail="version 2 of busy is its champion; no server of it runs here"
    )


def test_every_server_of_the_predictor_must_answer_with_the_version(tmp_path: Path) -> None:
    second = health(1)
    with serving(tmp_path, health(2)) as one, serving(tmp_path, second, pid=os.getppid()) as other:
        assert asked(tmp_path) == Verification(ok=False, detail=f"{other} answers with version 1 of busy")
        second.update(health(2))
        found = asked(tmp_path)
    assert found.ok
    assert one in found.detail
    assert other in found.detail
    assert found.detail.endswith(" answer with version 2 of busy")


def test_files_of_processes_that_ended_are_removed_and_those_of_other_machines_left(tmp_path: Path) -> None:
    ended = write(tmp_path, "http://127.0.0.1:1", os.getpid(), 1.0)
    elsewhere = write(tmp_path, "http://127.0.0.1:2", os.getpid(), 1.0, machine="another")
    with serving(tmp_path, health(2), pid=os.getppid()) as address:
        assert [one.address for one in running_servers(tmp_path)] == [address]
    assert not ended.exists()
    assert elsewhere.exists()


def test_a_server_is_waited_for_while_it_loads(tmp_path: Path) -> None:
    said = health(1, loading=2)

    def load() -> None:
        time.sleep(1)
        said.update(health(2))

    with serving(tmp_path, said):
        threading.Thread(target=load).start()
        assert asked(tmp_path).ok


def test_what_answers_is_not_proven_while_another_version_is_loaded(tmp_path: Path) -> None:
    said = health(2, loading=3)
    began = time.monotonic()

    def load() -> None:
        time.sleep(0.5)
        said.update(health(2))

    with serving(tmp_path, said):
        threading.Thread(target=load).start()
        assert asked(tmp_path).ok
    assert time.monotonic() - began >= 0.5


def test_a_server_that_loads_for_too_long_is_not_waited_for(tmp_path: Path) -> None:
    with serving(tmp_path, health(1, loading=2), load_seconds=0.5) as address:
        found = asked(tmp_path)
    assert not found.ok
    assert found.detail.startswith(f"{address} answers with version 1 of busy, and still loads after")


def test_a_version_that_cannot_be_loaded_is_told_soon_though_it_is_tried_again(tmp_path: Path) -> None:
    began = time.monotonic()
    with serving(tmp_path, health(1, loading=2, failed=2)) as address:
        assert asked(tmp_path) == Verification(ok=False, detail=f"{address} cannot load version 2 of busy")
    assert time.monotonic() - began < 10


def test_a_server_that_does_not_answer_proves_nothing_while_its_process_lives(tmp_path: Path) -> None:
    with announced(tmp_path, "http://127.0.0.1:1"):
        found = asked(tmp_path)
    assert not found.ok
    assert "the server at http://127.0.0.1:1 does not answer" in found.detail


def test_a_server_of_this_machine_is_asked_through_no_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    with serving(tmp_path, health(2)):
        (server,) = running_servers(tmp_path)
        assert server.ask("busy", "champion").version == 2
