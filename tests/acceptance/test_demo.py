"""The demo as a user plays it, with the default model and no network: all is mended, and all is on record."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from watchkeeper.demo.faults import SCENARIOS
from watchkeeper.models.home import models_folder
from watchkeeper.runtime.audit import AuditLog

pytestmark = [pytest.mark.model, pytest.mark.timeout(1500)]

PLAYED = SCENARIOS if os.environ.get("WATCHKEEPER_DEMO") == "all" else ("killed", "injection")

# A new network namespace has a loopback of its own, which is down.
ALONE = """
import fcntl, os, socket, struct, sys
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    name, flags = struct.unpack("16sh", fcntl.ioctl(any_socket, SIOCGIFFLAGS, struct.pack("16sh", b"lo", 0)))
    fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh", b"lo", flags | IFF_UP))
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    for _, name in socket.if_nameindex():
        answer = fcntl.ioctl(any_socket, SIOCGIFFLAGS, struct.pack("16sh", name.encode(), 0))
        assert (struct.unpack("16sh", answer)[1] & IFF_UP != 0) == (name == "lo"), name
os.execv(sys.argv[1], sys.argv[1:])
"""


def cut_off() -> list[str]:
    """What starts a program with loopback as its only network; empty where this user may not do that."""
    prefix = [
        "unshare",
        "--net",
        *([] if os.geteuid() == 0 else ["--map-root-user"]),
        sys.executable,
        "-c",
        ALONE,
    ]
    try:
        tried = subprocess.run([*prefix, sys.executable, "-c", ""], capture_output=True)
    except OSError:
        return []
    return prefix if tried.returncode == 0 else []


@dataclass(frozen=True)
class Played:
    """A demo that ended."""

    home: Path
    alone: bool
    code: int
    results: list[dict[str, Any]]
    errors: str


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    home = tmp_path_factory.mktemp("home")
    (home / "models").symlink_to(models_folder())
    prefix = cut_off()
    done = subprocess.run(
        [
            *prefix,
            *(sys.executable, "-m", "watchkeeper.cli"),
            *("demo", "--approve", "yes", "--json", "--seed", "2026"),
            *(part for name in PLAYED for part in ("--scenario", name)),
        ],
        # Not offline by a setting: where there is no network, nobody has to say so.
        env={**{k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"}, "WATCHKEEPER_HOME": str(home)},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    return Played(home, bool(prefix), done.returncode, json.loads(done.stdout or "[]"), done.stderr)


def test_what_is_broken_is_mended_and_judged_from_outside(played: Played) -> None:
    assert [result["scenario"] for result in played.results] == list(PLAYED), played.errors[-2000:]
    judged = [result for result in played.results if not result["skipped"]]
    assert len(judged) >= min(4, len(PLAYED))
    assert [(result["scenario"], result["checks"]) for result in judged if not result["ok"]] == []
    assert played.code == 0
    for result in judged:
        assert Path(result["report"]).read_text(encoding="utf-8").startswith("# ")
        assert all("self-approved" in answer for answer in result["approvals"] if " approve " in answer)
    audit = AuditLog(played.home).verify()
    assert audit.ok, audit.problems
    assert audit.entries > 50


def test_the_demo_needs_no_network(played: Played) -> None:
    if not played.alone:
        pytest.skip("this user may not make a network namespace, so the demo was played with the network up")
    judged = [result for result in played.results if not result["skipped"]]
    assert judged
    assert all(result["ok"] for result in judged)
