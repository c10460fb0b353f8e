"""A model card: the README.md of a model's folder, with the figures where the hub looks for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from irdistill import __version__
from irdistill.errors import IrdistillError
from irdistill.evaluation.evaluate import Evaluation
from irdistill.evaluation.report.mteb import metric_name
from irdistill.evaluation.report.tables import evaluation_markdown
from irdistill.files import read_json
from irdistill.models import check_model_folder
from irdistill.ownership import write_file

NAME = "README.md"
MARK = "<!-- written by irdistill report -->"

#: The class of sentence-transformers that a model is saved as -> pipeline of the hub, tag, and how it is used.
_KINDS = {
    "SentenceTransformer": ("sentence-similarity", "dense", """\
queries = model.encode_query(["how do I merge two dictionaries"])
documents = model.encode_document(["dict.update merges another mapping into this one"])
print(model.similarity(queries, documents))"""),
    "CrossEncoder": ("text-ranking", "cross-encoder", """\
print(model.predict([("how do I merge two dictionaries", "dict.update merges another mapping into this one")]))"""),
}
_KINDS["SparseEncoder"] = ("feature-extraction", "sparse", _KINDS["SentenceTransformer"][2])
_KINDS["MultiVectorEncoder"] = ("feature-extraction", "late-interaction", _KINDS["SentenceTransformer"][2])


def write_card(found: Evaluation, system: str, folder: str | Path) -> Path:
    """Write the card of a model in sentence-transformers' format, its folder then being ready to push to the hub.

    Raises:
        IrdistillError: the folder holds no such model, or a README.md that was not written here.
    """
    folder = Path(folder)
    check_model_folder(folder)
    path = folder / NAME
    if path.is_file() and MARK not in path.read_text(encoding="utf-8"):
        raise IrdistillError(f"{path} was not written by irdistill and is left as it is; move it away to have a card with figures.")
    write_file(path, card(found, system, folder))
    return path


def card(found: Evaluation, system: str, folder: Path) -> str:
    """The text of the card: what the hub reads, then tables, use and training."""
    from huggingface_hub import EvalResult, ModelCardData

    settings = folder / "config_sentence_transformers.json"
    saved = (read_json(settings) if settings.is_file() else {}).get("model_type", "SentenceTransformer")
    if saved not in _KINDS:
        raise IrdistillError(f"{settings} says that the model is a {saved}; one of {', '.join(_KINDS)} was expected.")
    pipeline, kind, use = _KINDS[saved]
    own = Evaluation(tuple(row for row in found.rows if row.system == system))
    results = [
        EvalResult(task_type="information-retrieval", task_name="Information Retrieval", dataset_type=row.dataset,
                   dataset_name=row.dataset, metric_type=metric_name(row.measure) or row.measure.lower(), metric_name=row.measure,
                   metric_value=row.value)
        for row in found.rows if row.system == system
    ]
    data = ModelCardData(library_name="sentence-transformers", pipeline_tag=pipeline, model_name=system, eval_results=results,
                         tags=["sentence-transformers", pipeline, kind, "information-retrieval", "knowledge-distillation"])
    lines = ["---", data.to_yaml().rstrip(), "---", MARK, "", f"# {system}", "",
             f"A {kind} model for retrieval, distilled with irdistill {__version__}.", "", "## Figures", "",
             evaluation_markdown(own).replace("\n### ", "\n#### ").rstrip(), "", "## Use", "", "```python",
             f"from sentence_transformers import {saved}", "", f'model = {saved}("path or hub id of this model")', use, "```", "",
             *_training(folder.parent / "training.json")]
    return "\n".join(lines).rstrip() + "\n"


def _training(path: Path) -> list[str]:
    """What the model learnt from, where the training's own record lies beside the folder."""
    if not path.is_file():
        return []
    identity: dict[str, Any] = read_json(path).get("identity", {})
    options, student = identity.get("options", {}), identity.get("student", {})
    facts = {
        "collection": identity.get("collection", {}).get("id"), "loss": identity.get("loss"), "begun from": student.get("model"),
        "scores": ", ".join(identity.get("scores", [])), "steps": options.get("steps"), "queries a step": options.get("batch_size"),
        "documents a query": options.get("list_size"), "learning rate": options.get("learning_rate"), "seed": options.get("seed"),
    }
    return ["## Training", "", *(f"- {name}: `{value}`" for name, value in facts.items() if value not in (None, "")), ""]
