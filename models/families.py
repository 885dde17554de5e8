"""What model families have in common and what they do not: one small description each.

A family is told from a tokenizer's chat template and control tokens, never from a model's name: a renamed or
fine-tuned model is still of its family. How a template treats roles is not written down but tried out once,
so that an unknown family works too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from watchkeeper.models.grammar import CallTags

Turn = dict[str, Any]
Render = Callable[[Sequence[Turn], Mapping[str, Any]], str | None]
"""Writes turns with template options, or gives None where the template refuses them."""


@dataclass(frozen=True, slots=True)
class Family:
    """How one family writes conversations and calls.

    Attributes:
        name: ``hermes``, ``llama``, ``gemma``, ``chatml`` or ``generic``.
        tags: How a call is written.
        describes_tools: Whether the template itself writes tools, calls and their answers; otherwise they
            are written into system, assistant and user turns.
        takes_system: Whether a system turn is accepted; otherwise its text opens the first user turn.
        alternates: Whether user and assistant must take turns; otherwise one may speak twice in a row.
        options: What the template is told besides the turns.
    """

    name: str
    tags: CallTags
    describes_tools: bool = False
    takes_system: bool = True
    alternates: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def parallel(self) -> bool:
        """Whether one turn may hold several calls."""
        return self.tags.separator is not None


def recognize(template: str, tokens: Mapping[str, int], render: Render) -> Family:
    """Tell the family that a tokenizer belongs to.

    Args:
        template: Source of the chat template.
        tokens: The tokenizer's added tokens and their ids.
        render: Tries the template out.
    """
    family = _called_like(template, tokens)
    system, user = {"role": "system", "content": "SYSTEM"}, {"role": "user", "content": "USER"}
    with_system = render([system, user], family.options)
    return Family(
        family.name,
        family.tags,
        family.describes_tools,
        takes_system=with_system is not None and "SYSTEM" in with_system,
        alternates=render([user, user], family.options) is None,
        options=family.options,
    )


def _called_like(template: str, tokens: Mapping[str, int]) -> Family:
    """Return what the family's marks say, before its roles are tried out."""
    tags = CallTags()
    if tags.opening in tokens and tags.closing in tokens:
        tags = CallTags(opening_id=tokens[tags.opening], closing_id=tokens[tags.closing])
    writes_tools = re.search(r"\btools\b", template) is not None
    if (
        writes_tools
        and tags.opening in template
        and '"arguments' in template
        and "<function=" not in template
    ):
        # Qwen2.5 and Qwen3, and whoever was trained on the Hermes format. Qwen3 would think first, at length
        # and outside of any grammar; older templates do not know the option.
        # What Qwen2.5 finds for an argument is what it finds unconstrained only in the layout that it writes
        # by itself. The template writes calls in one line, so later turns compute those tokens anew.
        spread = replace(tags, spread="enable_thinking" not in template)
        return Family("hermes", spread, describes_tools=True, options={"enable_thinking": False})
    if "<|start_header_id|>" in tokens and "<|eot_id|>" in tokens:
        if writes_tools and "ipython" in template and '"parameters' in template:
            # Llama 3.1 and later: bare JSON, one call a turn. Tools stand in the system turn, so that
            # conversations share them as a prefix.
            bare = CallTags("", "", arguments="parameters", separator=None)
            return Family("llama", bare, describes_tools=True, options={"tools_in_user_message": False})
        return Family("llama", tags)
    for name, mark in (("gemma", "<start_of_turn>"), ("chatml", "<|im_start|>")):
        if mark in tokens and mark in template:
            return Family(name, tags)
    return Family("generic", tags)
