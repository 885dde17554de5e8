"""What a user gets wrong is told in one line: value, place and what to do; nothing is half-written."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from watchkeeper.runtime.alerts import Alert
from watchkeeper.runtime.approvals import Approvals, ApprovalStatus
from watchkeeper.runtime.incidents import Incidents
from watchkeeper.runtime.steps import Step, Steps
from watchkeeper.runtime.store import Store
from watchkeeper.tools.action import ActionPlan, Reversibility

INVENTORY = "hosts:\n  - name: web-1\n    labels: {environment: production}\n"
ALERT = "title: web is slow\nhost: web-1\ncondition: {kind: http, url: 'http://127.0.0.1:1/'}\n"
POLICY = "version: 1\nrules:\n  - name: ask\n    decision: ask\n"
DIGEST = "1" * 64


def watchkeeper(home: Path, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WATCHKEEPER_")}
    return subprocess.run(
        [sys.executable, "-m", "watchkeeper.cli", *map(str, arguments)],
        env={**kept, "WATCHKEEPER_HOME": str(home), "HF_HUB_OFFLINE": "1", **variables},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
    )


def mistake(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    """Check that a command ended with one line that says all of this, and with code 2."""
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    missing = [part for part in parts if part not in done.stderr]
    assert not missing, f"{missing} is not said in: {done.stderr}"


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "inventory.yaml").write_text(INVENTORY)
    return folder


@pytest.fixture
def alert(tmp_path: Path) -> Path:
    file = tmp_path / "alert.yaml"
    file.write_text(ALERT)
    return file


def ask(home: Path, *, requester: str = "watchkeeper") -> str:
    """Put a question into a store, as a run does."""
    with Store(home / "watchkeeper.db") as store:
        incident = Incidents(store).open(
            Alert.model_validate(
                {
                    "title": "web is slow",
                    "host": "web-1",
                    "condition": {"kind": "http", "url": "http://127.0.0.1:1/"},
                }
            )
        )
        step = f"{incident.id}-S1"
        Steps(store).add(
            Step(
                id=step,
                incident_id=incident.id,
                host="web-1",
                action="service.restart",
                arguments={"service": "shop"},
                reversibility=Reversibility.COMPENSABLE,
                plan=ActionPlan(key=step, summary="restart shop", diff="- a\n+ b"),
                digest=DIGEST,
            )
        )
        asked = Approvals(store).request(
            incident_id=incident.id, step_id=step, digest=DIGEST, summary="restart shop", requester=requester
        )
        return asked.id


def status(home: Path, approval_id: str) -> ApprovalStatus:
    with Store(home / "watchkeeper.db") as store:
        return Approvals(store).get(approval_id).status


# Models


def test_a_model_that_is_unknown(home: Path, alert: Path) -> None:
    said = ("no model 'qwen-9000'", "Known models: qwen2.5-coder-0.5b-instruct", "Name one of them")
    mistake(watchkeeper(home, "models", "pull", "qwen-9000"), *said)
    mistake(watchkeeper(home, "run", alert, "--model", "qwen-9000"), *said)
    mistake(watchkeeper(home, "demo", "--model", "qwen-9000"), *said)
    mistake(watchkeeper(home, "run", alert, WATCHKEEPER_MODEL="qwen-9000"), *said)
    assert tree(home) == {"inventory.yaml"}


def test_a_model_whose_hash_is_not_the_publishers(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "usb"
    folder.mkdir()
    file = folder / "SmolLM2-135M-Instruct.Q4_1.gguf"
    with file.open("wb") as stream:
        stream.write(b"GGUF" + (3).to_bytes(4, "little") + bytes(16))
        stream.truncate(98_362_432)

    done = watchkeeper(home, "models", "pull", "smollm2-135m-instruct", "--from", folder)

    assert (done.returncode, done.stdout) == (2, "")
    *progress, last = done.stderr.splitlines()
    assert last.startswith(f"error: {file} has SHA-256 ")
    assert "instead of b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53" in last
    assert "replace it or name another folder" in last
    assert all(line.startswith("verify") for line in progress)
    listed = json.loads(watchkeeper(home, "models", "list", "--json").stdout)
    assert not any(row["installed"] for row in listed)
    assert not any("gguf" in name for name in tree(home))
    assert file.stat().st_size == 98_362_432, "a user's own file is never removed"


def test_a_folder_that_is_no_model(home: Path, alert: Path, tmp_path: Path) -> None:
    done = watchkeeper(home, "run", alert, "--model", tmp_path)
    mistake(done, repr(str(tmp_path)), "no config.json")


# Files that a user writes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hosts: [", ("line 1", "not valid YAML")),
        ("hosts:\n  - name: web-1\n    conection: ssh\n", ("line 3", "hosts.0.conection", "unknown key")),
        ("hosts:\n  - name: 'web 1'\n", ("line 2", "hosts.0.name", "'web 1'")),
        ("hosts:\n  - {name: a}\n  - {name: a}\n", ("host 'a' is defined twice",)),
        ("hosts:\n  - name: a\n    name: b\n", ("line 3", "key 'name' is written twice")),
        ("- web-1\n", ("line 1",)),
    ],
)
def test_an_inventory_that_is_malformed(home: Path, alert: Path, text: str, said: tuple[str, ...]) -> None:
    file = home / "inventory.yaml"
    file.write_text(text)
    mistake(watchkeeper(home, "run", alert), f"inventory {str(file)!r}", *said)
    assert tree(home) == {"inventory.yaml"}


def test_an_inventory_that_is_not_there(home: Path, alert: Path) -> None:
    (home / "inventory.yaml").unlink()
    mistake(
        watchkeeper(home, "run", alert),
        repr(str(home / "inventory.yaml")),
        "No such file",
        "watchkeeper init",
    )
    assert tree(home) == set()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("version: 1\nrules: {", ("line 2", "not valid YAML")),
        ("version: 2\n", ("line 1", "version", "got 2")),
        (POLICY + "    when: action.nam == 'x' &&\n", ("line 5", "is not a CEL expression")),
        (POLICY + "    match: {tools: [service.explode]}\n", ("line 5", "service.explode")),
        (POLICY + "    match: {tools: [log.search]}\n", ("line 5", "log.search")),
        (POLICY + "    tier: 9\n", ("line 5", "rules.0.tier", "got 9")),
        (
            POLICY + "    examples:\n      match:\n        - action: service.explode\n",
            ("line 7", "service.explode"),
        ),
    ],
)
def test_a_policy_that_is_malformed_or_names_an_unknown_tool(
    home: Path, alert: Path, tmp_path: Path, text: str, said: tuple[str, ...]
) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(text)
    mistake(watchkeeper(home, "policy", "check", file), f"policy {str(file)!r}", *said)
    mistake(watchkeeper(home, "run", alert, "--policy", file), f"policy {str(file)!r}", *said)
    assert tree(home) == {"inventory.yaml"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("title: [", ("line 1", "not valid YAML")),
        ("host: web-1\n", ("title", "missing")),
        (ALERT.replace("title", "titel"), ("line 1", "titel: unknown key (is 'title' meant?)")),
        ("- a\n", ("line 1", "keys with values are expected (got ['a'])")),
        (ALERT + "severity: terrible\n", ("line 4", "severity", "'terrible'")),
        (
            ALERT.replace("kind: http", "kind: ping"),
            ("line 3", "condition: unknown kind 'ping' (there are: 'http', 'tcp')"),
        ),
        (
            ALERT.replace("{kind: http, url: 'http://127.0.0.1:1/'}", "{fact: disk.fullness}"),
            ("disk.fullness",),
        ),
        (
            ALERT.replace("{kind: http, url: 'http://127.0.0.1:1/'}", "{fact: disk.usage}"),
            ("disk.usage: path", "missing; it takes path"),
        ),
        (ALERT + "service: shop\n", ("service 'shop' is not on host 'web-1'",)),
    ],
)
def test_an_alert_that_is_malformed(home: Path, tmp_path: Path, text: str, said: tuple[str, ...]) -> None:
    file = tmp_path / "alert.yaml"
    file.write_text(text)
    mistake(watchkeeper(home, "run", file), "alert ", *said)
    assert incidents(home) == []


def test_an_endpoint_that_does_not_answer(home: Path, alert: Path) -> None:
    mistake(watchkeeper(home, "run", alert, "--model", "http://127.0.0.1:1/v1#m"), "http://127.0.0.1:1/v1")
    assert incidents(home) == []


def test_an_alert_for_a_host_that_is_not_in_the_inventory(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "alert.yaml"
    file.write_text(ALERT.replace("web-1", "web-9"))
    mistake(watchkeeper(home, "run", file), "'web-9' is not in the inventory", "it has: web-1")
    assert incidents(home) == []


def incidents(home: Path) -> list[object]:
    listed = watchkeeper(home, "incidents", "list", "--json")
    found: list[object] = json.loads(listed.stdout)
    return found


def test_an_action_on_a_host_that_is_not_in_the_inventory(home: Path) -> None:
    done = watchkeeper(
        home, "policy", "explain", "process.end", "web-9", "--arguments", '{"process": "1@1764000000.25"}'
    )
    mistake(done, "'web-9' is not in the inventory", "it has: web-1")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: [", ("line 1", "not valid YAML")),
        ("max_actions: many\n", ("line 1", "max_actions", "'many'")),
        ("max_acts: 3\n", ("line 1", "max_acts", "unknown key")),
        ("quantization: int3\n", ("line 1", "quantization", "'int3'")),
    ],
)
def test_a_configuration_that_is_malformed(home: Path, alert: Path, text: str, said: tuple[str, ...]) -> None:
    file = home / "config.yaml"
    file.write_text(text)
    for arguments in (("run", alert), ("incidents", "list"), ("demo",), ("audit", "verify")):
        mistake(watchkeeper(home, *arguments), repr(str(file)), *said)
    assert tree(home) == {"inventory.yaml", "config.yaml"}


def test_an_environment_variable_that_is_not_valid(home: Path, alert: Path) -> None:
    done = watchkeeper(home, "run", alert, WATCHKEEPER_MAX_FACTS="several")
    mistake(done, "WATCHKEEPER_MAX_FACTS", "'several'")


def test_an_option_that_is_not_valid(home: Path, alert: Path) -> None:
    mistake(watchkeeper(home, "run", alert, "--quantization", "int3"), "quantization", "'int3'")
    mistake(watchkeeper(home, "run", alert, "--approve", "maybe"), "--approve is ask, yes or no", "'maybe'")
    mistake(watchkeeper(home, "demo", "--scenario", "flood"), "'flood'", "there are: killed")


# Questions to people


def test_an_approval_that_does_not_exist(home: Path) -> None:
    for arguments in (("show",), ("approve",), ("done",), ("reject", "--reason", "no")):
        done = watchkeeper(home, "approvals", arguments[0], "APR-NONE", *arguments[1:])
        mistake(done, "'APR-NONE' is unknown", "watchkeeper approvals list")


def test_an_incident_that_does_not_exist(home: Path) -> None:
    said = ("'INC-NONE' is not in", "watchkeeper incidents list")
    mistake(watchkeeper(home, "run", "--resume", "INC-NONE"), *said)
    mistake(watchkeeper(home, "incidents", "show", "INC-NONE"), *said)


def test_an_approval_that_was_answered_before(home: Path) -> None:
    approval = ask(home)
    assert watchkeeper(home, "approvals", "approve", approval).returncode == 0
    again = watchkeeper(home, "approvals", "reject", approval, "--reason", "too late")
    mistake(again, f"'{approval}' was answered approve by")
    assert status(home, approval) is ApprovalStatus.APPROVED


def test_an_approval_that_was_used_before(home: Path) -> None:
    approval = ask(home)
    assert watchkeeper(home, "approvals", "approve", approval).returncode == 0
    with Store(home / "watchkeeper.db") as store:
        Approvals(store).use(approval, DIGEST)
    mistake(watchkeeper(home, "approvals", "approve", approval), "was used at", "good for one time")
    assert status(home, approval) is ApprovalStatus.USED


def test_an_approval_by_the_person_who_asked(home: Path) -> None:
    approval = ask(home, requester=getpass.getuser())
    mistake(watchkeeper(home, "approvals", "approve", approval), "who may not approve it", "solo")
    assert status(home, approval) is ApprovalStatus.PENDING


def test_an_answer_that_does_not_fit_its_question(home: Path) -> None:
    approval = ask(home)
    mistake(
        watchkeeper(home, "approvals", "done", approval),
        "'approve', 'edit', 'reject', 'respond', 'escalate' or 'terminate', not 'done'",
    )
    assert status(home, approval) is ApprovalStatus.PENDING


# Places where nothing can be written


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small file system needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if made.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path, *, leave: int = 0) -> Path:
    """Fill a file system but for some bytes."""
    ballast = folder / "ballast"
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    with ballast.open("wb") as file:
        file.write(bytes(max(0, free - leave)))
    return ballast


def test_a_disk_that_is_full_from_the_start(small_disk: Path, alert: Path) -> None:
    (small_disk / "inventory.yaml").write_text(INVENTORY)
    ballast = fill(small_disk)
    mistake(watchkeeper(small_disk, "run", alert), "no space left", str(small_disk), "free some space")
    done = watchkeeper(small_disk, "init", "--force")
    mistake(done, str(small_disk), "No space left on device", "WATCHKEEPER_HOME")
    assert (small_disk / "inventory.yaml").read_text() == INVENTORY
    assert not list(small_disk.glob(".*"))
    ballast.unlink()
    assert watchkeeper(small_disk, "init").returncode == 0
    assert watchkeeper(small_disk, "incidents", "list").returncode == 0


def test_a_disk_that_is_full_when_a_question_is_answered(small_disk: Path) -> None:
    approval = ask(small_disk)
    ballast = fill(small_disk)
    mistake(watchkeeper(small_disk, "approvals", "approve", approval), str(small_disk), "try again")
    ballast.unlink()
    assert status(small_disk, approval) is ApprovalStatus.PENDING
    assert watchkeeper(small_disk, "approvals", "approve", approval).returncode == 0
    verified = watchkeeper(small_disk, "audit", "verify")
    assert verified.returncode == 0, verified.stderr
    assert "1 entry, " in verified.stdout


def test_a_disk_that_is_too_small_for_a_model(small_disk: Path) -> None:
    done = watchkeeper(small_disk, "models", "pull", "smollm2-135m-instruct")
    mistake(done, "smollm2-135m-instruct needs", "GB are free", "make room, or set WATCHKEEPER_HOME")


@pytest.mark.parametrize(
    "arguments",
    [
        ("init",),
        ("incidents", "list"),
        ("approvals", "approve", "APR-NONE"),
        ("models", "pull", "smollm2-135m-instruct"),
        ("run", "ALERT"),
    ],
)
def test_a_home_that_cannot_be_made(alert: Path, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "inventory.yaml").write_text(INVENTORY)
    given = [alert if word == "ALERT" else word for word in arguments]
    done = watchkeeper(
        tmp_path / "file" / "home", *given, WATCHKEEPER_INVENTORY=str(tmp_path / "inventory.yaml")
    )
    mistake(done, str(tmp_path / "file"), "WATCHKEEPER_HOME")


@pytest.mark.parametrize(
    "arguments",
    [("init", "--force"), ("incidents", "list"), ("approvals", "approve", "APR-NONE"), ("run", "ALERT")],
)
def test_a_home_that_is_read_only(small_disk: Path, alert: Path, arguments: tuple[str, ...]) -> None:
    (small_disk / "inventory.yaml").write_text(INVENTORY)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    given = [alert if word == "ALERT" else word for word in arguments]
    mistake(watchkeeper(small_disk, *given), str(small_disk))
    assert tree(small_disk) == {"inventory.yaml"}
