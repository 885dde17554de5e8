"""The adapter that comes with a model is used where nothing else is said, and where it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from watchkeeper import Settings
from watchkeeper.agents import AgentRole
from watchkeeper.models.adapter_store import installed_adapters, remove_adapter
from watchkeeper.models.catalog import DEFAULT_MODEL, find_model
from watchkeeper.models.errors import AdapterError
from watchkeeper.models.lazy import LazyEngine
from watchkeeper.models.scripted import ScriptedEngine
from watchkeeper.models.shipped_adapters import DEFAULT_ADAPTER, shipped_adapters
from watchkeeper.runtime.orchestrator import team_of
from watchkeeper.runtime.settings import load_settings


def settings(tmp_path: Path, **values: str) -> Settings:
    return load_settings(home=tmp_path, **values)


def test_the_default_model_brings_one_that_was_judged_better() -> None:
    folder = shipped_adapters(DEFAULT_MODEL)[DEFAULT_ADAPTER]
    verdict = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    assert verdict["earned"] is True
    assert verdict["plan"]["model"] == DEFAULT_MODEL
    assert verdict["choices"]["low"] > 0
    assert verdict["choices"]["cases"] >= 200
    assert "## Limits" in (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("given", "adapters"),
    [
        ({}, (DEFAULT_ADAPTER,)),
        ({"adapter": ""}, ()),
        ({"adapter": "site"}, ("site",)),
        ({"model": "smollm2-135m-instruct"}, ()),
        ({"model": "http://127.0.0.1:1/v1#m"}, ()),
        ({"model": "/models/mine"}, ()),
        ({"model": ".."}, ()),
    ],
)
def test_it_is_used_where_none_is_named(
    tmp_path: Path, given: dict[str, str], adapters: tuple[str, ...]
) -> None:
    assert settings(tmp_path, **given).adapters == adapters


def test_only_an_engine_that_has_it_is_asked_with_it(tmp_path: Path) -> None:
    with_it = LazyEngine(ScriptedEngine, adapters=(DEFAULT_ADAPTER,))
    for engine, given, used in (
        (with_it, {}, DEFAULT_ADAPTER),
        (with_it, {"adapter": ""}, None),
        (with_it, {"adapter": "site"}, "site"),
        (ScriptedEngine(), {}, None),
    ):
        team = team_of(engine, (), settings(tmp_path, **given))
        assert team.agents[AgentRole.DIAGNOSTICIAN].adapter == used
        assert team.agents[AgentRole.INVESTIGATOR].adapter is None


def test_it_can_be_neither_replaced_nor_removed(tmp_path: Path) -> None:
    entry = find_model(DEFAULT_MODEL)
    assert DEFAULT_ADAPTER in installed_adapters(entry, tmp_path)
    with pytest.raises(AdapterError, match="comes with Watchkeeper"):
        remove_adapter(entry, DEFAULT_ADAPTER, tmp_path)
    assert DEFAULT_ADAPTER in installed_adapters(entry, tmp_path)
