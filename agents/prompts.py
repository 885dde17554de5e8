"""Prompts: for agents with tools from trusted text alone, for quarantined ones from quotations."""

from __future__ import annotations

from watchkeeper.agents.agent import Agent, AgentRole
from watchkeeper.models.interface import Message, system, user
from watchkeeper.tools.errors import UntrustedTextError
from watchkeeper.tools.passages import Quoted, Trusted, lines

QUARANTINED = frozenset({AgentRole.TRIAGE, AgentRole.READER})
"""Roles that read what strangers wrote: they hold no tools and answer with one of a fixed list."""


def trusted_prompt(agent: Agent, *parts: Trusted) -> tuple[Message, ...]:
    """Build the prompt of an agent that decides about tools.

    Raises:
        UntrustedTextError: If a part of it is not trusted text.
    """
    return system(agent.instructions), user(lines(parts))


def quarantined_prompt(agent: Agent, lead: Trusted, quotes: tuple[Quoted, ...]) -> tuple[Message, ...]:
    """Build the prompt of an agent that reads what strangers wrote.

    Args:
        agent: Who reads; of a quarantined role.
        lead: What the quotations are.
        quotes: The quotations, a line each.

    Raises:
        UntrustedTextError: If the agent is one that decides about tools.
    """
    if agent.role not in QUARANTINED:
        raise UntrustedTextError(f"agent {agent.title!r} decides about tools: it may not read quotations")
    return system(agent.instructions), user("\n".join([lead, *(quote.text for quote in quotes)]).strip())
