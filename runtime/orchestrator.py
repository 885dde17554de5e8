"""The orchestrator: runs incidents, streams their events, takes answers, and resumes what was cut off."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from langgraph.graph.state import CompiledStateGraph

from watchkeeper.agents import Agent, AgentRole, Team
from watchkeeper.models.interface import Engine
from watchkeeper.models.lazy import LazyEngine
from watchkeeper.models.shipped_adapters import DEFAULT_ADAPTER
from watchkeeper.runtime.alerts import Alert
from watchkeeper.runtime.approvals import Answer, Approval, ApprovalKind
from watchkeeper.runtime.authority import attempt
from watchkeeper.runtime.changes import Applied, Changes
from watchkeeper.runtime.context import Context
from watchkeeper.runtime.errors import IdentityError
from watchkeeper.runtime.escalation_jobs import EscalationJobs
from watchkeeper.runtime.escalation_rules import EscalationRules
from watchkeeper.runtime.escalation_states import Escalation
from watchkeeper.runtime.events import Event
from watchkeeper.runtime.gate import build_gate
from watchkeeper.runtime.incidents import Incident
from watchkeeper.runtime.journal import Journal
from watchkeeper.runtime.known_secrets import learn_named
from watchkeeper.runtime.leases import LEASE_SECONDS
from watchkeeper.runtime.lifecycles import ask
from watchkeeper.runtime.notify import sinks_of
from watchkeeper.runtime.people import Person, Proof
from watchkeeper.runtime.policy import Policy
from watchkeeper.runtime.report import Report, build_report
from watchkeeper.runtime.roles import Permission
from watchkeeper.runtime.runner import Runner
from watchkeeper.runtime.settings import Settings, load_settings
from watchkeeper.runtime.site import Site
from watchkeeper.runtime.training import TrainingJobs
from watchkeeper.tools.errors import PluginError
from watchkeeper.tools.inventory import Inventory
from watchkeeper.tools.plugins import AGENTS, load_plugins, load_registry
from watchkeeper.tools.registry import AnyAction, AnyFact

if TYPE_CHECKING:
    from watchkeeper.runtime.lifecycle_rules import Retraining


class Orchestrator:
    """Runs incidents with a team of agents over one engine.

    Args:
        inventory: The hosts that may be touched, or the YAML file that says so.
        engine: Who answers, e.g. one that several orchestrators share; it stays open when this is closed.
        model: Id of the model, or its folder, where no engine is given: it is opened when it is first asked
            and closed with this (default: that of the settings).
        policy: What may be done, or its YAML file; by default every action is asked for.
        tools: Facts and actions besides the built-in ones, those of installed packages and those that the
            settings name.
        agents: Agents that take the place of the built-in ones of their roles.
        settings: Thresholds, budgets and the folder of the state.
        requester: In whose name actions are asked for (default: the user of this process). Where there is
            a users file, a name needs the token of that user, unless the account of this process is theirs.
        token: The token of who asks.
        lease_seconds: Time after which another process may take over what this one runs, if it is silent.
        escalation: Who is called, or the YAML file that says so (default: that of the settings; without
            one, whoever sits at the terminal).
        terminal: Writes a line to the console of this process, for people who are called there.

    Raises:
        ConfigurationError: If the escalation rules are not usable.
        InventoryError: If the inventory is not usable.
        PolicyError: If the policy is not usable.
        StoreError: If the state cannot be opened.
        IdentityError: If there is a users file, and it is not known from it who asks.
        PluginError: If tools or agents that are installed or named in the settings cannot be loaded.
        ValueError: If both an engine and a model are given, or two agents take one role.
    """

    def __init__(
        self,
        *,
        inventory: Inventory | Path | str,
        engine: Engine | None = None,
        model: str | None = None,
        policy: Policy | Path | str | None = None,
        tools: Iterable[AnyFact | AnyAction] = (),
        agents: Iterable[Agent] = (),
        settings: Settings | None = None,
        requester: str | None = None,
        token: str | None = None,
        lease_seconds: float = LEASE_SECONDS,
        escalation: EscalationRules | Path | str | None = None,
        terminal: Callable[[str], None] | None = None,
    ) -> None:
        if engine is not None and model is not None:
            raise ValueError(f"give either an engine or a model, not both (model {model!r})")
        self.settings = settings or load_settings()
        self._own_engine: LazyEngine | None = None
        if engine is None:
            engine = self._own_engine = engine_of(model or self.settings.model, self.settings)
        self._team = team_of(engine, tuple(agents), self.settings)
        hosts = inventory if isinstance(inventory, Inventory) else Inventory.load(Path(inventory))
        registry = load_registry(self.settings.tools, self.settings.log_predictor)
        for tool in tools:
            registry.add(tool)
        policy = self.settings.policy_path if policy is None else policy
        if policy is None:
            rules = Policy.default(registry)
        else:
            rules = policy if isinstance(policy, Policy) else Policy.load(Path(policy), registry)
        self.site = Site(
            hosts,
            registry,
            rules,
            self.settings.home,
            _called(self.settings.escalation_path if escalation is None else escalation),
        )
        self.journal = Journal(
            self.settings.home,
            store=self.settings.store_place,
            solo=self.settings.solo,
            observe_only=self.settings.observe_only,
        )
        called = self.site.escalation
        learn_named(
            self.settings.home,
            [channel.secret for channel in called.channels.values()],
            self.site.names() | called.people.keys(),
        )
        jobs = TrainingJobs(self.journal.store, self.settings.home, self.journal.audit)
        self.site = replace(self.site, jobs=jobs)
        try:
            self._person = self.journal.people.at_terminal(by=requester, token=token)
        except IdentityError:
            self.journal.close()
            raise
        self._requester = self._person.name
        self.changes = self._changes_of(self.site)
        self.escalation_jobs = EscalationJobs(
            self.journal.store,
            self.journal.escalations,
            sinks_of(self.settings.home, terminal),
            now=self.journal.now,
        )
        self._runner = Runner(
            Context(self.site, self._team, self.journal, self.settings, self._requester),
            self.changes,
            self._changes_of,
            self.escalation_jobs,
            lease_seconds=lease_seconds,
        )

    def open(self, alert: Alert) -> Incident:
        """Open an incident for an alert, or group the alert into the one that is open for the same thing.

        Raises:
            ConfigurationError: If the alert speaks of a host, a service or a fact that is not there.
            IdentityError: If who asks may not have incidents handled.
        """
        self.journal.people.still(self._person).check(Permission.RUN, "have an incident handled")
        alert.check(self.site.inventory, self.site.registry)
        return self.journal.open(alert, by=self._requester)

    def retrain(self, request: Retraining, *, queue: bool = False) -> Incident:
        """Keep that a predictor is to be retrained; `resume` does it, step by step, under the returned id.

        Args:
            request: What is trained, on what, and what it must show before it answers.
            queue: Whether it is given to the workers (``watchkeeper serve``), too.

        Raises:
            ConfigurationError: If its host is not there, or tools that it needs (see the setting ``tools``).
            IncidentBusyError: If the predictor is being retrained already.
            IdentityError: If who asks may not have that done.
        """
        self.journal.people.still(self._person).check(Permission.RUN, "have a predictor retrained")
        return ask(self.journal, self.site, request, by=self._requester, queue=queue)

    def run(self, alert: Alert, *, wait: bool = True) -> Iterator[Event]:
        """Handle an alert to its end and yield what happens as it happens.

        While a question to people is open the iterator waits; answer it with `answer`, from the loop that
        consumes the events, another thread, or another process (``watchkeeper approvals``). Leaving the loop
        stops the run in a state that `resume` goes on from.

        Args:
            alert: The alert.
            wait: False ends the iterator at an open question instead.

        Raises:
            ConfigurationError: If the alert speaks of a host, a service or a fact that is not there.
            IncidentBusyError: If another process runs the incident.
            HaltedError: If everything was stopped, before or meanwhile.
            StoreError: If the state cannot be written.
        """
        incident = self.open(alert)
        return self.resume(incident.id, wait=wait)

    def resume(self, incident_id: str, *, wait: bool = True) -> Iterator[Event]:
        """Go on with an incident where it stands, from its first event if it has not begun.

        An effect that was begun is never repeated: the ledger and the action's probe say what came of it.

        Args:
            incident_id: The incident.
            wait: False ends the iterator at an open question.

        Raises:
            UnknownIncidentError: If there is no such incident.
            IncidentBusyError: If another process runs it.
            HaltedError: If everything was stopped, before or meanwhile.
            FencedError: If another process took the incident over, since this one was taken for dead.
            StoreError: If the state cannot be written.
        """
        self.journal.people.still(self._person).check(Permission.RUN, "have an incident handled")
        self.journal.incidents.get(incident_id)
        self.journal.halts.check()
        return self._runner.run(incident_id, wait=wait)

    def answer(
        self,
        approval_id: str,
        answer: Answer | str,
        *,
        by: Person | str | None = None,
        token: str | None = None,
        reason: str = "",
        arguments: dict[str, Any] | None = None,
    ) -> Approval:
        """Answer a question.

        Args:
            approval_id: The question.
            answer: ``approve``, ``edit``, ``reject``, ``respond``, ``escalate`` or ``terminate``; of an
                effect in doubt ``done`` or ``not-done``.
            by: Who answers (default: the user of this process). Where there is a users file, a name needs
                the token of that user, unless the account of this process is theirs.
            token: The token of who answers.
            reason: Why; the words of a response.
            arguments: The new arguments of an edit.

        Raises:
            ApprovalError: If the question is unknown, answered or expired, or not this person's to answer.
            IdentityError: If it is not known who answers, or their roles do not allow it.
            ToolError: If the arguments of an edit are not valid or cannot be planned.
            AuditError: If the answer cannot be written into the audit log; it is then not given.
        """
        if by is None and token is None and self._person.proof is not Proof.SAID:
            by = self._person
        person = self.journal.check_answerer(approval_id, Answer(answer), by=by, token=token)
        if arguments is not None:
            asked = self.journal.approvals.get(approval_id)
            arguments = self.changes.check_edit(asked.step_id, arguments, by=person.name)
        return self.journal.answer(approval_id, Answer(answer), by=person, reason=reason, arguments=arguments)

    def acknowledge(
        self,
        escalation_id: str,
        *,
        by: Person | str | None = None,
        token: str | None = None,
        reason: str = "",
    ) -> Escalation:
        """Say that somebody is on it: nobody else is called; the question keeps its own deadline.

        Args:
            escalation_id: The escalation.
            by: Who (default: the user of this process).
            token: Their token, where it is not this process's user.
            reason: What they want to add.

        Raises:
            IdentityError: If it is not known who that is, or their roles do not do.
            EscalationError: If it is unknown, over, or acknowledged by somebody else.
            AuditError: If that cannot be written into the audit log; it is then not acknowledged.
        """
        if by is None and token is None and self._person.proof is not Proof.SAID:
            by = self._person
        what = f"acknowledge {escalation_id}"
        with attempt(self.journal.audit, what, Permission.ACKNOWLEDGE) as known:
            person = known(self.journal.people.confirm(by, token=token))
            person.check(Permission.ACKNOWLEDGE, what)
        return self.journal.escalations.acknowledge(escalation_id, by=person.name, reason=reason)

    def report(self, incident_id: str) -> Report:
        """Return the report of an incident as it stands."""
        return build_report(self.journal, incident_id, watts=self.settings.cpu_watts)

    def gate(self) -> CompiledStateGraph[Any, Any, Any, Any]:
        """Return the gate (plan, policy, people) as a node for a LangGraph graph of one's own.

        See `watchkeeper.runtime.gate.GateState` for what it reads and writes; apply a permitted step with
        `apply`.

        Raises:
            IdentityError: If who asks may not have anything done.
        """
        self.journal.people.still(self._person).check(Permission.RUN, "have an action done")
        return build_gate(self.changes, self.journal)

    def apply(self, step_id: str) -> Applied:
        """Apply a step that the gate permitted, at most once, and verify it.

        Raises:
            ApprovalError: If it is not permitted.
            ObserveOnlyError: If nothing may be applied.
            DriftError: If its target is no longer what was approved.
            LimitError: If the incident's budget of actions is spent, or a limit forbids it now.
            IncidentBusyError: If another process or thread works on the incident: what it is about to do
                would look like something that a crash cut off.
        """
        incident_id = self.journal.steps.get(step_id).incident_id
        found = [
            approval.id
            for approval in self.journal.approvals.list(incident_id=incident_id)
            if approval.step_id == step_id and approval.kind is ApprovalKind.ACTION
        ]
        with self.journal.incidents.lock(incident_id):
            applied = self.changes.apply(step_id, found[0] if found else None)
            if applied.ok:
                verified = self.changes.verify(step_id)
                if not verified.ok:
                    return Applied(applied.state, f"its effect is not there: {verified.detail}")
        return applied

    def stop(self, incident_id: str | None = None) -> None:
        """End the runs of this orchestrator, a generation within a token; they can be resumed.

        Args:
            incident_id: End the run of this incident only.
        """
        self._runner.stop(incident_id)

    def close(self) -> None:
        """Close the state, and the engine where it was not given."""
        self.journal.close()
        if self._own_engine is not None:
            self._own_engine.close()

    def __enter__(self) -> Orchestrator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _changes_of(self, site: Site) -> Changes:
        return Changes(
            site,
            self.journal,
            requester=self._requester,
            approval_ttl=self.settings.approval_ttl_seconds,
            observe_only=self.settings.observe_only,
            limits=self.settings.limits,
            max_actions=self.settings.max_actions,
        )


def _called(given: EscalationRules | Path | str | None) -> EscalationRules:
    if given is None:
        return EscalationRules()
    if isinstance(given, EscalationRules):
        given.check()
        return given
    return EscalationRules.load(Path(given))


def team_of(engine: Engine, agents: tuple[Agent, ...], settings: Settings) -> Team:
    """Put the agents of plugins into the roles that the given ones leave.

    Raises:
        PluginError: If agents that are installed or named in the settings cannot be loaded.
        ValueError: If two of the agents take one role.
    """
    adapter = _adapter_of(engine, settings)
    team = Team.of(engine, agents, adapter=adapter)
    taken: dict[AgentRole, str] = {agent.role: "" for agent in agents}
    for plugin in load_plugins(AGENTS, settings.agents, (Agent,)):
        for agent in plugin.things:
            other = taken.setdefault(agent.role, plugin.name)
            if other == plugin.name:
                team.agents[agent.role] = _adapted(agent, adapter)
            elif other:
                raise PluginError(
                    f"plugins {other} and {plugin.name} both bring an agent for the role "
                    f"{agent.role.value!r}: keep one of them"
                )
    return team


def _adapter_of(engine: Engine, settings: Settings) -> str | None:
    """The adapter of the settings, or that which comes with Watchkeeper where the engine has it."""
    if settings.adapter is not None:
        return settings.adapter or None
    return DEFAULT_ADAPTER if DEFAULT_ADAPTER in getattr(engine, "adapters", ()) else None


def _adapted(agent: Agent, adapter: str | None) -> Agent:
    """Give a diagnostician an adapter, unless it names one itself."""
    if agent.role is not AgentRole.DIAGNOSTICIAN or agent.adapter is not None:
        return agent
    return replace(agent, adapter=adapter)


def engine_of(model: str, settings: Settings) -> LazyEngine:
    """Return an engine that is opened when it is first asked."""
    from watchkeeper.models import open_engine

    adapters = settings.model_copy(update={"model": model}).adapters
    return LazyEngine(lambda: open_engine(model, settings.quantization, adapters=adapters), adapters=adapters)
