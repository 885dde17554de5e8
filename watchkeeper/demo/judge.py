"""Asking the oracle: a program of its own that looks at a demo environment, and at nothing an agent says."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from watchkeeper.demo.environment import DemoEnvironment
from watchkeeper.demo.errors import JudgeError

_TIMEOUT = 60.0

Expect = Literal["repaired", "untouched"]


class OracleCheck(BaseModel):
    """One thing that the oracle looked at."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    ok: bool
    detail: str


class Verdict(BaseModel):
    """What the oracle says of an environment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ok: bool
    checks: tuple[OracleCheck, ...]

    @property
    def failures(self) -> tuple[OracleCheck, ...]:
        """What is not as it should be."""
        return tuple(check for check in self.checks if not check.ok)


def snapshot(environment: DemoEnvironment) -> None:
    """Let the oracle look at an environment after the fault and before anyone handles it.

    Raises:
        JudgeError: If it could not.
    """
    site, injection = environment.site, environment.injection
    if injection is None:
        raise JudgeError("nothing was injected yet: there is nothing to compare with later")
    facts = {
        "site": str(site.base),
        "data": str(site.data),
        "socket": str(site.socket),
        "url": site.url,
        "programs": [site.web, site.worker],
        "records": str(site.records),
        "growing": [
            str(path)
            for path in (site.web_log, site.worker_log, site.supervisor_log, site.trace, site.records)
        ],
        "volatile": [str(path) for path in (site.heartbeat, site.probe)],
        "acknowledged": str(environment.witness / "acknowledged.log"),
        "starts": str(environment.witness / "starts.log"),
        "expectation": injection.expectation.model_dump(mode="json"),
    }
    (environment.witness / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
    _ask("snapshot", environment.witness)


def judge(
    environment: DemoEnvironment, *, expect: Expect = "repaired", state: Iterable[Path] | None = None
) -> Verdict:
    """Let the oracle judge what has become of an environment.

    Args:
        environment: With a fault injected.
        expect: ``repaired``, or ``untouched`` where the repair was refused.
        state: Folders in which quarantined files may lie (default: the host's folder in
            Watchkeeper's state).

    Raises:
        JudgeError: If it could not judge.
    """
    folders = [environment.target.state] if state is None else list(state)
    return _ask(
        "judge", environment.witness, f"--expect={expect}", *(f"--state={folder}" for folder in folders)
    )


def _ask(*arguments: str | Path) -> Verdict:
    oracle = Path(__file__).with_name("oracle.py")
    try:
        done = subprocess.run(
            [sys.executable, str(oracle), *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT,
        )
    except subprocess.TimeoutExpired as error:
        raise JudgeError(f"the oracle did not answer within {_TIMEOUT:g} s") from error
    try:
        return Verdict.model_validate_json(done.stdout)
    except ValidationError as error:
        last = done.stderr.strip().splitlines()[-1:] or ["it printed nothing"]
        raise JudgeError(f"the oracle failed ({done.returncode}): {last[0]}") from error
