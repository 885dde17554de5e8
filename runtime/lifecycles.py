"""Lifecycles of predictors among the incidents: asked for, found again, and run as their own graph."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from watchkeeper.runtime.alerts import Alert, Condition
from watchkeeper.runtime.errors import ConfigurationError, IncidentBusyError
from watchkeeper.runtime.events import RetrainingAsked
from watchkeeper.runtime.incident_jobs import RUN, run_key
from watchkeeper.runtime.incidents import Incident
from watchkeeper.runtime.jobs import Jobs
from watchkeeper.runtime.journal import Journal
from watchkeeper.tools.errors import ToolError, UnknownToolError
from watchkeeper.tools.findings import FindingKind, Severity

if TYPE_CHECKING:
    from collections.abc import Callable

    from langgraph.checkpoint.base import BaseCheckpointSaver
    from langgraph.graph.state import CompiledStateGraph

    from watchkeeper.runtime.changes import Changes
    from watchkeeper.runtime.context import Context
    from watchkeeper.runtime.lifecycle_rules import Retraining
    from watchkeeper.runtime.site import Site

QUALITY = "predictor.quality"
TOOLS = "watchkeeper.tools.versions.tools:predictor_tools"
"""Where the facts and actions come from that a lifecycle needs; see the setting ``tools``."""


def alert_of(request: Retraining) -> Alert:
    """Return the alert under which a retraining that a person asked for is kept."""
    return Alert(
        title=f"predictor {request.predictor} is to be retrained",
        host=request.host,
        severity=Severity.NORMAL,
        condition=Condition(
            fact="predictor.versions",
            arguments={"name": request.predictor},
            firing=(FindingKind.PREDICTOR_UNANSWERED.value,),
        ),
        labels={"predictor": request.predictor},
    )


def ask(journal: Journal, site: Site, request: Retraining, *, by: str, queue: bool = False) -> Incident:
    """Keep that a predictor is to be retrained.

    Args:
        journal: Where it is written.
        site: Its host and tools.
        request: What was asked for.
        by: Who asks.
        queue: Whether it is given to the workers, too.

    Raises:
        ConfigurationError: If the site lacks the host, or the tools that a lifecycle needs, or labels are to
            be looked at without a floor that the trainer needs.
        IncidentBusyError: If it is being retrained already.
    """
    check_site(site)
    _check_floor(request)
    alert = alert_of(request)
    alert.check(site.inventory, site.registry)
    with journal.store.transaction():
        incident = journal.open(alert, by=by)
        if incident.alert_count > 1:
            raise IncidentBusyError(
                f"predictor {request.predictor!r} is being retrained already: go on with "
                f"`watchkeeper predictors retrain --resume {incident.id}`"
            )
        _keep(journal, incident.id, request, drift=False)
        if queue:
            Jobs(journal.store).add(RUN, {"incident": incident.id}, key=run_key(incident.id))
    return incident


def check_site(site: Site) -> None:
    """Make sure that a site has the tools that a lifecycle needs.

    Raises:
        ConfigurationError: Saying what to add.
    """
    try:
        for name in ("predictor.promote", "job.submit"):
            site.registry.action(name)
        site.registry.fact(QUALITY)
    except UnknownToolError as error:
        raise ConfigurationError(
            f"retraining needs more tools ({error}): add {TOOLS!r} to the setting tools"
        ) from error


def _check_floor(request: Retraining) -> None:
    from watchkeeper.runtime.lifecycle_scoring import lacks_floor

    with contextlib.suppress(ToolError):  # whoever retrains it may know a trainer that is missing here
        if missing := lacks_floor(request):
            raise ConfigurationError(f"predictor {request.predictor!r}: {missing}")


def lifecycle_graph(
    context: Context,
    incident_id: str,
    checkpoints: BaseCheckpointSaver[str],
    changes_of: Callable[[Site], Changes],
) -> CompiledStateGraph[Any, Any, Any, Any] | None:
    """Return the graph of an incident that is a lifecycle; None of one that is none.

    Drift of a predictor of which the home's ``lifecycle.yaml`` speaks is one from the first time that it is
    run; as what it began it goes on, whatever the file says later.

    Raises:
        ConfigurationError: If that file is not right, or tools are missing.
        JobSpecError: If the job that it names cannot be read.
    """
    if not _maybe(context, incident_id):
        return None
    from dataclasses import replace

    from watchkeeper.runtime.lifecycle import build_lifecycle
    from watchkeeper.runtime.lifecycle_rules import LifecycleRules
    from watchkeeper.runtime.lifecycle_run import LifecycleRun, request_of, with_job

    journal = context.journal
    found = request_of(journal, incident_id)
    if found is None:
        name = str(journal.incidents.get(incident_id).alert.condition.arguments.get("name"))
        request = LifecycleRules.of_home(context.site.home).retraining(name)
        if request is None or _begun(journal, incident_id):
            return None
        check_site(context.site)
        _keep(journal, incident_id, request, drift=True)
        found = request, True
    request, drift = found
    site = with_job(context.site, request, incident_id)
    own = replace(context, site=site)
    return build_lifecycle(LifecycleRun(own, changes_of(site), request, drift), checkpoints)


def _maybe(context: Context, incident_id: str) -> bool:
    condition = context.journal.incidents.get(incident_id).alert.condition
    return condition.fact in {QUALITY, "predictor.versions"}


def _begun(journal: Journal, incident_id: str) -> bool:
    """Whether another graph works on it."""
    return any(event.kind != "incident-opened" for event in journal.incidents.events(incident_id))


def _keep(journal: Journal, incident_id: str, request: Retraining, *, drift: bool) -> None:
    event = RetrainingAsked(predictor=request.predictor, request=request.model_dump(mode="json"), drift=drift)
    journal.record(incident_id, event, key="retraining")
