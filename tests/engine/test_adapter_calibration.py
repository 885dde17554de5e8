"""An adapter is another model: the calibration of its base does not hold for it, its own does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

from tests import tiny
from watchkeeper.models.calibration import Calibration, Scale, write_calibration
from watchkeeper.models.engine import LocalEngine
from watchkeeper.models.errors import CalibrationError
from watchkeeper.models.interface import ChoiceRequest, user
from watchkeeper.models.options import EngineOptions

# peft's own use of a name that transformers is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")

BASE = Calibration(plain=Scale(temperature=40.0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    place = tmp_path_factory.mktemp("adapter")
    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    get_peft_model(tiny.hosted().model, config).save_pretrained(str(place))
    return place


@pytest.fixture
def engine() -> LocalEngine:
    return LocalEngine(tiny.hosted(), EngineOptions(calibration=BASE))


def asked(adapter: str | None = None) -> ChoiceRequest:
    return ChoiceRequest((user("Which?"),), "It is", ("red", "blue"), adapter=adapter)


def own(engine: LocalEngine, adapter: str) -> Calibration:
    identity = engine.identity
    return Calibration(
        model=identity.id,
        model_digest=identity.digest,
        quantization=identity.quantization,
        adapter=adapter,
        plain=Scale(temperature=2.0),
    )


def test_without_a_calibration_of_its_own_an_adapter_has_none(engine: LocalEngine, folder: Path) -> None:
    engine.load_adapter("tuned", folder)
    base, tuned = engine.choose(asked()), engine.choose(asked("tuned"))
    assert base.calibration == BASE.digest
    assert tuned.calibration == ""
    scores = [option.corrected for option in tuned.options]
    shares = torch.tensor(scores, dtype=torch.float64).softmax(0).tolist()
    assert [option.probability for option in tuned.options] == pytest.approx(shares)
    engine.close()


def test_a_choice_names_the_adapter_that_made_it(engine: LocalEngine, folder: Path) -> None:
    engine.load_adapter("tuned", folder)
    assert engine.choose(asked()).adapter == ""
    assert engine.choose(asked("tuned")).adapter == f"tuned:{engine.adapter_digest('tuned')}"
    engine.close()


def test_a_calibration_of_its_own_is_used(engine: LocalEngine, folder: Path) -> None:
    engine.load_adapter("probe", folder)
    found = own(engine, engine.adapter_digest("probe"))
    path = write_calibration(folder, found)
    try:
        engine.load_adapter("tuned", folder)
        choice = engine.choose(asked("tuned"))
        assert choice.calibration == found.digest != BASE.digest
        engine.load_adapter("plain", folder, calibrated=False)
        assert engine.choose(asked("plain")).calibration == ""
    finally:
        path.unlink()
        engine.close()


def test_a_calibration_of_another_adapter_is_refused_and_nothing_is_loaded(
    engine: LocalEngine, folder: Path
) -> None:
    path = write_calibration(folder, own(engine, "0" * 64))
    try:
        with pytest.raises(CalibrationError, match="is for adapter '0000"):
            engine.load_adapter("tuned", folder)
        assert engine.adapters == ()
    finally:
        path.unlink()
        engine.close()
