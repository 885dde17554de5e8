"""Schemas of arguments: canonical, and narrowed to what the inventory knows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from watchkeeper.models.schemas import fault
from watchkeeper.tools.errors import ArgumentError
from watchkeeper.tools.fact import Arguments, Fact, Raw, Result
from watchkeeper.tools.host import Target
from watchkeeper.tools.inventory import HostSpec, HttpCheck, Service, Supervisord
from watchkeeper.tools.schema import argument_schema, candidate_calls, folders_of, known, vocabulary_of


class QueueArguments(Arguments):
    service: Annotated[str, known("service", description="whose queue")]
    file: Annotated[Path | None, known("log")] = None
    pids: Annotated[tuple[int, ...], known("pid")] = ()
    depth: int = Field(default=3, ge=1, le=9)
    order: Literal["old", "new"] = "old"
    patience: float = Field(default=1.0, json_schema_extra={"internal": True})


class QueueResult(Result):
    length: int


class QueueFact(Fact[QueueArguments, QueueResult]):
    name = "queue.length"
    summary = "how long a queue is"
    arguments_type = QueueArguments
    result_type = QueueResult

    def collect(self, target: Target, arguments: QueueArguments) -> Raw:
        return {"length": len(arguments.service)}

    def interpret(self, raw: Raw, arguments: QueueArguments) -> QueueResult:
        return QueueResult.model_validate(raw)


def spec(**values: Any) -> HostSpec:
    supervisor = Supervisord(kind="supervisord", socket=Path("/run/s.sock"))
    one = Service(
        name="shop-web",
        supervisor=supervisor,
        logs=(Path("/var/log/shop/web.log"),),
        config=(Path("/etc/shop/web.conf"),),
        checks=(HttpCheck(url="http://127.0.0.1:8080/health"),),
    )
    two = Service(
        name="shop-worker",
        supervisor=supervisor,
        logs=(Path("/var/log/shop/worker.log"),),
        data=(Path("/data"),),
    )
    return HostSpec(name="web-1", **{"services": (one, two)} | values)


def test_a_field_of_the_inventory_becomes_an_enum_of_the_values_known_there() -> None:
    schema = argument_schema(QueueFact(), vocabulary_of(spec()))
    assert schema["properties"]["service"] == {
        "type": "string",
        "description": "whose queue",
        "enum": ["shop-web", "shop-worker"],
    }
    assert schema["required"] == ["service"]
    assert fault({"service": "shop-web"}, schema) is None
    assert fault({"service": "sshd"}, schema) is not None


def test_a_field_that_may_be_null_is_one_that_may_be_left_out() -> None:
    schema = argument_schema(QueueFact(), vocabulary_of(spec()))
    assert schema["properties"]["file"]["type"] == "string"
    assert schema["properties"]["file"]["enum"] == ["/var/log/shop/web.log", "/var/log/shop/worker.log"]


def test_an_array_is_narrowed_item_by_item_and_numbers_stay_numbers() -> None:
    schema = argument_schema(QueueFact(), {"pid": ["12", "340"]})
    assert schema["properties"]["pids"] == {"type": "array", "items": {"type": "integer", "enum": [12, 340]}}


def test_the_schema_holds_nothing_but_what_constrains_or_explains() -> None:
    schema = argument_schema(QueueFact())
    assert list(schema["properties"]) == ["service", "file", "pids", "depth", "order"]
    assert schema["properties"]["depth"] == {"type": "integer", "minimum": 1, "maximum": 9}
    assert schema["properties"]["order"] == {"type": "string", "enum": ["old", "new"]}
    assert schema == argument_schema(QueueFact())
    assert "title" not in str(schema)
    assert "vocabulary" not in str(schema)


def test_a_tool_with_nothing_to_choose_for_a_required_field_cannot_be_offered() -> None:
    with pytest.raises(ArgumentError, match=r"queue\.length: service: nothing to choose from"):
        argument_schema(QueueFact(), vocabulary_of(spec(services=())))


def test_an_optional_field_with_nothing_to_choose_is_left_out() -> None:
    schema = argument_schema(QueueFact(), {"service": ["a"], "log": [], "pid": []})
    assert list(schema["properties"]) == ["service", "depth", "order"]


def test_what_only_programs_may_set_cannot_be_said_by_a_model() -> None:
    schema = argument_schema(QueueFact())
    assert fault({"service": "a", "patience": 9.0}, schema) is not None
    assert QueueFact().parse_arguments({"service": "a", "patience": 9.0}).patience == 9.0


def test_a_fact_of_the_inventory_is_called_once_for_each_value() -> None:
    assert candidate_calls(QueueFact(), spec()) == [{"service": "shop-web"}, {"service": "shop-worker"}]
    assert candidate_calls(QueueFact(), spec(services=())) == []


def test_folders_are_data_folders_and_the_folders_of_logs_each_once() -> None:
    assert folders_of(spec()) == ["/var/log/shop", "/data"]


def test_a_vocabulary_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'services' is not one of service,"):
        known("services")  # type: ignore[arg-type]
