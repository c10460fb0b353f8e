"""The sparse student: a weight for each word (SPLADE, Formal et al. 2021, arXiv:2109.10086)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import csr_matrix, vstack
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling
from torch import Tensor, nn

from irdistill.console.progress_bars import ProgressCallback
from irdistill.errors import ModelError, OptionError
from irdistill.modeling.batching import TokenBudget
from irdistill.modeling.hardware import Precision
from irdistill.modeling.model_revisions import model_revision
from irdistill.students.encoding import encode_batches
from irdistill.students.layers import keep_layers
from irdistill.students.model_kinds import describe_model
from irdistill.students.single_vector import SingleVectorStudent
from irdistill.students.student_loading import load_encoder, load_transformer
from irdistill.students.student_options import StudentOptions
from irdistill.students.term_map import TermMap
from irdistill.students.tower_model import TextKind, TokenColumns
from irdistill.students.towers import copy_tower, set_lengths, tower_modules, two_towers


class SparseStudent(SingleVectorStudent):
    """A SparseEncoder of sentence-transformers: the score is the dot product of sparse vectors.

    A word's weight is the largest ``log(1 + relu(logit))`` that a token gives it through the
    masked-language-model head; with ``activation="log1p_relu"`` the logarithm is taken twice (Shen
    et al. 2025, arXiv:2504.14839). A backbone that was saved without this head gets a random head
    transformation (its last layer is the word embeddings), which needs long training.

    With ``inference_free`` queries have no model: each token has a trained weight, and encoding a
    query is a table look-up (Geng et al. 2024, arXiv:2411.04403). The weights begin at 1, or at
    the IDF of a corpus (`set_query_weights`; ``idf_start`` of a training). A ``query_backbone``
    must have the same vocabulary.

    Examples:
        >>> import irdistill as ird
        >>> backbone = "distilbert-base-uncased"
        >>> student = ird.SparseStudent(backbone, inference_free=True)  # doctest: +SKIP
        >>> student.encode(["how to delete a folder"], "query").shape  # doctest: +SKIP
        (1, 30522)
    """

    kind = "sparse"
    library = SparseEncoder
    inputs = (Transformer, SparseStaticEmbedding)
    tokens_cpu, tokens_gpu = 2048, 32_768  # each token has a row of the vocabulary's size

    def _check_model(self) -> None:
        super()._check_model()
        if self.model.max_active_dims is not None:
            raise ModelError(
                f"the model {self.source!r} keeps only {self.model.max_active_dims} dimensions of a"
                " vector; a sparse student is trained without such a cut. Set max_active_dims to"
                " null in its config_sentence_transformers.json."
            )

    @classmethod
    def _is_saved_student(cls, name: str) -> bool:
        return describe_model(name).saved_as == "SparseEncoder"

    def _build(self, backbone: str, options: StudentOptions, device: str | None, seed: int) -> None:
        separate = options.query_layers is not None or options.query_backbone is not None
        if options.inference_free and separate:
            raise OptionError(
                "inference_free was given with query_layers or query_backbone, but it leaves"
                " queries no layers; choose one."
            )
        trust = options.trust_remote_code
        model = _encoder(backbone, options.revision, trust, device, seed)
        first: Any = tower_modules(model, "document")[0]
        if options.layers is not None:
            keep_layers(first.model, options.layers)
        if options.activation is not None:
            _set_activation(tower_modules(model, "document"), options.activation)
        queries: list[nn.Module] | None = None
        if options.inference_free:
            weights = torch.ones(_term_count(tower_modules(model, "document")))
            queries = [SparseStaticEmbedding(_copy_tokenizer(first), weights)]
        elif options.query_backbone is not None:
            other = _encoder(options.query_backbone, None, trust, device, seed)
            if other.tokenizer.get_vocab() != model.tokenizer.get_vocab():
                raise OptionError(
                    f"the vocabularies of {options.query_backbone!r} and {backbone!r} differ, so"
                    " their sparse vectors cannot be compared; give a query_backbone with the same"
                    " vocabulary."
                )
            queries = copy_tower(other, options.query_layers)
            if options.activation is not None:
                _set_activation(queries, options.activation)
        elif separate or options.freeze_documents:
            queries = copy_tower(model, options.query_layers)
        query_first: Any = (queries or tower_modules(model, "query"))[0]
        transformers = [query_first] if isinstance(query_first, Transformer) else []
        set_lengths(transformers, [first], options.max_length, options.max_query_length)
        length = options.max_query_length or options.max_length
        if not transformers and length is not None:
            query_first.tokenizer.model_max_length = length
        routed = model if queries is None else two_towers(model, queries)
        self._set_model(routed, backbone, model_revision(backbone, options.revision))
        if queries is not None and (options.freeze_documents or not options.inference_free):
            self._freeze("document")

    @property
    def dimension(self) -> int:
        """The size of the vocabulary."""
        return _term_count(self.tower("document"))

    @property
    def head(self) -> list[nn.Parameter]:
        """The weights of inference-free queries, which need a larger learning rate."""
        table = self._query_table
        return [] if table is None else list(table.parameters())

    @property
    def _query_table(self) -> SparseStaticEmbedding | None:
        first = self._first("query")
        return first if isinstance(first, SparseStaticEmbedding) else None

    def set_query_weights(self, weights: np.ndarray) -> None:
        """Set the weight of each token in inference-free queries, (V,). Special tokens get 0.

        Raises:
            OptionError: queries have a model.
        """
        table = self._query_table
        if table is None:
            raise OptionError(
                f"the queries of {self.source!r} go through a model; only an inference-free student"
                " has query weights. Build it with inference_free=True."
            )
        values = torch.from_numpy(weights).to(table.weight)
        values[table.tokenizer.all_special_ids] = 0.0
        table.weight.data.copy_(values)

    def max_length(self, kind: TextKind) -> int:
        """As `Student.max_length`; of inference-free queries the limit of the tokenizer."""
        first = self._first(kind)
        if isinstance(first, Transformer):
            return super().max_length(kind)
        return int(first.tokenizer.model_max_length)

    def tokenize(self, texts: Sequence[str], kind: TextKind) -> TokenColumns:
        """As `Student.tokenize`; inference-free queries get no special tokens."""
        first = self._first(kind)
        if isinstance(first, Transformer):
            return super().tokenize(texts, kind)
        prompt = self._prompt(kind) or ""
        coded = first.tokenizer(
            [prompt + text for text in texts],
            truncation=True,
            padding=False,
            add_special_tokens=False,
        )
        self._count(coded, kind, 0)
        return dict(coded)

    def _embed(self, features: Mapping[str, Any], kind: TextKind) -> Tensor:
        """Weights (n, V) with gradients."""
        with self._gradients(kind):
            features = {**features, "task": kind, "modality": "text"}
            *modules, last = self.tower(kind)
            terms = last if isinstance(last, TermMap) else None
            if terms is not None:
                last = modules.pop()
            if not isinstance(last, SpladePooling) or last.pooling_strategy != "max":
                weights: Tensor
                weights = self.model(features, task=kind)["sentence_embedding"]
                return weights
            for module in modules:
                features = module(features)
            weights = _max_pool(
                features["token_embeddings"], features["attention_mask"], last.activation_function
            )
            return weights if terms is None else terms.weights(weights)

    def encode(
        self,
        texts: Sequence[str],
        kind: TextKind = "document",
        precision: Precision = "auto",
        budget: int | TokenBudget | None = None,
        show_progress: bool | ProgressCallback = True,
        normalize: bool = False,
    ) -> csr_matrix:
        """Weights (n, V) float32 as sparse rows with terms in ascending order."""
        parts: list[csr_matrix] = []
        order: list[np.ndarray] = [np.empty(0, dtype=np.int64)]

        def take(rows: np.ndarray, weights: Tensor) -> bool:
            weights = F.normalize(weights.float(), dim=-1) if normalize else weights.float()
            texts_at, words = weights.nonzero(as_tuple=True)
            values = weights[texts_at, words].cpu().numpy()
            starts = np.searchsorted(texts_at.cpu().numpy(), np.arange(len(rows) + 1))
            parts.append(
                csr_matrix((values, words.cpu().numpy(), starts), shape=tuple(weights.shape))
            )
            order.append(rows)
            return bool(np.isfinite(values).all())

        encode_batches(self, texts, kind, precision, budget, show_progress, take)
        if not parts:
            return csr_matrix((0, self.dimension), dtype=np.float32)
        return vstack(parts, format="csr")[np.argsort(np.concatenate(order))]


def _max_pool(logits: Tensor, mask: Tensor, activation: str) -> Tensor:
    """As SpladePooling, (n, V) from logits (n, L, V), but with the maximum before the activation.

    The activation is monotone, so the result is the same, and the gradients need only the places
    of the maxima, not two arrays of the size of the logits. (In eval mode SpladePooling overwrites
    what its gradients need.)
    """
    vectors = logits.masked_fill(mask.unsqueeze(-1) == 0, 0.0).max(dim=1).values.relu().log1p()
    return vectors.log1p() if activation == "log1p_relu" else vectors


def _term_count(modules: Sequence[Any]) -> int:
    """The number of terms of a tower; SpladePooling may not know it."""
    known = modules[-1].get_embedding_dimension()
    return int(known or modules[0].model.config.vocab_size)


def _set_activation(modules: Sequence[nn.Module], activation: str) -> None:
    for module in modules:
        if isinstance(module, SpladePooling):
            module.activation_function = activation


def _encoder(
    backbone: str, revision: str | None, trust_remote_code: bool, device: str | None, seed: int
) -> Any:
    """A sparse model as it is, or a masked language model with max pooling."""
    shared: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    if describe_model(backbone, revision).retriever_type == "sparse":
        return load_encoder(backbone, device=device, library=SparseEncoder, **shared)
    first = load_transformer(backbone, task="fill-mask", new_head=True, seed=seed, **shared)
    pooling = SpladePooling("max", embedding_dimension=first.model.config.vocab_size)
    model = SparseEncoder(modules=[first, pooling], device=device, similarity_fn_name="dot")
    return model.float().eval()


def _copy_tokenizer(first: Transformer) -> Any:
    """A separate tokenizer for queries, so that the towers do not share its settings."""
    tokenizer = copy.deepcopy(first.tokenizer)
    tokenizer.model_max_length = first.max_seq_length or 512
    return tokenizer
