"""Loading sentence-transformers models, with errors that say what to do."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from tokenizers.normalizers import Lowercase, Sequence

from irdistill.errors import IrdistillError
from irdistill.modeling.hardware import best_device
from irdistill.modeling.hub import hub_is_off
from irdistill.modeling.model_files import STUDENT_FILE, read_model_json, resolve_model
from irdistill.modeling.weights import check_new_modules, complete_weights
from irdistill.students.inputs import check_processing, prepare_inputs
from irdistill.students.model_kinds import describe_model
from irdistill.students.term_vectors import REFERENCE, TermVectors

logger = logging.getLogger(__name__)

OWN = {REFERENCE: TermVectors}
"""Modules of this package by the names they have in model folders; handed to sentence-transformers,
so that nothing else that a folder names is trusted with them, as ``trust_remote_code`` would.
"""


def load_encoder(
    model: str,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    device: str | None = None,
    library: Any = SentenceTransformer,
    new_head: bool = False,
    seed: int = 0,
    **given: Any,
) -> Any:
    """Open a folder, a ``package:`` path or a hub id as a float32 model of sentence-transformers in
    eval mode.

    A backbone without sentence-transformers modules gets what the class adds: mean pooling, by
    default.

    Args:
        library: the class: SentenceTransformer, SparseEncoder, MultiVectorEncoder or CrossEncoder.
        new_head: a head that the model was saved without may begin at random, for a student that is
            to be trained.
        seed: of the weights of such a head.
        given: more arguments of the class.

    Raises:
        IrdistillError: no such model, no tokenizer, the hub cannot be reached, the folder is
            damaged, or weights are missing or are not those that the network expects.
    """
    resolved = resolve_model(model, revision)
    own = read_model_json(model, STUDENT_FILE) if Path(resolved).is_dir() else None
    if own and "kind" in own:
        raise IrdistillError(
            f"the model folder {model!r} holds a {own['kind']} student, which reranks (irdistill"
            f" score --teacher {model}) and is neither searched with nor a backbone."
        )
    try:
        local = Path(resolved).is_dir() or hub_is_off()
        with complete_weights(model, new_head=new_head, seed=seed):
            load = (
                partial(library._load_with_module_classes, module_classes=OWN)
                if _has_own(resolved)
                else library
            )
            encoder = load(
                resolved,
                revision=revision,
                trust_remote_code=trust_remote_code,
                device=device or str(best_device()),
                local_files_only=local,
                model_kwargs={"dtype": "float32"},
                **given,
            )
        if (read_model_json(model, "sentence_bert_config.json", revision) or {}).get(
            "do_lower_case"
        ):
            _lower_case(encoder)
        description = describe_model(model, revision)
        check_new_modules(encoder, description.modules, description.architectures, model)
    except IrdistillError:
        raise
    except Exception as error:
        raise IrdistillError(_explain(model, resolved, error)) from error
    check_processing(encoder, model)
    prepare_inputs(encoder, model)
    return encoder.float().eval()


def _lower_case(encoder: Any) -> None:
    """Let the tokenizers of a model that was opened as one of another class make lower case, as the
    saved one did.
    """
    for module in encoder.modules():
        if isinstance(module, Transformer) and not module.do_lower_case:
            inner = module.tokenizer.backend_tokenizer
            inner.normalizer = Sequence(
                [Lowercase(), *([inner.normalizer] if inner.normalizer is not None else [])]
            )
            module.do_lower_case = True


def _has_own(resolved: str) -> bool:
    """Whether a model folder names modules of this package, which are known and need no trust."""
    routes = Path(resolved) / "router_config.json"
    return routes.is_file() and any(
        reference in routes.read_text(encoding="utf-8") for reference in OWN
    )


def _explain(model: str, resolved: str, error: Exception) -> str:
    """One paragraph for a model that did not load."""
    text = " ".join(str(error).split())
    if "trust_remote_code" in text:
        return (
            f"the model {model!r} runs code of its own, which is off by default. "
            "Read that code, then pass trust_remote_code=True (--trust-remote-code)."
        )
    if Path(resolved).is_dir():
        return (
            f"the model folder {model!r} cannot be loaded: {text[:400]}. Was it saved completely?"
        )
    return (
        f"the hub model {model!r} could not be loaded ({type(error).__name__}: {text[:200]}). It"
        " may lack files, be closed to you (log in with: hf auth login), or be only in part in the"
        " hub cache."
    )


@contextmanager
def same_new_weights(seed: int) -> Iterator[None]:
    """Make what is initialised within depend on the seed alone, so that a training started again
    finds the same student.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def random_weights(transformer: Transformer, changes: Mapping[str, Any], seed: int) -> None:
    """Replace the weights of a loaded transformer by random ones, in a model of its config with
    these changes.

    Raises:
        IrdistillError: the config has no such key, or a value does not fit the others.
    """
    config, kind = transformer.model.config, type(transformer.model)
    unknown = [key for key in changes if not hasattr(config, key)]
    if unknown:
        raise IrdistillError(
            f"the config of {kind.__name__} has no {', '.join(unknown)}; "
            f"it has {', '.join(sorted(config.to_diff_dict()))}."
        )
    try:
        with same_new_weights(seed):
            transformer.model = kind(
                type(config).from_dict(config.to_dict() | dict(changes))
            ).eval()
    except (ValueError, TypeError, RuntimeError) as error:
        raise IrdistillError(
            f"no {kind.__name__} can be made with {dict(changes)}: {error}"
        ) from error


def load_transformer(
    model: str,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    task: Any = "feature-extraction",
    new_head: bool = False,
    seed: int = 0,
) -> Transformer:
    """Open the transformer of a folder, a ``package:`` path or a hub id, in float32, without what
    stands behind it.

    Args:
        task: of sentence-transformers' Transformer: ``fill-mask`` gives it the
            masked-language-model head.
        new_head: a head that the model was saved without may begin at random, for a student that is
            to be trained.
        seed: of the weights of such a head.

    Raises:
        IrdistillError: it cannot be loaded, or weights are missing or are not those that the
            network expects.
    """
    resolved = resolve_model(model, revision)
    try:
        local = Path(resolved).is_dir() or hub_is_off()
        shared = {
            "revision": revision,
            "trust_remote_code": trust_remote_code,
            "local_files_only": local,
        }
        with complete_weights(model, new_head=new_head, seed=seed):
            settings = read_model_json(model, "sentence_bert_config.json", revision) or {}
            transformer = Transformer(
                resolved,
                transformer_task=task,
                do_lower_case=bool(settings.get("do_lower_case")),
                model_kwargs={"dtype": torch.float32, **shared},
                processor_kwargs=dict(shared),
                config_kwargs=dict(shared),
            )
    except IrdistillError:
        raise
    except Exception as error:
        raise IrdistillError(_explain(model, resolved, error)) from error
    prepare_inputs(transformer, model)
    return transformer
