"""Tokenizers and templates of several model families: the turn formats that their publishers document."""

from __future__ import annotations

from transformers import PreTrainedTokenizerFast

from tests import tiny

_HERMES_TOOLS = """\
{%- if tools %}
<|im_start|>system
{% if messages[0].role == 'system' %}{{ messages[0].content }}

{% endif %}# Tools

<tools>
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}</tools>

For each call return <tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call><|im_end|>
{% elif messages[0].role == 'system' %}
<|im_start|>system
{{ messages[0].content }}<|im_end|>
{% endif -%}
"""
_HERMES_TURNS = """\
{%- for message in messages %}
{%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- elif message.role == 'assistant' %}
{{- '<|im_start|>assistant\\n' + message.content }}
{%- for call in message.tool_calls or [] %}
{{- ('\\n' if message.content or not loop.first else '') + '<tool_call>\\n{"name": "' + call.function.name }}
{{- '", "arguments": ' }}{{ call.function.arguments | tojson }}{{ '}\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- elif message.role == 'tool' %}
{{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
"""
QWEN = (
    _HERMES_TOOLS
    + _HERMES_TURNS
    + "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}"
)
QWEN_THINKING = QWEN + (
    "{%- if add_generation_prompt and enable_thinking is defined and not enable_thinking %}"
    "{{- '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
)
LLAMA = """\
{{- bos_token }}
{%- if tools_in_user_message is not defined %}{% set tools_in_user_message = true %}{% endif %}
{%- set first = messages[0].role == 'system' %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' }}
{%- if tools is not none and tools is defined %}{{- 'Environment: ipython\\n' }}{% endif %}
{%- if tools and not tools_in_user_message %}
{{- 'Respond in the format {"name": function name, "parameters": dictionary of arguments}.\\n' }}
{%- for tool in tools %}{{- tool | tojson }}{{ '\\n' }}{% endfor %}
{%- endif %}
{{- messages[0].content if first else '' }}{{ '<|eot_id|>' }}
{%- if tools and tools_in_user_message %}{{ raise_exception('tools in the user turn') }}{% endif %}
{%- for message in messages %}
{%- if message.role == 'system' and loop.first %}
{%- elif message.role == 'tool' or message.role == 'ipython' %}
{{- '<|start_header_id|>ipython<|end_header_id|>\\n\\n' + (message.content | tojson) + '<|eot_id|>' }}
{%- elif 'tool_calls' in message %}
{%- if message.tool_calls | length != 1 %}{{ raise_exception('one tool call a turn') }}{% endif %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n{"name": "' + message.tool_calls[0].function.name }}
{{- '", "parameters": ' }}{{ message.tool_calls[0].function.arguments | tojson }}{{ '}<|eot_id|>' }}
{%- else %}
{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content + '<|eot_id|>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}
"""
_GEMMA_TURNS = """\
{%- for message in turns %}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}
{{- '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '\\n' }}
{{- prefix if loop.first else '' }}{{ message.content | trim }}{{ '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<start_of_turn>model\\n' }}{% endif %}
"""
GEMMA_STRICT = (
    """\
{{- bos_token }}
{%- if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- set prefix, turns = '', messages %}
"""
    + _GEMMA_TURNS
)
GEMMA = (
    """\
{{- bos_token }}
{%- if messages[0].role == 'system' %}{% set prefix, turns = messages[0].content + '\\n\\n', messages[1:] %}
{%- else %}{% set prefix, turns = '', messages %}{% endif %}
"""
    + _GEMMA_TURNS
)
SMOLLM = (
    "{% for message in messages %}"
    "{% if loop.first and messages[0].role != 'system' %}"
    "<|im_start|>system\nYou are SmolLM.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
UNKNOWN = (
    "{% for message in messages %}[{{ message.role | upper }}]{{ message.content }}[/]{% endfor %}"
    "{% if add_generation_prompt %}[ASSISTANT]{% endif %}"
)


def qwen(template: str = QWEN) -> PreTrainedTokenizerFast:
    """Qwen2.5 and, with its template, Qwen3."""
    made = tiny.tokenizer(template)
    if template == QWEN_THINKING:
        made.add_tokens(["<think>", "</think>"])
    return made


def llama() -> PreTrainedTokenizerFast:
    """Llama 3.1 and later."""
    marks = ["<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|python_tag|>"]
    return _made(LLAMA, "<|eot_id|>", marks, "<|begin_of_text|>")


def gemma(template: str = GEMMA) -> PreTrainedTokenizerFast:
    """Gemma 3, and with the strict template the one before it."""
    return _made(template, "<eos>", ["<start_of_turn>", "<end_of_turn>"], "<bos>")


def smollm() -> PreTrainedTokenizerFast:
    """SmolLM2."""
    return tiny.tokenizer(SMOLLM, tags=False)


def unknown() -> PreTrainedTokenizerFast:
    """A family that nobody has heard of."""
    return _made(UNKNOWN, "</s>", ["[/]"], "<s>")


def _made(template: str, end: str, marks: list[str], begin: str) -> PreTrainedTokenizerFast:
    backend = tiny.tokenizer(None, tags=False).backend_tokenizer
    made = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=end, bos_token=begin)
    made.add_special_tokens({"additional_special_tokens": marks})
    made.chat_template = template
    return made
