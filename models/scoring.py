"""Scoring of a closed set of texts in one forward pass.

All options are laid one after another behind the shared conversation. A mask lets each see the conversation
and itself, but no other option, and each counts its positions from the end of the conversation: the model
computes exactly what it would for every option alone, and the weights are read once (the tree attention of
SpecInfer, https://arxiv.org/abs/2305.09781, with one branch an option).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from watchkeeper.models.prefix import common_prefix

GROUP_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Continuations:
    """Options as tokens.

    Attributes:
        stem: Tokens that every option begins with (the lead).
        tails: What follows the stem, one sequence an option.
    """

    stem: tuple[int, ...]
    tails: tuple[tuple[int, ...], ...]


def split(encode: Callable[[str], list[int]], lead: str, options: Sequence[str]) -> Continuations:
    """Tokenize each option together with the lead, and part them where the lead ends.

    Tokens are canonical for the whole text, so an option is scored as the model would have written it. A
    space stands between lead and option unless one of them brings its own white space.
    """
    stem = encode(lead.rstrip(" ")) if lead else []
    wholes = [encode(_joined(lead, option)) for option in options]
    shared = len(stem)
    for whole in wholes:
        # At least one token must be left to score.
        match = common_prefix(np.asarray(whole, np.int32), np.asarray(stem, np.int32))
        shared = min(shared, match, len(whole) - 1)
    return Continuations(tuple(stem[:shared]), tuple(tuple(whole[shared:]) for whole in wholes))


def _joined(lead: str, option: str) -> str:
    if not lead or lead[-1] in "\n\t" or option[0].isspace():
        return lead + option
    return f"{lead.rstrip(' ')} {option}"


def groups(tails: Sequence[Sequence[int]]) -> list[list[int]]:
    """Part the options so that one pass stays within a bound of tokens; indices in order."""
    parts: list[list[int]] = [[]]
    room = GROUP_TOKENS
    for index, tail in enumerate(tails):
        if parts[-1] and len(tail) > room:
            parts.append([])
            room = GROUP_TOKENS
        parts[-1].append(index)
        room -= len(tail)
    return parts


@dataclass(frozen=True, slots=True)
class Packed:
    """One forward pass over several options.

    Attributes:
        tokens: Last tokens of the conversation and all options.
        positions: Their positions.
        mask: What each may attend to, bool of shape (tokens, past + tokens).
        rows: Places whose logits are needed.
        targets: Per option, (index into ``rows``, token) of every token to score.
    """

    tokens: list[int]
    positions: list[int]
    mask: torch.Tensor
    rows: list[int]
    targets: tuple[tuple[tuple[int, int], ...], ...]


def pack(rest: Sequence[int], tails: Sequence[Sequence[int]], past: int) -> Packed:
    """Lay options behind the last tokens of the conversation.

    Args:
        rest: Last tokens of the conversation, not computed yet; at least one.
        tails: The options.
        past: Tokens before ``rest`` whose keys and values are there.
    """
    ids = list(rest)
    positions = list(range(past, past + len(rest)))
    spans: list[range] = []
    for tail in tails:
        # The last token of an option is scored, but nothing follows it: it need not be computed.
        spans.append(range(len(ids), len(ids) + len(tail) - 1))
        ids += tail[:-1]
        positions += range(past + len(rest), past + len(rest) + len(tail) - 1)
    length = len(ids)
    mask = torch.zeros((length, past + length), dtype=torch.bool)
    mask[:, :past] = True
    mask[:, past : past + len(rest)] = True
    mask[: len(rest), past : past + len(rest)] = torch.ones((len(rest), len(rest)), dtype=torch.bool).tril()
    for span in spans:
        block = torch.ones((len(span), len(span)), dtype=torch.bool).tril()
        mask[span.start : span.stop, past + span.start : past + span.stop] = block
    rows = [len(rest) - 1, *range(len(rest), length)]
    targets = tuple(
        tuple((0 if at == 0 else span.start + at - len(rest), token) for at, token in enumerate(tail))
        for tail, span in zip(tails, spans, strict=True)
    )
    return Packed(ids, positions, mask, rows, targets)


def sums(logits: torch.Tensor, targets: Sequence[Sequence[tuple[int, int]]]) -> list[float]:
    """Sum the log-probabilities of each option's tokens.

    Args:
        logits: One row per place of ``Packed.rows``.
        targets: As in :class:`Packed`.
    """
    logits = logits.float()
    norm = torch.logsumexp(logits, dim=-1)
    results: list[float] = []
    for pairs in targets:
        rows = torch.tensor([row for row, _ in pairs], device=logits.device)
        tokens = torch.tensor([token for _, token in pairs], device=logits.device)
        results.append(float((logits[rows, tokens] - norm[rows]).double().sum()))
    return results


def softmax(scores: Sequence[float]) -> list[float]:
    """Turn scores into shares that sum to 1."""
    shifted = np.exp(np.asarray(scores, dtype=np.float64) - max(scores))
    return [float(share) for share in shifted / shifted.sum()]
