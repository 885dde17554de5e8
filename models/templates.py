"""From a conversation to the tokens of a prompt, per model family.

Whatever a message, a schema or a tool result contains, only the chat template itself opens and closes turns
and calls: control tokens in contents are encoded as plain text.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from watchkeeper.models.errors import ModelError
from watchkeeper.models.families import Turn, recognize
from watchkeeper.models.interface import Message, ToolSpec
from watchkeeper.models.turns import description, written

GENERIC_TEMPLATE = (
    "{% for message in messages %}"
    "{{ message['role'] | capitalize }}: {{ message['content'] }}\n\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""For tokenizers that bring no template. It has no control tokens, so contents can imitate its turns:
base models are good for scoring and forced answers, not for untrusted text."""

_END_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end|>", "<|endoftext|>")


class ChatFormat:
    """How one model writes conversations: its family's way, with its own tokens.

    Args:
        tokenizer: A fast tokenizer of transformers.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        own = _template(tokenizer)
        self._source = own or GENERIC_TEMPLATE
        added = {token.content: index for index, token in tokenizer.added_tokens_decoder.items()}
        self.family = recognize(self._source, added, self._try)
        """What is particular to the family."""
        self.tags = self.family.tags
        """How a call is written."""
        self.describes_tools = self.family.describes_tools
        """Whether the template itself writes tools and calls."""
        ends = {
            added[text] for text in _END_OF_TURN if text in added and (text in self._source or "end" in text)
        }
        if tokenizer.eos_token_id is not None:
            ends.add(tokenizer.eos_token_id)
        self.end_ids = frozenset(ends)
        """Tokens that end the assistant's turn."""
        # Added tokens that the tokenizer does not call special, like <tool_call>, are control tokens too,
        # whether or not the template happens to write them.
        controls = {text: index for text, index in added.items() if not text.isspace()}
        tokenizer.chat_control_tokens = list(controls)
        self.control_ids = frozenset(controls.values())
        """Tokens that no text of an answer may contain."""
        self.stop_texts = ("\n\nUser:", "\n\nSystem:") if own is None else ()
        """Texts that end a turn where the family has no token for it."""

    def prompt(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> list[int]:
        """Return the tokens of a conversation, up to where the assistant's answer begins.

        Raises:
            ValueError: If there is no message, or a JSON key holds a control token.
            ModelError: If the family's template refuses the conversation.
        """
        if not messages:
            raise ValueError("a conversation needs at least one message")
        turns = written(messages, tools, self.family)
        described = [description(tool) for tool in tools] if tools and self.describes_tools else None
        self._refuse_control_keys([turns, described])
        with self._lock:
            try:
                ids = self._tokenizer.apply_chat_template(
                    turns,
                    tools=described,
                    chat_template=self._source,
                    add_generation_prompt=True,
                    sanitize_control_tokens=True,
                    return_dict=False,
                    **self.family.options,
                )
            except jinja2.TemplateError as error:
                raise ModelError(f"the model's chat template refuses this conversation: {error}") from error
        return [int(index) for index in ids]

    def plain(self, text: str) -> list[int]:
        """Return the canonical tokens of a text that continues an answer, none of them a control token."""
        with self._lock:
            ids = self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
            # Tokens that the tokenizer does not call special, like <tool_call>, survive the flag above.
            if not self.control_ids.isdisjoint(ids):
                names = self._tokenizer.convert_ids_to_tokens(sorted(self.control_ids))
                pattern = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
                ids = []
                for piece in re.split(f"({pattern})", text):
                    if piece in names:
                        # One character alone never makes a control token of several.
                        ids += [i for part in (piece[:1], piece[1:]) for i in self._encode(part)]
                    elif piece:
                        ids += self._encode(piece)
        return [int(index) for index in ids]

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        return ids

    def _try(self, turns: Sequence[Turn], options: Mapping[str, Any]) -> str | None:
        try:
            text: str = self._tokenizer.apply_chat_template(
                list(turns), chat_template=self._source, tokenize=False, **options
            )
        except (jinja2.TemplateError, TypeError, ValueError):
            return None
        return text

    def _refuse_control_keys(self, value: Any) -> None:
        """Refuse keys that hold a control token: the template writes keys as they are."""
        if isinstance(value, Mapping):
            for key, item in value.items():
                if "<" in key and not self.control_ids.isdisjoint(self._tokenizer.encode(key)):
                    raise ValueError(f"JSON key {key!r} holds a control token of the model; rename the key")
                self._refuse_control_keys(item)
        elif isinstance(value, list | tuple):
            for item in value:
                self._refuse_control_keys(item)


def _template(tokenizer: Any) -> str | None:
    """Return a tokenizer's template; of several, the one for conversations with tools."""
    found = tokenizer.chat_template
    if isinstance(found, Mapping):
        found = found.get("tool_use") or found.get("default")
    return found or None
