"""Configuration under which a real service is well is kept, by a command and by a worker."""

from __future__ import annotations

import json
import socket
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from tests.lamp import ALLOW
from tests.supervised import SLEEPER, supervising, wait_for
from watchkeeper import Alert, Orchestrator, Settings
from watchkeeper.cli import build_app
from watchkeeper.models.scripted import ScriptedEngine
from watchkeeper.runtime.alerts import Condition
from watchkeeper.runtime.good_configs import LOOK_EVERY, keep_good_configs, keeping
from watchkeeper.runtime.incidents import IncidentStatus
from watchkeeper.runtime.policy import Policy
from watchkeeper.runtime.site import Site
from watchkeeper.tools.archive import ConfigArchive
from watchkeeper.tools.builtin import builtin_registry
from watchkeeper.tools.errors import UnknownHostError
from watchkeeper.tools.findings import Severity
from watchkeeper.tools.inventory import Inventory
from watchkeeper.tools.supervisors import supervisor_of


@pytest.fixture(scope="module")
def supervised() -> Iterator[Path]:
    """The socket of a supervisord with one program."""
    with tempfile.TemporaryDirectory(prefix="wk") as name:
        folder = Path(name)
        with supervising(folder, {"web": (SLEEPER, "startsecs=0")}):
            yield folder / "s.sock"


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


def test_a_file_that_cannot_be_read_keeps_no_other_from_being_kept(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "app.json"
    link = tmp_path / "a-link.json"
    link.symlink_to(path)
    spec = site.inventory.host("here")
    service = spec.service("web").model_copy(update={"config": (link, path)})
    host = spec.model_copy(update={"services": (service,)})
    both = replace(site, inventory=Inventory(hosts=(host,)))
    (kept,) = keep_good_configs(both, "here", "web")
    assert kept.files == (path,)
    assert keep_good_configs(both, "here", "another") == ()
    # It may be well for all that is known, so nobody is told that it is invalid.
    found = both.registry.gather("config.changes", both.target("here"), {"service": "web"}, id="E1")
    (told,) = (finding for finding in found.findings if finding.subject == str(link))
    assert (told.kind, told.severity) == ("custom", Severity.WARNING)


def test_an_incident_that_was_resolved_leaves_its_service_known_to_be_good(
    site: Site, tmp_path: Path
) -> None:
    archive, service = ConfigArchive.of(site.target("here")), supervisor_of(site.target("here"), "web")
    service.stop()
    alert = Alert(
        title="web is down",
        host="here",
        service="web",
        condition=Condition(
            fact="service.status", arguments={"service": "web"}, firing=("service-not-running",)
        ),
    )
    (site.home / "policy.yaml").write_text(ALLOW)
    with Orchestrator(
        inventory=site.inventory,
        engine=ScriptedEngine(choose=lambda _: 0, generate=lambda _: {"service": "web"}),
        settings=Settings(home=site.home, solo=True, settle_seconds=5),
    ) as o:
        incident = o.open(alert).id
        for _ in o.resume(incident):
            assert archive.last_good(tmp_path / "app.json") is None
        assert o.journal.incidents.get(incident).status is IncidentStatus.RESOLVED
    assert archive.last_good(tmp_path / "app.json") is not None
