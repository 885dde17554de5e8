"""From a conversation to the tokens of a prompt, per model family.

Whatever a message, a schema or a tool result contains, only the chat template itself opens and closes turns
and calls: control tokens in contents are encoded as plain text.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from watchkeeper.models.errors import ModelError
from watchkeeper.models.grammar import CallTags
from watchkeeper.models.interface import Message, Role, ToolCall, ToolSpec

GENERIC_TEMPLATE = (
    "{% for message in messages %}"
    "{{ message['role'] | capitalize }}: {{ message['content'] }}\n\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""For tokenizers that bring no template. It has no control tokens, so contents can imitate its turns:
base models are good for scoring and forced answers, not for untrusted text."""

_TOOLS_INTRODUCTION = (
    "# Tools\n\n"
    "You may call one function to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n"
)
_TOOLS_CLOSE = (
    "\n</tools>\n\n"
    "For a function call, return a json object with function name and arguments within "
    "<tool_call></tool_call> XML tags:\n<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
)
_END_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>", "<|endoftext|>")


class ChatFormat:
    """How one model family writes conversations.

    Args:
        tokenizer: A fast tokenizer of transformers.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._template: str | None = tokenizer.chat_template or None
        added = {token.content: index for index, token in tokenizer.added_tokens_decoder.items()}
        source = self._template or GENERIC_TEMPLATE
        tags = CallTags()
        if tags.opening in added and tags.closing in added:
            tags = CallTags(opening_id=added[tags.opening], closing_id=added[tags.closing])
        self.tags = tags
        self.describes_tools = tags.opening in source and bool(re.search(r"\btools\b", source))
        """Whether the template itself writes tools and calls (the Hermes format)."""
        ends = {added[text] for text in _END_OF_TURN if text in added and (text in source or "end" in text)}
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
        self.stop_texts = ("\n\nUser:", "\n\nSystem:") if self._template is None else ()
        """Texts that end a turn where the family has no token for it."""

    def prompt(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> list[int]:
        """Return the tokens of a conversation, up to where the assistant's answer begins.

        Raises:
            ValueError: If there is no message, or a JSON key holds a control token.
            ModelError: If the family's template refuses the conversation.
        """
        if not messages:
            raise ValueError("a conversation needs at least one message")
        turns = self._turns(messages, tools)
        described = [_described(tool) for tool in tools] if tools and self.describes_tools else None
        self._refuse_control_keys([turns, described])
        with self._lock:
            try:
                ids = self._tokenizer.apply_chat_template(
                    turns,
                    tools=described,
                    chat_template=None if self._template else GENERIC_TEMPLATE,
                    add_generation_prompt=True,
                    sanitize_control_tokens=True,
                    return_dict=False,
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

    def _turns(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> list[dict[str, Any]]:
        if self.describes_tools:
            return [_native_turn(message) for message in messages]
        turns = [_written_turn(message) for message in messages]
        if tools:
            lines = "\n".join(json.dumps(_described(tool), ensure_ascii=False) for tool in tools)
            section = _TOOLS_INTRODUCTION + lines + _TOOLS_CLOSE
            if messages[0].role is Role.SYSTEM:
                turns[0]["content"] += "\n\n" + section
            else:
                turns.insert(0, {"role": "system", "content": section})
        return turns

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


def call_text(call: ToolCall) -> str:
    """Write a call as the JSON that a model would have generated."""
    return json.dumps({"name": call.name, "arguments": dict(call.arguments)}, ensure_ascii=False)


def _described(tool: ToolSpec) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


def _native_turn(message: Message) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role.value, "content": message.content}
    if message.tool_calls:
        turn["tool_calls"] = [
            {"type": "function", "function": {"name": call.name, "arguments": dict(call.arguments)}}
            for call in message.tool_calls
        ]
    return turn


def _written_turn(message: Message) -> dict[str, Any]:
    content = message.content
    if message.role is Role.TOOL:
        return {"role": "user", "content": f"<tool_response>\n{content}\n</tool_response>"}
    for call in message.tool_calls:
        content += ("\n" if content else "") + f"<tool_call>\n{call_text(call)}\n</tool_call>"
    return {"role": message.role.value, "content": content}
