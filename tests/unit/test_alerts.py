"""Alerts that could never be read are refused where they are written down, with their line."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.lamp import Lamp, folder_in_memory, orchestrator, prefers
from watchkeeper.cli import build_app
from watchkeeper.runtime.alerts import Alert
from watchkeeper.runtime.errors import ConfigurationError

HEAD = "title: t\nhost: vm\ncondition:\n"
BAD = {
    "  kind: http\n  url: http://127.0.0.1:99999/health\n": ("line 5", "99999", "a port from 1 to 65535"),
    "  fact: http.check\n  arguments:\n    url: http://127.0.0.1:99999/\n": ("line 6", "99999", "1 to 65535"),
    "  fact: http.check\n  arguments: {url: 'ftp://a/'}\n": ("line 5", "'ftp://a/'", "http://host:port/path"),
    "  fact: http.check\n  arguments: {ulr: 'http://a/'}\n": (
        "line 5",
        "ulr",
        "is 'url' meant?",
        "it takes url",
    ),
    "  fact: http.check\n": ("line 3", "url: missing", "it takes url"),
    "  kind: tcp\n  host: localhost\n  port: 70000\n": ("line 6", "port", "65535", "70000"),
}


@pytest.mark.parametrize("command", ["run", "submit"])
@pytest.mark.parametrize(("condition", "said"), BAD.items())
def test_a_condition_that_can_never_be_read_is_refused_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, condition: str, said: tuple[str, ...]
) -> None:
    monkeypatch.setenv("WATCHKEEPER_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "inventory.yaml").write_text("hosts: [{name: vm}]\n")
    alert = tmp_path / "alert.yaml"
    alert.write_text(HEAD + condition)
    done = CliRunner().invoke(build_app(), [command, str(alert)])
    assert done.exit_code == 2, done.output
    assert all(part in done.stderr for part in (str(alert), *said)), done.stderr
    assert done.stderr.count("\n") == 1


def test_python_refuses_it_likewise(tmp_path: Path) -> None:
    condition = {"fact": "http.check", "arguments": {"url": "http://127.0.0.1:99999/"}}
    alert = Alert.model_validate({"title": "t", "host": "house", "condition": condition})
    with folder_in_memory() as home, orchestrator(home, Lamp(tmp_path), prefers("switch")) as o:
        with pytest.raises(ConfigurationError, match="url: not an HTTP address: port out of range"):
            o.open(alert)
        assert o.journal.incidents.list() == ()


def test_no_sender_marks_an_alert_as_one_of_the_demo(tmp_path: Path) -> None:
    path = tmp_path / "alert.yaml"
    path.write_text(
        "title: t\nhost: web-1\nlabels: {watchkeeper/demo: 'true'}\n"
        "condition: {kind: http, url: 'http://127.0.0.1/'}\n"
    )
    with pytest.raises(ConfigurationError, match="label 'watchkeeper/demo' is one of Watchkeeper's own"):
        Alert.load(path)
