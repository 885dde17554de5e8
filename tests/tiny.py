"""A real transformer small enough for unit tests: two layers, random weights, one token a byte."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from watchkeeper.models.int8_model import load_int8
from watchkeeper.models.interface import ModelIdentity

IDENTITY = ModelIdentity("tiny", "none", "0" * 64)
CONTROLS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>")
PLAIN = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HERMES = (
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}"
    "Call as <tool_call>...</tool_call>.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "{% for call in message.tool_calls or [] %}\n<tool_call>\n"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}'
    "\n</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer(template: str | None = HERMES, *, tags: bool = True) -> PreTrainedTokenizerFast:
    """A tokenizer whose vocabulary is the 256 bytes and a few control tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    if tags:
        made.add_tokens(["<tool_call>", "</tool_call>"])
    made.chat_template = template
    return made


@dataclass(frozen=True)
class Hosted:
    model: Any
    tokenizer: Any
    identity: ModelIdentity


def hosted(template: str | None = HERMES, *, sliding_window: int | None = None, tags: bool = True) -> Hosted:
    """A model with random weights: what it says means nothing, how it says it is real."""
    torch.manual_seed(0)
    made = tokenizer(template, tags=tags)
    sizes: dict[str, Any] = {
        "vocab_size": len(made),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        # Larger than usual, so that the random logits differ clearly.
        "initializer_range": 0.5,
    }
    if sliding_window is None:
        return Hosted(LlamaForCausalLM(LlamaConfig(**sizes)), made, IDENTITY)
    config = Qwen2Config(**sizes, use_sliding_window=True, sliding_window=sliding_window, max_window_layers=0)
    return Hosted(Qwen2ForCausalLM(config), made, IDENTITY)


def in_int8(hosted: Hosted, folder: Path) -> Hosted:
    """The same model with int8 weights, as it is loaded from a folder."""
    hosted.model.save_pretrained(folder)
    return Hosted(load_int8(folder, None), hosted.tokenizer, hosted.identity)
