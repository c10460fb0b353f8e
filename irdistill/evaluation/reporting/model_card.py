"""The model card: README.md of a model's folder, with figures in the hub's format."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irdistill import __version__
from irdistill.errors import ModelError, OutputExistsError
from irdistill.evaluation.figures import Evaluation, Row
from irdistill.evaluation.reporting.dataset_names import is_synthetic, short_names
from irdistill.evaluation.reporting.mteb import metric_name
from irdistill.evaluation.reporting.rendering import render_markdown
from irdistill.modeling.model_files import STUDENT_FILE, check_model_folder
from irdistill.storage.files import read_json
from irdistill.storage.ownership import write_file

NAME = "README.md"
MARK = "<!-- written by irdistill report -->"

_QUERY, _DOCUMENT = (
    "how do I merge two dictionaries",
    "dict.update merges another mapping into this one",
)
_SEARCH = f"""\
queries = model.encode_query(["{_QUERY}"])
documents = model.encode_document(["{_DOCUMENT}"])
print(model.similarity(queries, documents))"""

#: Class of sentence-transformers -> the hub's pipeline and tag, and code that uses the model.
_KINDS = {
    "SentenceTransformer": ("sentence-similarity", "dense", _SEARCH),
    "CrossEncoder": (
        "text-ranking",
        "cross-encoder",
        f"""\
print(model.predict([("{_QUERY}", "{_DOCUMENT}")]))""",
    ),
    "SparseEncoder": ("feature-extraction", "sparse", _SEARCH),
    "MultiVectorEncoder": ("feature-extraction", "late-interaction", _SEARCH),
}
#: Kinds of irdistill's format -> class.
_IRDISTILL_KINDS = {"split-cross-encoder": "SplitCrossEncoderStudent", "kernel": "KernelStudent"}
_COMPARE = f"""\
(query,) = model.encode(["{_QUERY}"], "query")
print(model.compare(query, model.encode(["{_DOCUMENT}"], "document")))"""
_EXPORTS = {
    "onnx": ("onnx", "model.onnx"),
    "onnx-int8": ("onnx", "model_qint8.onnx"),
    "openvino": ("openvino", "openvino_model.xml"),
}


_SYNTHETIC = re.compile(r" (held-out synthetic )?queries\)")


@dataclass(frozen=True)
class _Kind:
    """The kind of model in a folder.

    Attributes:
        library, pipeline, name: the hub's names of library, pipeline and kind.
        code: code that loads and uses the model.
        notes: paragraphs for users of the model.
    """

    library: str
    pipeline: str
    name: str
    code: str
    notes: tuple[str, ...] = ()


def _kind_of(folder: Path) -> _Kind:
    """Read the kind of a model from the files of its folder.

    Raises:
        ModelError: the kind is unknown.
    """
    place = _shown_path(folder)
    student = read_json(folder / STUDENT_FILE) if (folder / STUDENT_FILE).is_file() else {}
    if "kind" in student:
        if student["kind"] not in _IRDISTILL_KINDS:
            raise ModelError(
                f"{folder / STUDENT_FILE} says that the model is a {student['kind']}; one of"
                f" {', '.join(_IRDISTILL_KINDS)} was expected."
            )
        name = _IRDISTILL_KINDS[student["kind"]]
        code = (
            f'from irdistill.students import {name}\n\nmodel = {name}.load("{place}")\n{_COMPARE}'
        )
        return _Kind(
            "irdistill",
            "text-ranking",
            student["kind"],
            code,
            ("The model reranks. irdistill, which trained it, loads it.",),
        )
    settings = folder / "config_sentence_transformers.json"
    if not settings.is_file() and not (folder / "modules.json").is_file():
        code = (
            "from transformers import AutoModel, AutoTokenizer\n\n"
            f'tokenizer, model = AutoTokenizer.from_pretrained("{place}"),'
            f' AutoModel.from_pretrained("{place}")\n'
            f'print(model(**tokenizer("{_QUERY}", return_tensors="pt")).last_hidden_state.shape)'
        )
        return _Kind(
            "transformers",
            "feature-extraction",
            "backbone",
            code,
            ("The model is a backbone to train from; it is not a retriever.",),
        )
    saved = (read_json(settings) if settings.is_file() else {}).get(
        "model_type", "SentenceTransformer"
    )
    if saved not in _KINDS:
        raise ModelError(
            f"{settings} says that the model is a {saved}; one of {', '.join(_KINDS)} was expected."
        )
    pipeline, kind, use = _KINDS[saved]
    trust, notes = "", []
    if _needs_irdistill(folder):
        trust = ", trust_remote_code=True"
        notes.append(
            "The model has a vector for each word of its corpus, which irdistill adds to the"
            " query's vector: irdistill must be installed, and `trust_remote_code=True` lets"
            " sentence-transformers load that class from it. This folder contains no code."
        )
    exported = folder / "irdistill_export.json"
    form = read_json(exported).get("format") if exported.is_file() else None
    if form in _EXPORTS:
        backend, file = _EXPORTS[form]
        extra = "optimum-intel" if backend == "openvino" else "optimum-onnx"
        notes.append(
            f"The folder also contains the network as `{file}`. After `pip install {extra}`"
            f' `{saved}("{place}", backend="{backend}", model_kwargs={{"file_name":'
            f' "{file}"}}{trust})` runs it; the code above runs the weights in PyTorch.'
        )
    code = f'from sentence_transformers import {saved}\n\nmodel = {saved}("{place}"{trust})\n{use}'
    return _Kind("sentence-transformers", pipeline, kind, code, tuple(notes))


def _needs_irdistill(folder: Path) -> bool:
    """Whether the class of any module of the model is in irdistill."""
    return any(
        "irdistill." in path.read_text(encoding="utf-8")
        for path in (folder / "modules.json", folder / "router_config.json")
        if path.is_file()
    )


def _shown_path(folder: Path) -> str:
    """The folder's path, relative if it is below the current folder."""
    whole = folder.expanduser().resolve()
    return (whole.relative_to(Path.cwd()) if whole.is_relative_to(Path.cwd()) else whole).as_posix()


def write_card(
    evaluation: Evaluation, system: str, folder: str | Path, beside: Path | None = None
) -> Path:
    """Write the card of a model into its folder, which is then ready to push to the hub.

    Args:
        beside: folder of the file of figures, which may contain generated collections.

    Raises:
        ModelError: the folder has no known model.
        OutputExistsError: it has a README.md that irdistill did not write.
    """
    folder = Path(folder)
    check_model_folder(folder)
    path = folder / NAME
    if path.is_file() and MARK not in path.read_text(encoding="utf-8"):
        raise OutputExistsError(
            f"{path} was not written by irdistill and is left as it is; move it away to write a"
            " card with figures."
        )
    write_file(path, card_text(evaluation, system, folder, beside))
    return path


def card_text(evaluation: Evaluation, system: str, folder: Path, beside: Path | None = None) -> str:
    """The text of the card: metadata for the hub, then tables, use and training."""
    from huggingface_hub import EvalResult, ModelCardData

    kind = _kind_of(folder)
    rows = tuple(row for row in evaluation.rows if row.system == system)
    names = short_names(evaluation.datasets)
    synthetic = {dataset for dataset in evaluation.datasets if is_synthetic(dataset, beside)}
    results = [
        EvalResult(
            task_type="information-retrieval",
            task_name="Information Retrieval",
            dataset_type=names[row.dataset],
            dataset_name=names[row.dataset],
            metric_type=metric_name(row.measure) or row.measure.lower(),
            metric_name=row.measure,
            metric_value=row.value,
        )
        for row in rows
        if row.dataset not in synthetic
    ]
    tags = [
        kind.library,
        kind.pipeline,
        kind.name,
        "information-retrieval",
        "knowledge-distillation",
    ]
    data = ModelCardData(
        library_name=kind.library,
        pipeline_tag=kind.pipeline,
        tags=list(dict.fromkeys(tags)),
        model_name=system if results else None,
        eval_results=results or None,
    )
    lines = [
        "---",
        data.to_yaml().rstrip(),
        "---",
        MARK,
        "",
        f"# {system}",
        "",
        f"A {kind.name} model for retrieval, trained with irdistill {__version__}.",
        "",
    ]
    judged = tuple(row for row in rows if row.dataset not in synthetic)
    if judged:
        lines += ["## Figures", "", _tables(judged), ""]
    if synthetic:
        text = _tables(tuple(row for row in rows if row.dataset in synthetic))
        lines += [
            "## Figures on synthetic queries",
            "",
            "These queries were generated from the documents and held out from training. They show"
            " whether training worked, and are no benchmark: nobody judged them, and people ask"
            " other questions.",
            "",
            _SYNTHETIC.sub(" synthetic queries)", text),
            "",
        ]
    lines += ["## Use", "", "```python", kind.code, "```", ""]
    for note in (
        "The path is that of the folder on the machine that wrote this card; after `hf upload`"
        " replace it with the model's id on the hub.",
        *kind.notes,
    ):
        lines += [note, ""]
    lines += _training(folder.parent / "training.json")
    return "\n".join(lines).rstrip() + "\n"


def _tables(rows: tuple[Row, ...]) -> str:
    return render_markdown(Evaluation(rows).findings(), level=4).strip()


def _training(path: Path) -> list[str]:
    """What the model learned from, if training.json is next to its folder."""
    if not path.is_file():
        return []
    identity: dict[str, Any] = read_json(path).get("identity", {})
    options, student = identity.get("options", {}), identity.get("student", {})
    collection = str(identity.get("collection", {}).get("id") or "")
    facts = {
        "collection": short_names([collection])[collection],
        "loss": identity.get("loss"),
        "initialized from": student.get("model"),
        "scores": ", ".join(identity.get("scores", [])),
        "steps": options.get("steps"),
        "queries per step": options.get("batch_size"),
        "documents per query": options.get("list_size"),
        "learning rate": options.get("learning_rate"),
        "seed": options.get("seed"),
    }
    return [
        "## Training",
        "",
        *(f"- {name}: `{value}`" for name, value in facts.items() if value not in (None, "")),
        "",
    ]
