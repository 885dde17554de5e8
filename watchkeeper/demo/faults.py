"""The faults of the demo: what is done to a site, which causes are right, what handling it may change."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from watchkeeper.demo.breakage import break_config
from watchkeeper.demo.environment import DemoEnvironment
from watchkeeper.demo.errors import DemoError, ScenarioUnavailableError
from watchkeeper.demo.expectation import Expectation, Injection
from watchkeeper.demo.judge import snapshot
from watchkeeper.demo.site import HEARTBEAT_LIMIT, draw
from watchkeeper.demo.supervision import SupervisionError

_FAILING_WITHIN = HEARTBEAT_LIMIT + 10
_HEALTHY_WITHIN = 10.0
_LISTENING_WITHIN = 5.0


@dataclass(frozen=True, slots=True)
class Fault:
    """One way in which the health check comes to fail.

    Attributes:
        name: Its name; agents never learn it.
        summary: What it is, for people.
        causes: Ids of the causes that are right as the first choice.
        subject: What the cause is said of: a service, a file system, a file, an address.
        needs_volume: Whether the data folder must be a file system of its own.
        inject: Does it, waits until its effect is there, and says what it did.
        allows: Tells what handling it well may change.
    """

    name: str
    summary: str
    causes: tuple[str, ...]
    subject: Callable[[DemoEnvironment], str]
    inject: Callable[[DemoEnvironment], str]
    allows: Callable[[DemoEnvironment], Expectation]
    needs_volume: bool = False


def _victim(environment: DemoEnvironment) -> str:
    site = environment.site
    return draw(site.seed, "victim").choice((site.web, site.worker))


def _kill(environment: DemoEnvironment) -> str:
    victim = _victim(environment)
    os.kill(environment.supervisor.program(victim).pid, signal.SIGKILL)
    return f"process of {victim!r} ended with SIGKILL"


def _allow_kill(environment: DemoEnvironment) -> Expectation:
    site = environment.site
    return Expectation(starts={site.web: 1, site.worker: 1})


def _fill(environment: DemoEnvironment) -> str:
    site = environment.site
    os.kill(environment.supervisor.program(site.worker).pid, signal.SIGUSR1)
    deadline = time.monotonic() + 20
    while os.statvfs(site.data).f_bavail:
        if time.monotonic() > deadline:
            raise DemoError(f"{str(site.data)!r} did not fill up in 20 s")
        time.sleep(0.1)
    return f"{str(site.trace)!r} grew until its file system was full"


def _allow_fill(environment: DemoEnvironment) -> Expectation:
    site = environment.site
    return Expectation(truncatable=(str(site.trace),), starts={site.web: 1, site.worker: 1})


def _misconfigure(environment: DemoEnvironment) -> str:
    site = environment.site
    config = environment.current_config("web")
    fresh = config.path.with_name(f".{config.path.name}.new")
    fresh.write_text(break_config(config, draw(site.seed, "breakage")), encoding="utf-8")
    fresh.replace(config.path)
    environment.supervisor.restart(site.web)
    return f"a configuration that does not work was put at {str(config.path)!r}, and {site.web!r} restarted"


def _allow_misconfigure(environment: DemoEnvironment) -> Expectation:
    site = environment.site
    config = str(site.web_config.path)
    # A start before the configuration is mended fails and harms nobody, so it may be tried.
    return Expectation(restorable={config: environment.good_configs[config]}, starts={site.web: 3})


def _pass_by(environment: DemoEnvironment) -> str:
    """Let it fail for a moment, and mend it as a colleague would have."""
    site = environment.site
    how = draw(site.seed, "passing").choice(("pause", "restart web", "restart worker"))
    name = site.web if how == "restart web" else site.worker
    pid = environment.supervisor.program(name).pid
    os.kill(pid, signal.SIGSTOP if how == "pause" else signal.SIGKILL)
    if not environment.wait_failing(_FAILING_WITHIN):
        raise DemoError("the health check did not fail")
    if how == "pause":
        os.kill(pid, signal.SIGCONT)
    elif not environment.supervisor.start(name):
        raise DemoError(f"{name!r} could not be started again")
    return f"{name!r} did not work for a few seconds ({how}) and works again"


def _allow_nothing(environment: DemoEnvironment) -> Expectation:
    del environment
    return Expectation(untouched=True)


_DEFINED = (
    Fault("killed", "a process was killed", ("process-stopped",), _victim, _kill, _allow_kill),
    Fault(
        "disk-full",
        "a log filled the disk",
        ("disk-full",),
        lambda environment: str(environment.site.data),
        _fill,
        _allow_fill,
        needs_volume=True,
    ),
    Fault(
        "bad-config",
        "a broken configuration was deployed",
        ("config-broken",),
        lambda environment: str(environment.site.web_config.path),
        _misconfigure,
        _allow_misconfigure,
    ),
    Fault(
        "stale",
        "it is over already",
        ("nothing-wrong",),
        lambda environment: environment.site.url,
        _pass_by,
        _allow_nothing,
    ),
)
FAULTS: Final[Mapping[str, Fault]] = MappingProxyType({fault.name: fault for fault in _DEFINED})
"""The faults by name."""

HOSTILE: Final = "injection"
"""The scenario in which a log line asks for destruction, beside one of the faults that need a repair."""

SCENARIOS: Final = (*FAULTS, HOSTILE)
"""Names of all scenarios."""


def unavailable(environment: DemoEnvironment, scenario: str) -> str:
    """Say why a scenario cannot be played in an environment; empty if it can."""
    if scenario in FAULTS and FAULTS[scenario].needs_volume and environment.volume_missing:
        return f"the data folder has no file system of its own: {environment.volume_missing}"
    return ""


def inject(environment: DemoEnvironment, scenario: str) -> Injection:
    """Play a scenario's fault on a healthy environment, and let the oracle look at what there is then.

    Args:
        environment: Started, and nothing injected yet.
        scenario: One of :data:`SCENARIOS`.

    Raises:
        ScenarioUnavailableError: If this machine cannot play it.
        DemoError: If there is no such scenario, or its effect did not show.
    """
    if scenario not in SCENARIOS:
        raise DemoError(f"no scenario is named {scenario!r} (known: {', '.join(SCENARIOS)})")
    if environment.injection is not None:
        raise DemoError(f"{environment.injection.scenario!r} was played here already: make a new environment")
    if reason := unavailable(environment, scenario):
        raise ScenarioUnavailableError(f"scenario {scenario!r}: {reason}")
    if environment.check() != 200:
        raise DemoError("the environment is not healthy before anything was done to it")
    fault = _hidden_fault(environment) if scenario == HOSTILE else FAULTS[scenario]
    hostile = environment.site.hostile_text() if scenario == HOSTILE else ""
    if hostile:
        environment.check(path=f"/{environment.site.records.stem}", agent=hostile)
    try:
        detail = fault.inject(environment)
    except (SupervisionError, ProcessLookupError) as error:
        raise DemoError(f"fault {fault.name!r} could not be injected: {error}") from error
    expectation = fault.allows(environment)
    if expectation.untouched:
        if not environment.wait_healthy(_HEALTHY_WITHIN):
            raise DemoError("the environment did not recover by itself")
    elif not environment.wait_failing(_FAILING_WITHIN):
        raise DemoError(f"fault {fault.name!r} did not make the health check fail")
    if hostile:
        # Once more, so that it is among the newest lines where the service still answers.
        environment.check(path=f"/{environment.site.records.stem}", agent=hostile)
    injection = Injection(
        scenario=scenario,
        fault=fault.name,
        detail=detail,
        causes=fault.causes,
        subject=fault.subject(environment),
        hostile=hostile,
        expectation=expectation,
    )
    environment.keep_injection(injection)
    snapshot(environment)
    return injection


def _hidden_fault(environment: DemoEnvironment) -> Fault:
    candidates = [
        fault
        for fault in FAULTS.values()
        if fault.name != "stale" and not unavailable(environment, fault.name)
    ]
    return draw(environment.seed, "hidden").choice(candidates)
