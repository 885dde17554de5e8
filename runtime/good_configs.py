"""Configuration that is known to be good: kept while its service is well, so that it can be put back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from watchkeeper.runtime.alerts import Alert
from watchkeeper.runtime.clock import Clock, utc_now
from watchkeeper.runtime.site import Site
from watchkeeper.tools.archive import record_good_configs
from watchkeeper.tools.errors import ToolError
from watchkeeper.tools.findings import FindingKind
from watchkeeper.tools.host import Target
from watchkeeper.tools.inventory import HttpCheck, Service

LOOK_EVERY = timedelta(minutes=5)
"""How often a worker looks."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What was found of one service.

    Attributes:
        host: Where it runs.
        service: Its name.
        files: The files whose present content is known to be good now.
        reason: Why its files were not kept; empty where they were looked at.
    """

    host: str
    service: str
    files: tuple[Path, ...] = ()
    reason: str = ""


def keep_good_configs(site: Site, host: str | None = None, service: str | None = None) -> tuple[Kept, ...]:
    """Keep the configuration files of services that are well, as their last good versions.

    A service is well while every check that the inventory gives it passes. Of its files those count that it
    was started with; see `record_good_configs`. What was kept before and is the same is left as it is.

    Args:
        site: The hosts and the tools.
        host: The host to look at; all of the inventory by default.
        service: The service of it to look at; all that have configuration by default.

    Raises:
        UnknownHostError: If the host is not in the inventory.
    """
    names = [host] if host is not None else [spec.name for spec in site.inventory.hosts]
    return tuple(kept for name in names for kept in _of_host(site, site.target(name), service))


def _of_host(site: Site, target: Target, only: str | None) -> Iterator[Kept]:
    for service in target.spec.services:
        if not service.config or only not in {None, service.name}:
            continue
        if failing := _failing_check(site, target, service):
            yield Kept(target.spec.name, service.name, reason=failing)
            continue
        try:
            files = record_good_configs(target, service.name)
        except ToolError as error:
            yield Kept(target.spec.name, service.name, reason=str(error))
        else:
            yield Kept(target.spec.name, service.name, files)


def _failing_check(site: Site, target: Target, service: Service) -> str:
    """Say which check of a service does not pass; empty if all do."""
    for check in service.checks:
        arguments: dict[str, Any]
        if isinstance(check, HttpCheck):
            name, arguments = "http.check", {"url": check.url}
        else:
            name, arguments = "tcp.check", {"host": check.host, "port": check.port}
        try:
            found = site.registry.gather(name, target, arguments, id="good-configs")
        except ToolError as error:
            return str(error)
        if found.error:
            return found.error
        failing = [finding.text for finding in found.findings if finding.kind == FindingKind.CHECK_FAILING]
        if failing:
            return failing[0]
    return ""


def keeping(site: Site, *, now: Clock = utc_now) -> Callable[[], None]:
    """Return what a worker does between two jobs: look at all services, once every `LOOK_EVERY`."""
    due = now()

    def look() -> None:
        nonlocal due
        if now() >= due:
            due = now() + LOOK_EVERY
            keep_good_configs(site)

    return look


def keep_after_resolved(site: Site, alert: Alert) -> None:
    """Keep what the service of an alert runs with after its incident was resolved.

    The incident has ended: what cannot be looked at now is looked at another time.
    """
    with suppress(ToolError, OSError):
        keep_good_configs(site, alert.host, alert.service)
