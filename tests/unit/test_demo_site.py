"""What a demo site is on paper: drawn from a seed, telling nothing of what will happen to it."""

from __future__ import annotations

import ast
import configparser
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from watchkeeper.demo import breakage, vocabulary, webapp, worker
from watchkeeper.demo.construction import profiles, supervisor_text
from watchkeeper.demo.site import ConfigFile, Site, draw
from watchkeeper.tools.findings import Severity
from watchkeeper.tools.inventory import Inventory

BASE = Path("/srv/x")
SEEDS = range(60)
TELLING = re.compile(
    r"\b(killed|disk[-_ ]?full|bad[-_ ]?config|stale|injection|scenario|fault|demo|seed)\b", re.IGNORECASE
)


def site(seed: int) -> Site:
    return Site.drawn(seed, BASE, 20123)


def read(config: ConfigFile, text: str, folder: Path) -> webapp.Settings:
    path = folder / config.path.name
    path.write_text(text)
    return webapp.read_settings(path, config.style, {role: list(key) for role, key in config.keys.items()})


def test_the_same_seed_draws_the_same_site() -> None:
    assert site(11) == site(11)
    assert site(11).alert_fields() == site(11).alert_fields()


@pytest.mark.parametrize("aspect", ["web", "worker", "host", "data", "log_format", "trace", "web_config"])
def test_names_and_wording_vary_with_the_seed(aspect: str) -> None:
    assert len({str(getattr(site(seed), aspect)) for seed in SEEDS}) >= 5


def test_pools_of_names_are_large_and_hold_no_name_twice() -> None:
    for pool in (vocabulary.WEB_NAMES, vocabulary.WORKER_NAMES, vocabulary.HOST_NAMES):
        assert len(pool) >= 30
        assert len(set(pool)) == len(pool)
    assert not set(vocabulary.WEB_NAMES) & set(vocabulary.WORKER_NAMES)


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_that_agents_are_told_gives_the_seed_or_a_scenario_away(seed: int) -> None:
    drawn = Site.drawn(seed + 918_273_000, BASE, 20123)
    told = json.dumps(
        [
            drawn.inventory().model_dump(mode="json"),
            drawn.alert_fields(),
            drawn.web_config.text(),
            drawn.worker_config.text(),
            profiles(drawn, Path("/srv/y")),
            supervisor_text(drawn, Path("/srv/y")),
        ],
        default=str,
    )
    assert str(drawn.seed) not in told
    assert not TELLING.search(told)


def test_no_word_of_the_pools_gives_a_scenario_away() -> None:
    for name, pool in vars(vocabulary).items():
        if name.isupper():
            assert not TELLING.search(str(pool)), name


@pytest.mark.parametrize("seed", SEEDS)
def test_the_inventory_and_the_alert_are_valid_and_agree(seed: int) -> None:
    drawn = site(seed)
    inventory = Inventory.model_validate_json(drawn.inventory().model_dump_json())
    fields = drawn.alert_fields()
    service = inventory.host(str(fields["host"])).service(str(fields["service"]))
    assert fields["condition"] == {"kind": "http", "url": service.checks[0].url, "expect": 200}
    assert Severity(str(fields["severity"]))
    assert service.depends_on == (drawn.worker,)


@pytest.mark.parametrize("seed", SEEDS)
def test_good_and_harmlessly_edited_configurations_are_accepted(seed: int, tmp_path: Path) -> None:
    drawn = site(seed)
    edited = drawn.benign_edit("web")
    assert read(drawn.web_config, drawn.web_config.text(), tmp_path).data == drawn.data
    assert read(edited, edited.text(), tmp_path).data == drawn.data
    assert edited.text() != drawn.web_config.text()
    assert drawn.benign_edit("worker").text() != drawn.worker_config.text()


@pytest.mark.parametrize("seed", range(200))
def test_a_broken_configuration_is_refused_or_points_to_nothing(seed: int, tmp_path: Path) -> None:
    config = site(seed).web_config
    text = breakage.break_config(config, draw(seed, "breakage"))
    assert text != config.text()
    try:
        settings = read(config, text, tmp_path)
    except webapp.SettingError:
        return
    good = read(config, config.text(), tmp_path)
    assert (settings.data, settings.reference) != (good.data, good.reference)
    assert settings.port == good.port


def test_breakages_both_keep_a_program_from_starting_and_fail_it_later(tmp_path: Path) -> None:
    ends = set()
    for seed in range(60):
        config = site(seed).web_config
        try:
            read(config, breakage.break_config(config, draw(seed, "breakage")), tmp_path)
            ends.add("later")
        except webapp.SettingError as error:
            ends.add(
                "parsed" if "parsed" in str(error) else "missing" if "missing" in str(error) else "value"
            )
    assert ends == {"later", "parsed", "missing", "value"}


def test_both_formats_are_drawn_and_can_be_read_by_the_standard_library() -> None:
    styles = set()
    for seed in SEEDS:
        config = site(seed).web_config
        styles.add(config.style)
        if config.style == "json":
            json.loads(config.text())
        else:
            configparser.ConfigParser(interpolation=None).read_string(config.text())
    assert styles == {"json", "ini"}


@pytest.mark.parametrize("program", [webapp, worker])
def test_programs_of_the_site_import_nothing_but_the_standard_library(program: ModuleType) -> None:
    tree = ast.parse(Path(str(program.__file__)).read_text())
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [str(node.module)]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported <= sys.stdlib_module_names


def test_legitimate_data_leaves_room_to_work_in() -> None:
    for seed in range(300):
        noise = site(seed).noise
        assert 0.6 <= noise.used <= 0.9
        assert noise.volume * (1 - noise.used) > 2 << 20
