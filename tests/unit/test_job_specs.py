"""What a training job is to do is read from YAML and options, and refused in clear words."""

from __future__ import annotations

from pathlib import Path

import pytest

from watchkeeper.tools.errors import JobSpecError, MissingExtraError, UnknownTrainerError
from watchkeeper.tools.training import trainer_of
from watchkeeper.tools.training.agent_tuning import AgentTuning
from watchkeeper.tools.training.checking import check_spec
from watchkeeper.tools.training.spec import JobSpec, parse_parameters, parse_size

GOOD = "name: nightly\ntrainer: shop.trainers:Price\ndata: prices.csv\nlimits: {memory: 2 GB, threads: 2}\n"


def test_a_job_is_read_from_a_file_and_its_paths_are_relative_to_it(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(GOOD)
    spec = JobSpec.load(path)
    assert spec.data == tmp_path / "prices.csv"
    assert spec.limits.memory == 2 * 10**9
    assert (spec.retries, spec.launcher, spec.runs_on) == (2, "accelerate", "here")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD.replace("name: nightly\n", ""), "name: missing"),
        (GOOD + "sead: 3\n", "line 5: sead: unknown key"),
        (GOOD.replace("2 GB", "much"), "limits.memory: a size is expected"),
        (GOOD.replace("2 GB", "1 kB"), "limits.memory"),
        (GOOD.replace("threads: 2", "threads: 0"), "limits.threads"),
        (GOOD.replace("shop.trainers:Price", "'rm -rf /'"), "line 2: trainer"),
        (GOOD.replace("nightly", "'../up'"), "line 1: name"),
        (GOOD + "retries: 100\n", "line 5: retries"),
        ("- a\n", "keys with values are expected"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    with pytest.raises(JobSpecError, match="job ") as error:
        JobSpec.load(path)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(JobSpecError, match=r"none\.yaml"):
        JobSpec.load(tmp_path / "none.yaml")


def test_options_beat_the_file(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(GOOD)
    spec = JobSpec.of_options(
        {"seed": 7, "limits.memory": "64 MiB", "limits.seconds": None, "data": tmp_path / "b"},
        JobSpec.load(path),
    )
    assert (spec.seed, spec.limits.memory, spec.limits.threads, spec.data) == (
        7,
        64 * 2**20,
        2,
        tmp_path / "b",
    )


def test_options_alone_make_a_job() -> None:
    spec = JobSpec.of_options({"trainer": "shop.trainers:Price", "data": Path("prices.csv")})
    assert spec.name == "Price"
    assert spec.data == Path("prices.csv").absolute()


def test_a_wrong_option_is_named_with_its_value() -> None:
    with pytest.raises(JobSpecError, match=r"limits\.seconds.*-3"):
        JobSpec.of_options({"trainer": "x", "data": Path("d"), "limits.seconds": -3})
    with pytest.raises(JobSpecError, match="data"):
        JobSpec.of_options({"trainer": "x"})


def test_parameters_are_yaml_values() -> None:
    assert parse_parameters(["epochs=20", "names=[a, b]", "text=a=b", "on=true"]) == {
        "epochs": 20,
        "names": ["a", "b"],
        "text": "a=b",
        "on": True,
    }
    for wrong in ("epochs", "=3", "x=[1"):
        with pytest.raises(JobSpecError, match="parameter"):
            parse_parameters([wrong])


@pytest.mark.parametrize(
    ("text", "size"), [("2 GB", 2 * 10**9), ("1.5kB", 1500), ("3 MiB", 3 * 2**20), ("7", 7), (9, 9)]
)
def test_sizes_are_read(text: object, size: int) -> None:
    assert parse_size(text) == size


def test_a_trainer_of_ones_own_is_found_by_its_place() -> None:
    assert trainer_of("tests.trainers:Line").name == "line"


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("no.such.module:Line", "not found; install it"),
        ("tests.trainers:Nothing", "Nothing"),
        ("tests.trainers:LineParameters", "no subclass"),
        ("nothing", "there is no trainer"),
    ],
)
def test_what_is_no_trainer_is_refused(place: str, said: str) -> None:
    with pytest.raises(UnknownTrainerError, match=said):
        trainer_of(place)


def test_a_trainer_whose_extra_is_missing_here_is_refused_before_its_job_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = JobSpec(name="site", trainer="agent-tuning", data=tmp_path)
    check_spec(spec)
    monkeypatch.setattr(AgentTuning, "extra", ("odd", "oddities"))
    with pytest.raises(MissingExtraError, match=r"job 'site': .*pip install 'watchkeeper\[odd\]'"):
        check_spec(spec)
    check_spec(spec, elsewhere=True)  # another machine's worker may have it
    check_spec(spec.model_copy(update={"runs_on": "ray"}))  # a cluster has an environment of its own
    check_spec(spec.model_copy(update={"trainer": "metric-anomaly"}))
