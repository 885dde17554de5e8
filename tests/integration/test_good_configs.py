"""Configuration under which a real service is well is kept, by a command and by a worker."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from watchkeeper.cli import build_app
from watchkeeper.runtime.good_configs import LOOK_EVERY, keep_good_configs, keeping
from watchkeeper.runtime.policy import Policy
from watchkeeper.runtime.site import Site
from watchkeeper.tools.archive import ConfigArchive
from watchkeeper.tools.builtin import builtin_registry
from watchkeeper.tools.errors import UnknownHostError
from watchkeeper.tools.inventory import Inventory
from watchkeeper.tools.supervisors import supervisor_of

PROGRAM = "import time; time.sleep(600)"


def wait_for(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def supervised() -> Iterator[Path]:
    """The socket of a supervisord with one program."""
    with tempfile.TemporaryDirectory(prefix="wk") as name:
        folder = Path(name)
        (folder / "web.py").write_text(PROGRAM)
        (folder / "supervisord.conf").write_text(
            f"[unix_http_server]\nfile={folder}/s.sock\n\n"
            f"[supervisord]\nnodaemon=true\nlogfile={folder}/d.log\npidfile={folder}/d.pid\n\n"
            "[rpcinterface:supervisor]\n"
            "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n\n"
            f"[program:web]\ncommand={sys.executable} {folder}/web.py\nstartsecs=0\n"
        )
        command = [sys.executable, "-W", "ignore", "-m", "supervisor.supervisord", "-n", "-c"]
        process = subprocess.Popen([*command, str(folder / "supervisord.conf")], stdout=subprocess.DEVNULL)
        try:
            wait_for((folder / "s.sock").exists)
            yield folder / "s.sock"
        finally:
            process.terminate()
            process.wait(timeout=20)


@pytest.fixture
def port() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def site(supervised: Path, port: socket.socket, tmp_path: Path) -> Site:
    path = tmp_path / "app.json"
    path.write_text('{"port": 80}')
    inventory = {
        "hosts": [
            {
                "name": "here",
                "services": [
                    {
                        "name": "web",
                        "supervisor": {"kind": "supervisord", "socket": str(supervised)},
                        "config": [str(path)],
                        "checks": [{"kind": "tcp", "host": "127.0.0.1", "port": port.getsockname()[1]}],
                    }
                ],
            }
        ]
    }
    home = tmp_path / "home"
    home.mkdir()
    (home / "inventory.yaml").write_text(yaml.safe_dump(inventory))
    registry = builtin_registry()
    site = Site(Inventory.model_validate(inventory), registry, Policy.default(registry), home)
    time.sleep(1.1)  # supervisord tells the start in whole seconds
    service = supervisor_of(site.target("here"), "web")
    service.restart()
    wait_for(lambda: service.status().is_up)
    return site


def test_files_are_kept_only_while_every_check_passes(
    site: Site, port: socket.socket, tmp_path: Path
) -> None:
    path, archive = tmp_path / "app.json", ConfigArchive.of(site.target("here"))
    port.close()
    (kept,) = keep_good_configs(site)
    assert kept.files == ()
    assert "did not accept a connection" in kept.reason
    assert archive.last_good(path) is None
    with socket.create_server(port_of(site)):
        (kept,) = keep_good_configs(site, "here")
    assert (kept.host, kept.service, kept.files, kept.reason) == ("here", "web", (path,), "")
    good = archive.last_good(path)
    assert good is not None
    assert archive.content(good) == b'{"port": 80}'
    with pytest.raises(UnknownHostError):
        keep_good_configs(site, "there")


def port_of(site: Site) -> tuple[str, int]:
    (check,) = site.inventory.host("here").service("web").checks
    assert check.kind == "tcp"
    return check.host, check.port


def test_a_worker_looks_at_once_and_then_every_few_minutes(site: Site, tmp_path: Path) -> None:
    archive = ConfigArchive.of(site.target("here"))
    now = [datetime(2026, 1, 5, tzinfo=UTC)]
    look = keeping(site, now=lambda: now[0])
    look()
    assert archive.last_good(tmp_path / "app.json") is not None
    index = next((site.home / "hosts" / "here" / "configs" / "index").iterdir())
    index.unlink()
    now[0] += LOOK_EVERY - timedelta(seconds=1)
    look()
    assert archive.last_good(tmp_path / "app.json") is None
    now[0] += timedelta(seconds=1)
    look()
    assert archive.last_good(tmp_path / "app.json") is not None


def test_the_command_keeps_and_lists_them(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHKEEPER_HOME", str(site.home))
    run, app = CliRunner(), build_app()
    listed = json.loads(run.invoke(app, ["configs", "list", "--json"]).stdout)
    assert [(one["path"], one["versions"]) for one in listed["files"]] == [(str(tmp_path / "app.json"), [])]
    kept = run.invoke(app, ["configs", "keep", "--json"])
    assert kept.exit_code == 0
    assert json.loads(kept.stdout)["services"] == [
        {"host": "here", "service": "web", "files": [str(tmp_path / "app.json")], "reason": ""}
    ]
    assert "app.json" in run.invoke(app, ["configs", "keep"]).stdout
    listed = json.loads(run.invoke(app, ["configs", "list", "--json"]).stdout)
    assert len(listed["files"][0]["versions"]) == 1
    refused = run.invoke(app, ["configs", "keep", "--host", "there"])
    assert refused.exit_code == 2
