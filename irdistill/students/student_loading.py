"""Loading sentence-transformers models, with errors that say what to do."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from tokenizers.normalizers import Lowercase, Sequence

from irdistill.errors import IrdistillError, ModelError, OptionError, one_line
from irdistill.modeling.hardware import best_device
from irdistill.modeling.hub import hub_is_off
from irdistill.modeling.model_files import STUDENT_FILE, read_model_json, resolve_model
from irdistill.modeling.weights import check_new_modules, complete_weights
from irdistill.students.inputs import check_processing, prepare_inputs
from irdistill.students.model_code import PACKAGE_MODULES
from irdistill.students.model_kinds import describe_model

logger = logging.getLogger(__name__)


def load_encoder(
    model: str,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    device: str | None = None,
    library: Any = SentenceTransformer,
    new_head: bool = False,
    seed: int = 0,
    **arguments: Any,
) -> Any:
    """Open a folder, ``package:`` path or hub id as a float32 model in eval mode.

    A backbone without sentence-transformers modules gets those that the class adds, such as mean
    pooling.

    Args:
        library: the class: SentenceTransformer, SparseEncoder, MultiVectorEncoder or CrossEncoder.
        new_head: allow a random head if the model was saved without one, for training.
        seed: of the weights of such a head.
        arguments: more arguments of the class.

    Raises:
        NotFoundError: there is no such model, or the hub cannot be reached.
        ModelError: the folder is damaged, or weights are missing or do not fit the network.
    """
    resolved = resolve_model(model, revision)
    _refuse_reranking_student(model, resolved)
    try:
        local = Path(resolved).is_dir() or hub_is_off()
        with complete_weights(model, new_head=new_head, seed=seed):
            encoder = model_loader(library, resolved)(
                resolved,
                revision=revision,
                trust_remote_code=trust_remote_code,
                device=device or str(best_device()),
                local_files_only=local,
                model_kwargs={"dtype": "float32"},
                **arguments,
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
        raise ModelError(_explain(model, resolved, error)) from error
    check_processing(encoder, model)
    prepare_inputs(encoder, model)
    return encoder.float().eval()


def _refuse_reranking_student(model: str, resolved: str) -> None:
    saved = read_model_json(model, STUDENT_FILE) if Path(resolved).is_dir() else None
    if saved and "kind" in saved:
        raise ModelError(
            f"the model folder {model!r} holds a {saved['kind']} student, which can only rerank"
            f" (irdistill score --teacher {model}); it is not an encoder or a backbone."
        )


def _lower_case(encoder: Any) -> None:
    """Lowercase texts as the saved model does, if it was opened with another class."""
    for module in encoder.modules():
        if isinstance(module, Transformer) and not module.do_lower_case:
            inner = module.tokenizer.backend_tokenizer
            inner.normalizer = Sequence(
                [Lowercase(), *([inner.normalizer] if inner.normalizer is not None else [])]
            )
            module.do_lower_case = True


def model_loader(library: Any, resolved: str) -> Callable[..., Any]:
    """What opens a model: a class of sentence-transformers, with the modules of this package."""
    files = [Path(resolved) / name for name in ("modules.json", "router_config.json")]
    listed = "".join(file.read_text(encoding="utf-8") for file in files if file.is_file())
    if any(f'"{reference}"' in listed for reference in PACKAGE_MODULES):
        return partial(library._load_with_module_classes, module_classes=PACKAGE_MODULES)
    return cast("Callable[..., Any]", library)


def _explain(model: str, resolved: str, error: Exception) -> str:
    """An error message for a model that did not load."""
    text = one_line(error, 400)
    if resolved.endswith(".gguf"):
        return (
            f"the GGUF file {model!r} holds a language model, which can be a teacher, or the"
            " backbone of a cross-encoder with a new classifier; an encoder was expected."
        )
    if "trust_remote_code" in text:
        return (
            f"the model {model!r} brings code, which is not run by default. "
            "Read the code, then pass trust_remote_code=True (--trust-remote-code)."
        )
    if Path(resolved).is_dir():
        return f"the model folder {model!r} cannot be loaded: {text}. Was it saved completely?"
    return (
        f"the hub model {model!r} could not be loaded ({type(error).__name__}: {text[:200]}). It"
        " may lack files, be closed to you (log in with: hf auth login), or be only in part in the"
        " hub cache."
    )


@contextmanager
def same_new_weights(seed: int) -> Iterator[None]:
    """Make weights that are initialized in this context depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def random_weights(transformer: Transformer, changes: Mapping[str, Any], seed: int) -> None:
    """Replace the weights of a transformer by random ones, with these changes of its config.

    Raises:
        OptionError: the config has no such key, or a value does not fit the others.
    """
    config, kind = transformer.model.config, type(transformer.model)
    unknown = [key for key in changes if not hasattr(config, key)]
    if unknown:
        raise OptionError(
            f"the config of {kind.__name__} has no {', '.join(unknown)}; "
            f"it has {', '.join(sorted(config.to_diff_dict()))}."
        )
    try:
        with same_new_weights(seed):
            transformer.model = kind(
                type(config).from_dict(config.to_dict() | dict(changes))
            ).eval()
    except (ValueError, TypeError, RuntimeError) as error:
        raise OptionError(
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
    """Open the transformer of a folder, ``package:`` path or hub id in float32.

    Args:
        task: of sentence-transformers' Transformer; ``fill-mask`` adds the masked-language-model
            head.
        new_head: allow a random head if the model was saved without one, for training.
        seed: of the weights of such a head.

    Raises:
        ModelError: it cannot be loaded, or weights are missing or do not fit the network.
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
        raise ModelError(_explain(model, resolved, error)) from error
    prepare_inputs(transformer, model)
    return transformer
