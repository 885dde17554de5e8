"""The wheel that users install: it holds every room, takes one name in site-packages, and works anywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of what is in the repository, so that no earlier build is in it."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    names = ["pyproject.toml", "README.md", "LICENSE", "watchkeeper", "models", "tools", "agents", "runtime"]
    subprocess.run(
        ["tar", "--exclude=__pycache__", "-cf", str(out / "source.tar"), *names], cwd=ROOT, check=True
    )
    subprocess.run(["tar", "-xf", str(out / "source.tar")], cwd=source, check=True)
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"),
            *("--disable-pip-version-check", "--wheel-dir", str(out), str(source)),
        ],
        check=True,
    )
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment that has the wheel, and what it needs, and not this checkout.

    What it needs is seen through a path of the environment that the tests run in: the `.pth` files there,
    one of which leads to this checkout, are not followed.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    subprocess.run(
        [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)],
        check=True,
    )
    (packages / "needed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def run(command: list[str | Path], home: Path) -> subprocess.CompletedProcess[str]:
    unset = {"PYTHONPATH", "WATCHKEEPER_CONFIG", "VIRTUAL_ENV"}
    kept = {name: value for name, value in os.environ.items() if name not in unset}
    environment = {**kept, "WATCHKEEPER_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=120)


def test_it_takes_one_name_in_site_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        info = next(name.partition("/")[0] for name in names if name.endswith("/METADATA"))
        assert {name.partition("/")[0] for name in names} == {"watchkeeper", info}
        assert archive.read(f"{info}/top_level.txt").decode().split() == ["watchkeeper"]
        assert "License-Expression: Apache-2.0" in archive.read(f"{info}/METADATA").decode()
        assert f"{info}/licenses/LICENSE" in names


def test_it_holds_every_file_of_every_room(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("watchkeeper/")}
    there = set()
    for room in ("watchkeeper", "models", "tools", "agents", "runtime"):
        below = "" if room == "watchkeeper" else "watchkeeper/"
        there |= {
            below + str(path.relative_to(ROOT))
            for path in (ROOT / room).rglob("*")
            # Compiled Python, and the kernels that numba keeps beside it, are made where they run.
            if path.is_file() and path.parent.name != "__pycache__"
        }
    assert packed == there


def test_every_room_comes_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    script = (
        "import json, watchkeeper\n"
        "from watchkeeper import agents, models, runtime, tools\n"
        "from watchkeeper.runtime import orchestrator\n"
        "from watchkeeper.demo import runner\n"
        "rooms = (watchkeeper, agents, models, runtime, tools, orchestrator, runner)\n"
        "print(json.dumps([room.__file__ for room in rooms]))\n"
        "[getattr(watchkeeper, name) for name in watchkeeper.__all__]"
    )
    done = run([installed / "python", "-c", script], tmp_path)
    assert done.returncode == 0, done.stderr
    files = json.loads(done.stdout)
    assert len(files) == 7
    assert all(Path(file).is_relative_to(installed.parent) for file in files)


def test_its_commands_work_from_any_folder(installed: Path, tmp_path: Path) -> None:
    program = installed / "watchkeeper"
    helped = run([program, "--help"], tmp_path)
    assert helped.returncode == 0, helped.stderr
    assert "approvals" in helped.stdout
    for arguments in (
        ["init"],
        ["policy", "check"],
        ["tools", "list"],
        ["models", "list"],
        ["incidents", "list"],
    ):
        done = run([program, *arguments], tmp_path)
        assert (done.returncode, done.stderr) == (0, ""), arguments


def test_an_incident_is_handled_by_it(installed: Path, tmp_path: Path) -> None:
    script = tmp_path / "incident.py"
    script.write_text(
        "import http.server, threading\n"
        "from watchkeeper import Alert, Inventory, Orchestrator, RandomEngine\n"
        "server = http.server.HTTPServer(('127.0.0.1', 0), http.server.SimpleHTTPRequestHandler)\n"
        "threading.Thread(target=server.serve_forever, daemon=True).start()\n"
        "url = f'http://127.0.0.1:{server.server_port}/'\n"
        "inventory = Inventory.model_validate({'hosts': [{'name': 'web-1'}]})\n"
        "alert = Alert.model_validate(\n"
        "    {'title': 'slow', 'host': 'web-1', 'condition': {'kind': 'http', 'url': url}})\n"
        "with Orchestrator(inventory=inventory, engine=RandomEngine(1)) as orchestrator:\n"
        "    *_, last = orchestrator.run(alert)\n"
        "    print(orchestrator.report(last.incident_id).incident.status.value)\n"
    )
    done = run([installed / "python", script], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in {"closed", "escalated"}
    verified = run([installed / "watchkeeper", "audit", "verify"], tmp_path)
    assert verified.returncode == 0, verified.stdout
