"""The towers of a student as networks from token ids to vectors or scores, to be exported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from sentence_transformers.sentence_transformer.modules import (
    LayerNorm,
    Pooling,
    StaticEmbedding,
    WordEmbeddings,
)
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling
from torch import Tensor, nn

from irdistill.errors import ModelError
from irdistill.students.lora import has_adapters
from irdistill.students.pair_similarity import PairSimilarity
from irdistill.students.student_base import Student
from irdistill.students.term_vectors import TermVectors
from irdistill.students.tower_model import TextKind
from irdistill.students.word_vectors import WordVectors

_HELD = (
    Transformer,
    Pooling,
    Normalize,
    Dense,
    LayerNorm,
    SpladePooling,
    MultiVectorMask,
    StaticEmbedding,
    WordEmbeddings,
    SparseStaticEmbedding,
    WordVectors,
    PairSimilarity,
)
#: The output of the last module, by the kind of student.
_OUTPUTS = {"cross-encoder": "scores", "late-interaction": "token_embeddings"}


@dataclass(frozen=True)
class TowerPart:
    """A network of a student, and the texts that it reads.

    Attributes:
        folder: its folder in the export.
        sides: the texts that it reads.
        modules: the modules of the tower.
    """

    folder: str
    sides: tuple[TextKind, ...]
    modules: list[nn.Module]

    @property
    def has_words(self) -> bool:
        """Whether word vectors are added."""
        return any(isinstance(module, WordVectors) for module in self.modules)


def tower_parts(student: Student, sides: Sequence[TextKind] | None = None) -> list[TowerPart]:
    """The networks of a student: one, or one for each tower.

    Towers that share their modules are one network, also if only queries have word vectors.

    Args:
        sides: the texts that the networks read (default: all that the student reads).

    Raises:
        ModelError: no exported network can hold a part of these towers; the message names it.
    """
    sides = sides or student.sides
    _check_held(student, sides)
    towers = {side: _without_masks(student.tower(side)) for side in sides}
    if len(towers) == 1:
        return [TowerPart(side, (side,), modules) for side, modules in towers.items()]
    queries, documents = towers["query"], towers["document"]
    words = [module for module in queries if isinstance(module, WordVectors)]
    start = queries.index(words[0]) if words else len(queries)
    same = [id(module) for module in queries[:start]] == [id(module) for module in documents]
    ending = queries[start + 1 :]
    normalized = not ending or any(isinstance(module, Normalize) for module in documents)
    if same and normalized and all(isinstance(module, Normalize) for module in ending):
        return [TowerPart("text", ("query", "document"), queries)]
    return [
        TowerPart("query", ("query",), queries),
        TowerPart("document", ("document",), documents),
    ]


def _without_masks(modules: Sequence[nn.Module]) -> list[nn.Module]:
    """Without masks of token vectors, which are applied to the output."""
    return [module for module in modules if not isinstance(module, MultiVectorMask)]


def _check_held(student: Student, sides: Sequence[TextKind]) -> None:
    """Refuse towers with parts that an exported network cannot hold."""
    modules = [module for side in sides for module in student.tower(side)]
    others = sorted(
        {
            type(module).__name__
            for module in modules
            if not isinstance(module, _HELD) or isinstance(module, TermVectors)
        }
    )
    if others:
        raise ModelError(
            f"the model {student.source!r} holds {', '.join(others)}, which no exported network can"
            " carry, so its vectors would be others. "
            + (
                "Fit its term vectors again with this version."
                if "TermVectors" in others
                else "Use it with torch."
            )
        )
    if has_adapters(student.model) and not student.merge_lora:
        raise ModelError(
            f"the model {student.source!r} holds adapters beside its backbone, which no exported"
            " network can carry. Train it with lora_merge, which adds them to the weights."
        )
    for side in sides:
        if not hasattr(_backend(student, side), "to_str"):
            raise ModelError(
                f"the tokenizer of {student.source!r} is written in Python; an export needs a fast"
                " tokenizer (tokenizer.json)."
            )
        cut = [m for m in student.tower(side) if isinstance(m, Pooling) and not m.include_prompt]
        if cut and student.prompts()[side]:
            raise ModelError(
                f"the model {student.source!r} leaves its {side} prompt out of pooling, which no"
                " exported network can do."
            )


def _backend(student: Student, side: TextKind) -> Any:
    tokenizer = student._first(side).tokenizer
    return getattr(tokenizer, "backend_tokenizer", tokenizer)


class TowerNetwork(nn.Module):
    """A tower with positional inputs and one output, for tracing.

    Args:
        part: the modules.
        inputs: names of the inputs, in order.
        kind: of the student.
        dimension: vectors are truncated to this length; None leaves them.
    """

    def __init__(
        self, part: TowerPart, inputs: Sequence[str], kind: str, dimension: int | None
    ) -> None:
        super().__init__()
        self.inputs, self.output = list(inputs), _OUTPUTS.get(kind, "sentence_embedding")
        self.dimension = dimension
        self.steps = nn.ModuleList(_traceable(module) for module in part.modules)

    def forward(self, *values: Tensor) -> Tensor:
        """(n, D) vectors, (n, L, D) token vectors or (n,) scores."""
        features: dict[str, Any] = dict(zip(self.inputs, values, strict=True))
        for step in self.steps:
            features = step(features)
        output: Tensor = features[self.output]
        if self.output == "scores":
            return output.float().reshape(-1)
        return output[..., : self.dimension]


def _traceable(module: nn.Module) -> nn.Module:
    """A module that computes the same and can be traced."""
    if isinstance(module, WordVectors):
        return _AddWords(module.weight)
    if isinstance(module, StaticEmbedding):
        return _MeanOfTokens(module.embedding.weight)
    if isinstance(module, SpladePooling):
        return _SparsePooling(module.pooling_strategy, module.activation_function)
    return module


class _AddWords(nn.Module):
    """`WordVectors` whose words are an input: their places (n, W), and 1 where there is one."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach(), requires_grad=False)

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        mask = features["word_mask"].float()
        total = (self.weight[features["words"]] * mask.unsqueeze(2)).sum(1)
        count = mask.sum(1, keepdim=True).clamp_min(1.0)
        vectors = features["sentence_embedding"] + total / count.sqrt()
        return {**features, "sentence_embedding": vectors}


class _MeanOfTokens(nn.Module):
    """`StaticEmbedding` of padded texts."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach(), requires_grad=False)

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        mask = features["attention_mask"].float()
        total = (self.weight[features["input_ids"]] * mask.unsqueeze(2)).sum(1)
        vectors = total / mask.sum(1, keepdim=True).clamp_min(1.0)
        return {**features, "sentence_embedding": vectors}


class _SparsePooling(nn.Module):
    """`SpladePooling` without chunks of tokens."""

    def __init__(self, strategy: str, activation: str) -> None:
        super().__init__()
        self.strategy, self.twice = strategy, activation == "log1p_relu"

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        mask = features["attention_mask"].unsqueeze(2)
        weights = (features["token_embeddings"] * mask).relu().log1p()
        if self.twice:
            weights = weights.log1p()
        vectors = weights.amax(dim=1) if self.strategy == "max" else weights.sum(dim=1)
        return {**features, "sentence_embedding": vectors}


def side_settings(student: Student, side: TextKind) -> dict[str, Any]:
    """How the texts of a side become tokens, and which tokens are scored, as JSON values."""
    first: Any = student._first(side)
    is_transformer = isinstance(first, Transformer)
    length = student.max_length(side)
    prompt = student.prompts()[side]
    expansion = getattr(first, "query_expansion", None) if side == "query" else None
    masks = [module for module in student.tower(side) if isinstance(module, MultiVectorMask)]
    tokenizer = first.tokenizer
    return {
        "prompt": prompt,
        "prompt_tokens": first._get_prompt_length(prompt) if prompt and is_transformer else 0,
        "max_length": length if length < 2**31 - 1 else None,
        "truncation_side": getattr(tokenizer, "truncation_side", "right"),
        "special_tokens": is_transformer,
        "left": getattr(tokenizer, "padding_side", "right") == "left",
        "fill": {
            "input_ids": getattr(tokenizer, "pad_token_id", None) or 0,
            "token_type_ids": getattr(tokenizer, "pad_token_type_id", None) or 0,
        },
        "expansion": _expansion(tokenizer, expansion) if expansion else None,
        "unscored": [token for mask in masks for token in _skipped(mask, side)],
        "scored": [
            token for mask in masks if side != "query" for token in mask.keep_only_token_ids or ()
        ],
    }


def _expansion(tokenizer: Any, expansion: Mapping[str, Any]) -> dict[str, Any]:
    filler = tokenizer.mask_token_id
    if expansion["token"] is not None:
        filler = tokenizer.convert_tokens_to_ids(expansion["token"])
    elif filler is None:
        filler = tokenizer.eos_token_id
    return {"length": expansion["length"], "token": filler, "attend": expansion["attend"]}


def _skipped(mask: MultiVectorMask, side: TextKind) -> list[int]:
    skipped: Tensor | None = mask._skiplist_ids
    if skipped is None or side not in mask.skiplist_tasks:
        return []
    return [int(token) for token in skipped.tolist()]


def network_inputs(student: Student, part: TowerPart) -> list[str]:
    """The names of the inputs of a network."""
    names = ["input_ids", "attention_mask"]
    if isinstance(part.modules[0], Transformer):
        side = part.sides[0]
        text: Any = ("a", "b") if side == "pair" else "a"
        if "token_type_ids" in student.tokenize([text], side):
            names.append("token_type_ids")
    return [*names, *(("words", "word_mask") if part.has_words else ())]


def example_inputs(names: Sequence[str]) -> dict[str, Tensor]:
    """Two texts of six tokens and four words, to trace a network with."""
    ones = torch.ones(2, 6, dtype=torch.int64)
    ones[1, 4:] = 0
    values = {"input_ids": torch.arange(12).reshape(2, 6) + 1, "attention_mask": ones}
    values |= {"token_type_ids": (torch.arange(6) > 2).long().expand(2, 6).contiguous()}
    values |= {"words": torch.zeros(2, 4, dtype=torch.int64), "word_mask": ones[:, :4]}
    return {name: values[name] for name in names}
