"""The remediator: which action mends a cause, and with which arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from watchkeeper.agents.agent import Agent
from watchkeeper.agents.case import Case
from watchkeeper.agents.decision import Decision, prompt_digest
from watchkeeper.agents.hypotheses import Hypothesis
from watchkeeper.agents.outputs import Remedy
from watchkeeper.agents.prompts import trusted_prompt
from watchkeeper.models.interface import (
    Cancellation,
    ChoiceRequest,
    Engine,
    GenerationRequest,
    JsonSchema,
    Message,
    ToolSpec,
)
from watchkeeper.tools.passages import Trusted, passage


@dataclass(frozen=True, slots=True)
class Remedial:
    """An action that may mend a cause, as the model sees it.

    Attributes:
        spec: Its canonical schema.
        narrowed: The same schema with only the values that inventory, policy and evidence allow.
        about: What it would do, in words.
        names: Stand-ins of the narrowed schema with what others named so; the call gets the latter.
    """

    spec: ToolSpec
    narrowed: JsonSchema
    about: Trusted
    names: Mapping[str, str] = field(default_factory=dict)


def _prompt(agent: Agent, case: Case, hypothesis: Hypothesis | None) -> tuple[Message, ...]:
    said = [passage("Alert: {condition}.", condition=case.condition)]
    if hypothesis:
        said += [Trusted("Observations:"), case.observations(), *case.remarks]
        said.append(passage("Root cause: {cause}.", cause=hypothesis.told(case)))
    return trusted_prompt(agent, *said, Trusted("Which single action mends this?"))


def choose_action(
    engine: Engine,
    agent: Agent,
    case: Case,
    hypothesis: Hypothesis,
    remedies: Sequence[Remedial],
    *,
    cancel: Cancellation | None = None,
) -> tuple[list[int], Decision]:
    """Rank the actions that may mend a cause, the most probable first.

    Args:
        engine: Who answers.
        agent: What it is told.
        case: The evidence.
        hypothesis: The cause.
        remedies: The actions; not empty.
        cancel: Raised to end the question.
    """
    messages = _prompt(agent, case, hypothesis)
    choice = engine.choose(
        ChoiceRequest(
            messages=messages,
            lead="The action that mends this is to",
            options=tuple(remedy.about for remedy in remedies),
            neutral=_prompt(agent, case, None),
        ),
        cancel=cancel,
    )
    decision = Decision.of_choice(
        choice,
        role=agent.title,
        question="Which action mends the cause?",
        messages=messages,
        evidence=tuple(item.evidence for item in hypothesis.support),
        identity=engine.identity,
    )
    return choice.ranking, decision


def fill_arguments(
    engine: Engine,
    agent: Agent,
    case: Case,
    hypothesis: Hypothesis,
    remedy: Remedial,
    *,
    cancel: Cancellation | None = None,
) -> tuple[Remedy, Decision]:
    """Let the model write the call; the grammar admits only the narrowed schema.

    Raises:
        BudgetExceededError: If the call did not end within its budget.
        GrammarError: If the narrowed schema cannot be enforced.
    """
    messages = _prompt(agent, case, hypothesis)
    calls: Mapping[str, JsonSchema] = {remedy.spec.name: remedy.narrowed}
    generation = engine.generate(
        GenerationRequest(
            messages=messages,
            tools=(remedy.spec,),
            tool_choice=remedy.spec.name,
            call_schemas=calls,
            max_tokens=300,
        ),
        cancel=cancel,
    )
    call = generation.tool_calls[0]
    # A small model may say a value of a list twice; once is what it means.
    arguments = {
        name: [remedy.names.get(str(one), one) for one in dict.fromkeys(value)]
        if isinstance(value, list) and _plain(value)
        else remedy.names.get(str(value), value)
        for name, value in call.arguments.items()
    }
    written = f"{call.name}({', '.join(f'{name}={value!r}' for name, value in arguments.items())})"
    decision = Decision(
        role=agent.title,
        question=f"With which arguments is {call.name} called?",
        options=(written,),
        probabilities=(),
        chosen=(0,),
        evidence=tuple(item.evidence for item in hypothesis.support),
        prompt_digest=prompt_digest(messages),
        identity=engine.identity,
        usage=generation.usage,
    )
    return Remedy(action=call.name, arguments=arguments), decision


def _plain(values: Sequence[object]) -> bool:
    return all(isinstance(value, str | int) for value in values)
