"""Training of a LoRA adapter on closed questions, in the tokens in which their answers part.

What is learned is to choose: the loss is the cross-entropy at each token where the right option and another
part ways, among the tokens that options go on with there, each corrected as choices are (``log p(token |
evidence) - w log p(token | no evidence)``). Tokens that are settled once an option is begun teach nothing
but wording: they are left out, and nothing is computed for them. With the loss over whole options, all ride
in one forward pass (see ``scoring``).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from watchkeeper.models import scoring
from watchkeeper.models.adapter_files import CONFIG_NAME, WEIGHTS_NAME
from watchkeeper.models.calibration_cases import LabelledCase
from watchkeeper.models.errors import AdapterError
from watchkeeper.models.interface import ChoiceRequest, Message
from watchkeeper.models.straight_through import compute_as_served
from watchkeeper.models.templates import ChatFormat

STATE_NAME = "state.safetensors"
_TARGETS = ("q_proj", "v_proj", "up_proj", "down_proj")
_CLIP = 1.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an adapter is trained.

    Attributes:
        rank: Of the low-rank matrices.
        last_layers: How many of the last layers are adapted; half of them where 0.
        learning_rate: At its highest.
        batch: Questions a step.
        warmup: Share of the steps in which the learning rate rises; it falls in a line after that.
        loss: ``"branches"`` as described above; ``"options"`` is the cross-entropy of the shares that agents
            compute, the softmax over the options' whole scores.
        forward: ``"served"`` computes with int8 weights as the engine does, ``"exact"`` in fp32.
    """

    rank: int = 16
    last_layers: int = 0
    learning_rate: float = 3e-4
    batch: int = 8
    warmup: float = 0.1
    loss: str = "branches"
    forward: str = "served"


@dataclass(frozen=True, slots=True)
class StepResult:
    """What came of one step.

    Attributes:
        loss: Mean over its questions, in nats.
        right: Share of them that were answered right before the step: in every token that was learned from.
        norm: Norm of the gradient before it was clipped.
    """

    loss: float
    right: float
    norm: float


@dataclass(frozen=True, slots=True)
class Fork:
    """A place in the right option where others that began alike go on in another way.

    Attributes:
        place: Tokens of the right option before it.
        tokens: What options go on with there, the right option's token first.
    """

    place: int
    tokens: tuple[int, ...]


def forks(tails: Sequence[Sequence[int]], right: int) -> list[Fork]:
    """Return the places in which the right option parts from others; none where all others begin with it.

    Args:
        tails: Tokens of each option.
        right: Which one is right.
    """
    found: list[Fork] = []
    alike = list(range(len(tails)))
    for place, token in enumerate(tails[right]):
        alike = [option for option in alike if len(tails[option]) > place]
        others = {tails[option][place] for option in alike} - {token}
        if others:
            found.append(Fork(place, (token, *sorted(others))))
        alike = [option for option in alike if tails[option][place] == token]
    return found


class LoraTraining:
    """A model with an adapter that learns; the same seed and cases give the same adapter.

    Args:
        model: A causal language model of transformers in fp32; it is changed and of no other use after.
        tokenizer: Its tokenizer.
        name: Which model it is, for the adapter's configuration.
        recipe: How to train.
        steps: How many steps there will be.
        seed: Decides on the first values.

    Raises:
        AdapterError: If the model has no layers of the names that are adapted.
    """

    def __init__(
        self, model: Any, tokenizer: Any, *, name: str, recipe: Recipe, steps: int, seed: int
    ) -> None:
        from peft import LoraConfig, get_peft_model

        if recipe.forward == "served":
            compute_as_served(model)
        count = int(model.config.get_text_config().num_hidden_layers)
        taken = recipe.last_layers or max(1, count // 2)
        config = LoraConfig(
            r=recipe.rank,
            lora_alpha=2 * recipe.rank,
            target_modules=list(_TARGETS),
            layers_to_transform=list(range(max(0, count - taken), count)),
            task_type="CAUSAL_LM",
        )
        self._format = ChatFormat(tokenizer)
        self._recipe = recipe
        self._steps = steps
        self._step = 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                self._adapted: Any = get_peft_model(model, config)
            except ValueError as error:
                raise AdapterError(f"{name!r} cannot be adapted: {error}") from error
        self._adapted.peft_config["default"].base_model_name_or_path = name
        self._adapted.eval()  # nothing is dropped at random
        self._base = model
        self._weights = {
            label: weight for label, weight in self._adapted.named_parameters() if weight.requires_grad
        }
        self._optimizer = torch.optim.AdamW(
            list(self._weights.values()), lr=recipe.learning_rate, betas=(0.9, 0.99), weight_decay=0.0
        )

    @property
    def step_number(self) -> int:
        """Steps that were made."""
        return self._step

    def step(self, cases: Sequence[LabelledCase], *, check: Callable[[], None] = lambda: None) -> StepResult:
        """Learn from some cases.

        Args:
            cases: The cases.
            check: Called before each of them; what it raises ends the step without a trace.

        Returns:
            How they were answered; a loss that is no finite number left the weights as they were.
        """
        rate = self._recipe.learning_rate * self._schedule()
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)
        losses: list[float] = []
        right = 0
        for case in cases:
            check()
            loss, answered = self._loss(case)
            losses.append(float(loss.detach()))
            right += answered
            if not math.isfinite(losses[-1]):
                return StepResult(losses[-1], right / len(cases), math.nan)
            (loss / len(cases)).backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(list(self._weights.values()), _CLIP)
        self._optimizer.step()
        self._step += 1
        return StepResult(sum(losses) / len(losses), right / len(cases), float(norm))

    def save_adapter(self, folder: Path) -> None:
        """Write the adapter in peft's format, its weights in 16 bits."""
        from peft import get_peft_model_state_dict
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        self._adapted.peft_config["default"].save_pretrained(str(folder))
        config = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
        config["inference_mode"] = True
        (folder / CONFIG_NAME).write_text(
            json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8"
        )
        found = get_peft_model_state_dict(self._adapted, save_embedding_layers=False)
        weights = {label: tensor.detach().to(torch.float16).contiguous() for label, tensor in found.items()}
        save_file(weights, str(folder / WEIGHTS_NAME), metadata={"format": "pt"})

    def save(self, folder: Path) -> None:
        """Write all that is needed to go on."""
        from safetensors.torch import save_file

        tensors: dict[str, torch.Tensor] = {}
        for label, weight in self._weights.items():
            tensors[f"weight/{label}"] = weight.detach()
            for part, value in self._optimizer.state.get(weight, {}).items():
                tensors[f"{part}/{label}"] = value.detach()
        kept = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(kept, str(folder / STATE_NAME), metadata={"step": str(self._step), **self._described()})

    def restore(self, folder: Path) -> None:
        """Go on from what `save` wrote, with exactly the numbers that there would have been.

        Raises:
            AdapterError: If it is damaged, or of another training.
        """
        from safetensors import SafetensorError, safe_open

        path = folder / STATE_NAME
        try:
            with safe_open(str(path), framework="pt") as file:
                said = dict(file.metadata() or {})
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        except (OSError, SafetensorError) as error:
            raise AdapterError(f"{path} cannot be read: {error}; remove it to begin anew") from error
        step = said.pop("step", "")
        if said != self._described() or not step.isdecimal():
            raise AdapterError(f"{path} is of another training: remove it, or give the options it began with")
        with torch.no_grad():
            for label, weight in self._weights.items():
                weight.copy_(tensors.pop(f"weight/{label}"))
        for label, weight in self._weights.items():
            state = {
                part: tensors[f"{part}/{label}"]
                for part in ("step", "exp_avg", "exp_avg_sq")
                if f"{part}/{label}" in tensors
            }
            if state:
                self._optimizer.state[weight] = state
        self._step = int(step)

    def _described(self) -> dict[str, str]:
        return {"recipe": json.dumps(asdict(self._recipe), sort_keys=True), "steps": str(self._steps)}

    def _schedule(self) -> float:
        rising = max(1, round(self._recipe.warmup * self._steps))
        if self._step < rising:
            return (self._step + 1) / rising
        return max(0.05, (self._steps - self._step) / max(1, self._steps - rising))

    def _loss(self, case: LabelledCase) -> tuple[torch.Tensor, bool]:
        """Return the loss of one case, and whether it was answered right."""
        request = case.corrected()
        parts = scoring.split(self._format.plain, request.lead, request.options)
        found = forks(parts.tails, case.label) if self._recipe.loss == "branches" else []
        if found:
            # Tokens of one place share their norm, which cancels: raw logits do.
            path = parts.tails[case.label][: found[-1].place]
            scores = self._corrected(request, lambda messages: self._at_forks(messages, parts, path, found))
            pairs = [(score, 0) for score in scores]
        else:
            # An option with which all others begin has no token of its own.
            whole = self._corrected(request, lambda messages: [self._wholes(messages, parts)])
            pairs = [(whole[0], case.label)]
        losses = [functional.cross_entropy(score[None], torch.tensor([right])) for score, right in pairs]
        return torch.stack(losses).sum(), all(int(score.argmax()) == right for score, right in pairs)

    def _corrected(
        self, request: ChoiceRequest, score: Callable[[Sequence[Message]], list[torch.Tensor]]
    ) -> list[torch.Tensor]:
        scores = score(request.messages)
        if request.neutral is None or request.neutral_weight == 0:
            return scores
        # What is said without evidence counts, but is not what is learned: half of the pass is saved.
        with torch.no_grad():
            without = score(request.neutral)
        weight = request.neutral_weight
        return [one - weight * other for one, other in zip(scores, without, strict=True)]

    def _at_forks(
        self,
        messages: Sequence[Message],
        parts: scoring.Continuations,
        path: Sequence[int],
        found: Sequence[Fork],
    ) -> list[torch.Tensor]:
        """Logits of each fork's tokens; shapes (tokens,). What comes after the last fork is not computed."""
        before = [*self._format.prompt(messages), *parts.stem]
        hidden = self._base.get_decoder()(
            input_ids=torch.tensor([[*before, *path]]), use_cache=False
        ).last_hidden_state[0]
        places = [len(before) - 1 + fork.place for fork in found]
        logits = self._base.get_output_embeddings()(hidden[places]).float()
        return [row[list(fork.tokens)] for row, fork in zip(logits, found, strict=True)]

    def _wholes(self, messages: Sequence[Message], parts: scoring.Continuations) -> torch.Tensor:
        """Log-probability of each option; shape (options,)."""
        packed = scoring.pack([*self._format.prompt(messages), *parts.stem], parts.tails, 0)
        hidden = self._base.get_decoder()(
            input_ids=torch.tensor([packed.tokens]),
            position_ids=torch.tensor([packed.positions]),
            attention_mask=torch.where(packed.mask, 0.0, torch.finfo(torch.float32).min)[None, None],
            use_cache=False,
        ).last_hidden_state[0]
        logits = self._base.get_output_embeddings()(hidden[packed.rows]).float()
        norms = torch.logsumexp(logits, dim=-1)
        scores: list[torch.Tensor] = []
        for pairs in packed.targets:
            rows, tokens = [row for row, _ in pairs], [token for _, token in pairs]
            scores.append((logits[rows, tokens] - norms[rows]).sum())
        return torch.stack(scores)
