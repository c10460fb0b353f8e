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
from irdistill.evaluation.reporting.rendering import render_markdown, render_template
from irdistill.modeling.model_files import STUDENT_FILE, check_model_folder
from irdistill.storage.files import read_json
from irdistill.storage.ownership import write_file

NAME = "README.md"
MARK = "<!-- written by irdistill report -->"

_QUERY = "how do I merge two dictionaries"
_DOCUMENT = "dict.update merges another mapping into this one"
#: Class of sentence-transformers -> the hub's pipeline and tag.
_KINDS = {
    "SentenceTransformer": ("sentence-similarity", "dense"),
    "CrossEncoder": ("text-ranking", "cross-encoder"),
    "SparseEncoder": ("feature-extraction", "sparse"),
    "MultiVectorEncoder": ("feature-extraction", "late-interaction"),
}
#: Kinds of irdistill's format -> class.
_IRDISTILL_KINDS = {"split-cross-encoder": "SplitCrossEncoderStudent", "kernel": "KernelStudent"}
_SYNTHETIC = re.compile(r" (held-out synthetic )?queries\)")


@dataclass(frozen=True)
class _Kind:
    """The kind of model in a folder.

    Attributes:
        library, pipeline, name: the hub's names of library, pipeline and kind.
        cls: the class that loads the model.
        trust: further argument of the class.
        needs_irdistill: whether the class of a module is in irdistill, not in the folder.
    """

    library: str
    pipeline: str
    name: str
    cls: str = ""
    trust: str = ""
    needs_irdistill: bool = False


def write_card(
    evaluation: Evaluation, system: str, folder: str | Path, beside: Path | None = None
) -> Path:
    """Write the card of a model into its folder, which is then ready to push to the hub.

    Args:
        beside: folder of the file of figures, which may contain generated collections.
    """
    folder = Path(folder)
    check_model_folder(folder)
    path = folder / NAME
    if path.is_file() and MARK not in path.read_text(encoding="utf-8"):
        raise OutputExistsError(
            f"{path} was not written by irdistill and is left as it is; move it away to write a"
            " card with figures."
        )
    kind = _kind_of(folder)
    rows = [row for row in evaluation.rows if row.system == system]
    generated = {dataset for dataset in evaluation.datasets if is_synthetic(dataset, beside)}
    judged = [row for row in rows if row.dataset not in generated]
    synthetic = _tables([row for row in rows if row.dataset in generated])
    text = render_template(
        "model_card.md.j2",
        metadata=_metadata(kind, system, judged, short_names(evaluation.datasets)),
        system=system,
        kind=kind,
        version=__version__,
        figures=_tables(judged),
        synthetic_figures=_SYNTHETIC.sub(" synthetic queries)", synthetic),
        path=_shown_path(folder),
        query=_QUERY,
        document=_DOCUMENT,
        training=_training(folder.parent / "training.json"),
    )
    write_file(path, text.rstrip() + "\n")
    return path


def _kind_of(folder: Path) -> _Kind:
    """Read the kind of a model from the files of its folder."""
    student = read_json(folder / STUDENT_FILE) if (folder / STUDENT_FILE).is_file() else {}
    if "kind" in student:
        kind = _known(student["kind"], _IRDISTILL_KINDS, folder / STUDENT_FILE)
        return _Kind("irdistill", "text-ranking", kind, _IRDISTILL_KINDS[kind])
    settings = folder / "config_sentence_transformers.json"
    if not settings.is_file() and not (folder / "modules.json").is_file():
        return _Kind("transformers", "feature-extraction", "backbone")
    saved = read_json(settings) if settings.is_file() else {}
    cls = _known(saved.get("model_type", "SentenceTransformer"), _KINDS, settings)
    files = [folder / name for name in ("modules.json", "router_config.json")]
    needs_irdistill = any(
        '"irdistill.' in file.read_text(encoding="utf-8") for file in files if file.is_file()
    )
    has_code = any(folder.glob("*.py"))
    trust = ", trust_remote_code=True" if needs_irdistill or has_code else ""
    return _Kind("sentence-transformers", *_KINDS[cls], cls, trust, needs_irdistill)


def _known(kind: str, kinds: dict[str, Any], path: Path) -> str:
    if kind not in kinds:
        raise ModelError(
            f"{path} says that the model is a {kind}; one of {', '.join(kinds)} was expected."
        )
    return kind


def _shown_path(folder: Path) -> str:
    """The folder's path, relative if it is below the current folder."""
    whole = folder.expanduser().resolve()
    return (whole.relative_to(Path.cwd()) if whole.is_relative_to(Path.cwd()) else whole).as_posix()


def _metadata(kind: _Kind, system: str, rows: list[Row], names: dict[str, str]) -> str:
    """The part of the card that the hub reads."""
    from huggingface_hub import EvalResult, ModelCardData

    # a system that is compared with several baselines has a row for each, with the same value
    values = {(row.dataset, row.measure): row for row in rows}
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
        for row in values.values()
    ]
    tags = [kind.library, kind.pipeline, kind.name, "information-retrieval"]
    return ModelCardData(
        library_name=kind.library,
        pipeline_tag=kind.pipeline,
        tags=list(dict.fromkeys([*tags, "knowledge-distillation"])),
        model_name=system if results else None,
        eval_results=results or None,
    ).to_yaml()


def _tables(rows: list[Row]) -> str:
    return render_markdown(Evaluation(tuple(rows)).findings(), level=4).strip()


def _training(path: Path) -> dict[str, Any]:
    """What the model learned from, if training.json is next to its folder."""
    if not path.is_file():
        return {}
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
    return {name: value for name, value in facts.items() if value not in (None, "")}
