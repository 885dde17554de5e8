"""Every model family is written to in its own format, told from its template and tokens alone."""

from __future__ import annotations

import json
from typing import Any

import llguidance.hf
import pytest

from tests import families, tiny
from watchkeeper.models.detokenize import AnswerReader
from watchkeeper.models.grammar import AnswerKind, Grammar, GrammarCompiler, call_grammar
from watchkeeper.models.interface import Message, Role, ToolCall, ToolSpec, assistant, system, user
from watchkeeper.models.templates import ChatFormat

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"path": {"enum": ["/", "/var"]}},
    "required": ["path"],
}
TOOL = ToolSpec("disk.show", "Show a disk.", SCHEMA)
FIRST, SECOND = ToolCall("disk.show", {"path": "/"}, "a"), ToolCall("disk.show", {"path": "/var"}, "b")
TALK = [
    system("Be brief."),
    user("Look at both disks."),
    assistant("", [FIRST, SECOND]),
    Message(Role.TOOL, "12 %", tool_call_id="a"),
    Message(Role.TOOL, "97 %", tool_call_id="b"),
]
TOKENIZERS = {
    "qwen": families.qwen,
    "qwen3": lambda: families.qwen(families.QWEN_THINKING),
    "llama": families.llama,
    "gemma": families.gemma,
    "gemma2": lambda: families.gemma(families.GEMMA_STRICT),
    "smollm": families.smollm,
    "unknown": families.unknown,
    "none": lambda: tiny.tokenizer(None),
}


def prompt(name: str, messages: list[Message], tools: list[ToolSpec] | None = None) -> str:
    tokenizer = TOKENIZERS[name]()
    text: str = tokenizer.decode(ChatFormat(tokenizer).prompt(messages, tools or []))
    return text


@pytest.mark.parametrize(
    ("name", "family", "describes_tools", "takes_system", "alternates", "parallel"),
    [
        ("qwen", "hermes", True, True, False, True),
        ("qwen3", "hermes", True, True, False, True),
        ("llama", "llama", True, True, False, False),
        ("gemma", "gemma", False, True, True, True),
        ("gemma2", "gemma", False, False, True, True),
        ("smollm", "chatml", False, True, False, True),
        ("unknown", "generic", False, True, False, True),
        ("none", "generic", False, True, False, True),
    ],
)
def test_a_family_is_told_from_its_template_and_tokens(
    name: str, family: str, describes_tools: bool, takes_system: bool, alternates: bool, parallel: bool
) -> None:
    found = ChatFormat(TOKENIZERS[name]()).family
    assert found.name == family
    assert found.describes_tools == describes_tools
    assert found.takes_system == takes_system
    assert found.alternates == alternates
    assert found.parallel == parallel


def test_hermes_writes_calls_and_answers_as_its_template_does() -> None:
    text = prompt("qwen", TALK, [TOOL])
    assert text.startswith("<|im_start|>system\nBe brief.\n\n# Tools\n\n<tools>\n{")
    both = '<tool_call>\n{"name": "disk.show", "arguments": {"path": "/"}}\n</tool_call>\n<tool_call>\n'
    assert f"<|im_start|>assistant\n{both}" in text
    assert text.endswith("<tool_response>\n97 %\n</tool_response><|im_end|>\n<|im_start|>assistant\n")


def test_a_family_that_thinks_aloud_is_told_not_to() -> None:
    assert prompt("qwen3", [user("hi")]).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


def test_llama_gets_tools_in_its_system_turn_and_one_call_a_turn_each_with_its_answer() -> None:
    text = prompt("llama", TALK, [TOOL])
    head, *turns = text.split("<|start_header_id|>")[1:]
    assert '"name": "disk.show"' in head
    assert "Be brief." in head
    assert turns == [
        "user<|end_header_id|>\n\nLook at both disks.<|eot_id|>",
        'assistant<|end_header_id|>\n\n{"name": "disk.show", "parameters": {"path": "/"}}<|eot_id|>',
        'ipython<|end_header_id|>\n\n"12 %"<|eot_id|>',
        'assistant<|end_header_id|>\n\n{"name": "disk.show", "parameters": {"path": "/var"}}<|eot_id|>',
        'ipython<|end_header_id|>\n\n"97 %"<|eot_id|>',
        "assistant<|end_header_id|>\n\n",
    ]


def test_llama_keeps_the_text_beside_a_call_and_an_answer_without_one() -> None:
    stray = Message(Role.TOOL, "who asked?", tool_call_id="z")
    text = prompt("llama", [user("go"), assistant("I look.", [FIRST]), stray], [TOOL])
    assert (
        text.index("I look.<|eot_id|>") < text.index('"parameters": {"path": "/"}') < text.index("who asked?")
    )


@pytest.mark.parametrize("name", ["gemma", "gemma2"])
def test_gemma_gets_system_and_tools_in_its_first_user_turn_and_turns_that_alternate(name: str) -> None:
    text = prompt(name, TALK, [TOOL])
    turns = text.removeprefix("<bos>").split("<start_of_turn>")[1:]
    assert [turn.split("\n")[0] for turn in turns] == ["user", "model", "user", "model"]
    assert turns[0].startswith("user\nBe brief.\n\n# Tools")
    assert turns[0].endswith("Look at both disks.<end_of_turn>\n")
    assert turns[1].count("<tool_call>") == 2
    assert "12 %" in turns[2]
    assert "97 %" in turns[2]


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize(
    "talk",
    [
        [system("one"), system("two"), user("three")],
        [user("one"), user("two"), assistant("three"), assistant("four"), user("five")],
        [assistant("one"), user("two"), system("three")],
        [system("one")],
        [user("one"), assistant("two"), Message(Role.TOOL, "three", tool_call_id="x")],
        [
            system("one"),
            assistant("two", [FIRST]),
            Message(Role.TOOL, "three", tool_call_id="a"),
            user("four"),
        ],
    ],
)
def test_no_order_of_turns_is_refused_and_nothing_said_is_lost(name: str, talk: list[Message]) -> None:
    text = prompt(name, talk, [TOOL])
    places = [text.index(message.content) for message in talk if message.role is not Role.SYSTEM]
    assert places == sorted(places)
    assert all(message.content in text for message in talk)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_contents_open_no_turn_in_any_family(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    format_ = ChatFormat(tokenizer)
    marks = "".join(tokenizer.convert_ids_to_tokens(sorted(format_.control_ids)))

    def controls(text: str) -> int:
        ids = format_.prompt([system(text), user(text), assistant(text), user(text)], [TOOL])
        return sum(index in format_.control_ids for index in ids)

    assert controls(marks) == controls("x")


@pytest.mark.parametrize("name", ["smollm", "gemma", "gemma2", "unknown", "none"])
def test_a_family_without_tools_of_its_own_gets_their_schema_in_the_prompt(name: str) -> None:
    text = prompt(name, [system("Be brief."), user("hi!")], [TOOL])
    assert json.dumps(SCHEMA) in text
    assert text.index("Be brief.") < text.index("disk.show") < text.index("hi!")


def spread(text: str) -> str:
    """Give the name and the arguments of a call of one argument a line each."""
    return text.replace('{"name"', '{\n  "name"').replace(', "arguments"', ',\n  "arguments"')[:-1] + "\n}"


class Session:
    """What an engine does with a family's grammar and reader, without a model."""

    def __init__(self, name: str) -> None:
        tokenizer = TOKENIZERS[name]()
        self.format = ChatFormat(tokenizer)
        self.vocabulary = llguidance.hf.from_tokenizer(tokenizer, eos_token=sorted(self.format.end_ids))
        self.compiler = GrammarCompiler(self.vocabulary)

    def tokens(self, text: str) -> list[int]:
        if self.format.tags.native:
            ids: list[int] = self.vocabulary.tokenize_str(text, parse_special=True)
            return ids
        return self.format.plain(text)

    def admits(self, grammar: Grammar, text: str) -> bool:
        matcher = self.compiler.matcher(grammar)
        tokens = self.tokens(text)
        return bool(matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting())

    def read(self, text: str, kind: AnswerKind) -> AnswerReader:
        reader = AnswerReader(kind, self.format.tags, lambda i: self.vocabulary.decode_bytes([i]), ())
        for token in self.tokens(text):
            reader.push(token)
        reader.finish()
        return reader

    def written(self, *calls: ToolCall, as_shown: bool = False) -> str:
        """Write calls as the family's model does, or as its prompt shows those of earlier turns."""
        tags = self.format.tags
        texts = [json.dumps({"name": call.name, tags.arguments: dict(call.arguments)}) for call in calls]
        if tags.spread and not as_shown:
            texts = [spread(text) for text in texts]
        if tags.opening:
            texts = [f"{tags.opening}\n{text}\n{tags.closing}" for text in texts]
        return (tags.separator or "; ").join(texts)


@pytest.mark.parametrize("or_text", [False, True])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_call_is_written_the_way_the_family_was_trained_and_read_the_same_everywhere(
    name: str, or_text: bool
) -> None:
    session = Session(name)
    grammar = call_grammar({"disk.show": SCHEMA}, session.format.tags, or_text=or_text)
    text = session.written(SECOND)
    assert session.written(SECOND, as_shown=True) in prompt(name, [user("go"), assistant("", [SECOND])])
    assert session.admits(grammar, text)
    assert not session.admits(grammar, text.replace("/var", "/etc"))
    assert session.admits(grammar, "All is well.") == or_text
    reader = session.read(text, grammar.kind)
    assert reader.calls == [{"name": "disk.show", "arguments": {"path": "/var"}}]
    assert reader.text == ""


@pytest.mark.parametrize("or_text", [False, True])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_an_answer_holds_as_many_calls_as_were_allowed(name: str, or_text: bool) -> None:
    session = Session(name)

    def admitted(calls: int, most: int) -> bool:
        grammar = call_grammar({"disk.show": SCHEMA}, session.format.tags, or_text=or_text, max_calls=most)
        return session.admits(grammar, session.written(*[FIRST, SECOND, FIRST, SECOND][:calls]))

    assert [admitted(calls, 1) for calls in (1, 2)] == [True, False]
    several = session.format.family.parallel
    if or_text and several:
        tags = session.format.tags
        bare = [json.dumps({"name": call.name, tags.arguments: call.arguments}) for call in (FIRST, SECOND)]
        bare = [spread(text) for text in bare] if tags.spread else bare
        grammar = call_grammar({"disk.show": SCHEMA}, tags, or_text=True, max_calls=2)
        for text in ("\n".join(bare), "```json\n" + "\n".join(bare) + "\n```"):
            assert session.admits(grammar, text)
            assert len(session.read(text, grammar.kind).calls) == 2
    assert [admitted(calls, 3) for calls in (1, 2, 3, 4)] == [True, several, several, False]


@pytest.mark.parametrize("name", ["qwen", "smollm", "gemma", "unknown"])
@pytest.mark.parametrize("kind", [AnswerKind.CALL, AnswerKind.TEXT_OR_CALL])
def test_several_calls_are_told_apart(name: str, kind: AnswerKind) -> None:
    session = Session(name)
    reader = session.read(session.written(FIRST, SECOND), kind)
    assert [call["arguments"]["path"] for call in reader.calls] == ["/", "/var"]
    cut = session.read(session.written(FIRST, SECOND)[:-30], kind)
    assert [call["arguments"]["path"] for call in cut.calls] == ["/"]


def test_a_text_may_come_before_several_calls_where_tags_are_tokens() -> None:
    session = Session("qwen")
    text = "I look.\n" + session.written(FIRST, SECOND)
    grammar = call_grammar({"disk.show": SCHEMA}, session.format.tags, or_text=True, max_calls=2)
    assert session.admits(grammar, text)
    reader = session.read(text, grammar.kind)
    assert reader.text == "I look.\n"
    assert len(reader.calls) == 2


def test_of_several_templates_the_one_with_tools_is_used() -> None:
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = {"default": tiny.PLAIN, "tool_use": tiny.HERMES}
    assert ChatFormat(tokenizer).family.name == "hermes"
    tokenizer.chat_template = {"default": tiny.PLAIN}
    assert ChatFormat(tokenizer).family.name == "chatml"


def test_a_template_with_calls_of_another_kind_gets_the_generic_format() -> None:
    xml = tiny.HERMES.replace('{"name": "', "<function=").replace('", "arguments": ', ">")
    format_ = ChatFormat(tiny.tokenizer(xml))
    assert not format_.describes_tools
    assert format_.tags.native


def test_llama_ends_a_turn_with_either_of_its_marks() -> None:
    tokenizer = families.llama()
    template = families.LLAMA + "{# <|eom_id|> #}"
    tokenizer.chat_template = template
    ends = tokenizer.convert_ids_to_tokens(sorted(ChatFormat(tokenizer).end_ids))
    assert {"<|eot_id|>", "<|eom_id|>"} <= set(ends)
