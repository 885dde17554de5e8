"""Settings come from options, the environment, a file and defaults, in that order."""

from pathlib import Path

import pytest

from watchkeeper.models.home import home_folder
from watchkeeper.runtime.errors import ConfigurationError
from watchkeeper.runtime.settings import Settings, load_settings
from watchkeeper.tools.inventory import Registered


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"WATCHKEEPER_{name.upper()}", raising=False)
    monkeypatch.delenv("WATCHKEEPER_CONFIG", raising=False)
    monkeypatch.setenv("WATCHKEEPER_HOME", str(tmp_path))
    return tmp_path


def test_everything_has_a_default(home: Path) -> None:
    settings = load_settings()
    assert (settings.home, settings.min_confidence, settings.max_actions) == (home, 0.10, 6)
    assert settings.inventory_path == home / "inventory.yaml"
    assert settings.policy_path is None
    assert not settings.solo


def test_what_is_given_beats_the_environment_which_beats_the_file(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "config.yaml").write_text("max_actions: 1\nmax_facts: 2\nmax_tokens: 3\nsolo: true\n")
    monkeypatch.setenv("WATCHKEEPER_MAX_FACTS", "20")
    monkeypatch.setenv("WATCHKEEPER_MAX_TOKENS", "30")
    settings = load_settings(max_tokens=300, model=None)
    assert (settings.max_actions, settings.max_facts, settings.max_tokens, settings.solo) == (
        1,
        20,
        300,
        True,
    )


def test_paths_in_the_file_are_relative_to_it(tmp_path: Path, home: Path) -> None:
    file = tmp_path / "etc" / "wk.yaml"
    file.parent.mkdir()
    file.write_text("inventory: hosts.yaml\npolicy: /srv/policy.yaml\n")
    settings = load_settings(file)
    assert settings.inventory_path == tmp_path / "etc" / "hosts.yaml"
    assert settings.policy_path == Path("/srv/policy.yaml")


def test_a_policy_in_the_home_is_found(home: Path) -> None:
    (home / "policy.yaml").write_text("version: 1\n")
    assert load_settings().policy_path == home / "policy.yaml"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("max_actions: many\n", r"config\.yaml' line 1: max_actions: .*'many'"),
        ("solo: true\nmin_confidence: 1.5\n", r"line 2: min_confidence: .*1\.5"),
        ("max_action: 3\n", "line 1: max_action: unknown key"),
        ("quantization: int3\n", "quantization: .*'int3'"),
        ("max_seconds: .inf\n", "max_seconds: .*inf"),
        ("approval_ttl_seconds: 1.0e+300\n", r"approval_ttl_seconds: .*1e\+300"),
        ("settle_seconds: .nan\n", "settle_seconds: .*nan"),
        ("reading_pause_seconds: 1.0e+300\n", r"reading_pause_seconds: .*1e\+300"),
        ("- a\n", "must hold names and values"),
        ("a: b: c\n", "line 1: not valid YAML"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_line(home: Path, text: str, said: str) -> None:
    (home / "config.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=said) as caught:
        load_settings()
    assert "\n" not in str(caught.value)


def test_a_mistake_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHKEEPER_MAX_FACTS", "several")
    with pytest.raises(ConfigurationError, match=r"variable WATCHKEEPER_MAX_FACTS: .*'several'"):
        load_settings()


def test_a_mistake_in_an_option_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"setting 'max_facts': .*-1"):
        load_settings(max_facts=-1)


def test_a_file_that_was_named_must_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.yaml' cannot be read"):
        load_settings(tmp_path / "none.yaml")
    monkeypatch.setenv("WATCHKEEPER_CONFIG", str(tmp_path / "other.yaml"))
    with pytest.raises(ConfigurationError, match=r"other\.yaml' cannot be read"):
        load_settings()


def test_a_predictor_is_named_by_its_folder_or_in_the_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("log_predictor: predictors/logs\n")
    assert load_settings(path).log_predictor == tmp_path / "predictors" / "logs"
    path.write_text("log_predictor: {registry: logs}\n")
    assert load_settings(path).log_predictor == Registered(registry="logs")
    path.write_text("log_predictor: {registry: Lo gs}\n")
    with pytest.raises(ConfigurationError, match=r"line 1: log_predictor.*should match pattern"):
        load_settings(path)
    path.write_text("log_predictor: {registry: logs, folder: x}\n")
    with pytest.raises(ConfigurationError, match="unknown key"):
        load_settings(path)
    path.unlink()
    for value, found in (('{"registry": "logs"}', Registered(registry="logs")), ("/p/logs", Path("/p/logs"))):
        monkeypatch.setenv("WATCHKEEPER_LOG_PREDICTOR", value)
        assert load_settings().log_predictor == found


def test_a_variable_that_should_hold_a_list_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHKEEPER_TOOLS", "own:tools")
    with pytest.raises(ConfigurationError, match=r"WATCHKEEPER_TOOLS: a list .* as JSON.*got 'own:tools'"):
        load_settings()


def test_an_empty_variable_for_the_home_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHKEEPER_HOME", "")
    assert load_settings().home == home_folder()
    assert load_settings().home != Path()
