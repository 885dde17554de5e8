"""A team: one engine, and an agent for every role."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from watchkeeper.agents import curator, diagnostician, investigator, reader, remediator, reporter, triage
from watchkeeper.agents.agent import BUILTIN_AGENTS, Agent, AgentRole
from watchkeeper.agents.case import Case
from watchkeeper.agents.causes import BUILTIN_CAUSES, Cause
from watchkeeper.agents.curator import Course, Situation
from watchkeeper.agents.decision import Decision
from watchkeeper.agents.hypotheses import Hypothesis
from watchkeeper.agents.outputs import Diagnosis, FactCall, Reading, Remedy, Triage
from watchkeeper.agents.remediator import Remedial
from watchkeeper.models.interface import Cancellation, Engine


@dataclass(frozen=True, slots=True)
class Team:
    """Agents over one engine.

    Attributes:
        engine: Who answers.
        agents: One agent a role; the built-in one where a role is not given.
        cancel: Raised to end whatever is being asked, within a token.
    """

    engine: Engine
    agents: dict[AgentRole, Agent] = field(default_factory=dict)
    cancel: Cancellation = field(default_factory=Cancellation)

    @classmethod
    def of(cls, engine: Engine, agents: Iterable[Agent] = (), *, adapter: str | None = None) -> Team:
        """Put agents into their roles; the built-in ones take the roles that are left.

        Args:
            engine: Who answers.
            agents: Agents of the caller's own.
            adapter: Adapter with which the diagnostician is asked, unless it names one itself. Other roles
                keep to the base model: an adapter is judged on root causes alone.

        Raises:
            ValueError: If two of the agents take one role.
        """
        places: dict[AgentRole, Agent] = {}
        for agent in agents:
            if agent.role in places:
                raise ValueError(f"two agents take the role {agent.role.value!r}")
            places[agent.role] = agent
        taken = {agent.role: agent for agent in BUILTIN_AGENTS} | places
        finder = taken[AgentRole.DIAGNOSTICIAN]
        if adapter and finder.adapter is None:
            taken[AgentRole.DIAGNOSTICIAN] = replace(finder, adapter=adapter)
        return cls(engine, taken)

    @property
    def causes(self) -> tuple[Cause, ...]:
        """What the team knows to go wrong."""
        return BUILTIN_CAUSES + self.agents[AgentRole.DIAGNOSTICIAN].causes

    def may_ask(self, fact: str) -> bool:
        """Whether the investigator may ask for a fact."""
        allowed = self.agents[AgentRole.INVESTIGATOR].facts
        return allowed is None or fact in allowed

    def may_propose(self, action: str) -> bool:
        """Whether the remediator may propose an action."""
        allowed = self.agents[AgentRole.REMEDIATOR].actions
        return allowed is None or action in allowed

    def triage(self, *, title: str, description: str) -> tuple[Triage, tuple[Decision, ...]]:
        """See `watchkeeper.agents.triage.triage`."""
        agent = self.agents[AgentRole.TRIAGE]
        return triage.triage(self.engine, agent, title=title, description=description, cancel=self.cancel)

    def read(self, evidence: str, lines: Sequence[str]) -> tuple[Reading, Decision]:
        """See `watchkeeper.agents.reader.read`."""
        agent = self.agents[AgentRole.READER]
        return reader.read(self.engine, agent, evidence=evidence, lines=lines, cancel=self.cancel)

    def next_facts(
        self, case: Case, calls: Sequence[FactCall], *, take: int
    ) -> tuple[tuple[FactCall, ...], Decision]:
        """See `watchkeeper.agents.investigator.next_facts`."""
        agent = self.agents[AgentRole.INVESTIGATOR]
        return investigator.next_facts(self.engine, agent, case, calls, take=take, cancel=self.cancel)

    def diagnose(
        self, case: Case, hypotheses: Sequence[Hypothesis], *, min_confidence: float
    ) -> tuple[Hypothesis, Diagnosis, Decision]:
        """See `watchkeeper.agents.diagnostician.diagnose`."""
        agent = self.agents[AgentRole.DIAGNOSTICIAN]
        return diagnostician.diagnose(
            self.engine, agent, case, hypotheses, min_confidence=min_confidence, cancel=self.cancel
        )

    def choose_action(
        self, case: Case, hypothesis: Hypothesis, remedies: Sequence[Remedial]
    ) -> tuple[list[int], Decision]:
        """See `watchkeeper.agents.remediator.choose_action`."""
        agent = self.agents[AgentRole.REMEDIATOR]
        return remediator.choose_action(self.engine, agent, case, hypothesis, remedies, cancel=self.cancel)

    def fill_arguments(self, case: Case, hypothesis: Hypothesis, remedy: Remedial) -> tuple[Remedy, Decision]:
        """See `watchkeeper.agents.remediator.fill_arguments`."""
        agent = self.agents[AgentRole.REMEDIATOR]
        return remediator.fill_arguments(self.engine, agent, case, hypothesis, remedy, cancel=self.cancel)

    def summarize(self, record: Sequence[str], names: Collection[str] = ()) -> tuple[str, Decision]:
        """See `watchkeeper.agents.reporter.summarize`."""
        agent = self.agents[AgentRole.REPORTER]
        return reporter.summarize(self.engine, agent, record, names=names, cancel=self.cancel)

    def choose_course(self, situation: Situation, courses: Sequence[Course]) -> tuple[Course, Decision]:
        """See `watchkeeper.agents.curator.choose_course`."""
        agent = self.agents[AgentRole.CURATOR]
        return curator.choose_course(self.engine, agent, situation, courses, cancel=self.cancel)
