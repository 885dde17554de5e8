"""Agents: what they are asked, what they know, and what they answer; not how they are run."""

from watchkeeper.agents.agent import Agent, AgentRole
from watchkeeper.agents.case import Attempt, Case
from watchkeeper.agents.causes import BUILTIN_CAUSES, NOTHING_WRONG, Cause, FollowUp
from watchkeeper.agents.decision import Decision
from watchkeeper.agents.hypotheses import Hypothesis, supported
from watchkeeper.agents.outputs import Claim, Diagnosis, DiagnosisStatus, FactCall, Reading, Remedy, Triage
from watchkeeper.agents.team import Team

__all__ = [
    "BUILTIN_CAUSES",
    "NOTHING_WRONG",
    "Agent",
    "AgentRole",
    "Attempt",
    "Case",
    "Cause",
    "Claim",
    "Decision",
    "Diagnosis",
    "DiagnosisStatus",
    "FactCall",
    "FollowUp",
    "Hypothesis",
    "Reading",
    "Remedy",
    "Team",
    "Triage",
    "supported",
]
