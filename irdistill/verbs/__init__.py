"""The verbs: what irdistill does, each declared once as a typed function.

`CATALOG` lists them without importing them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from irdistill.verbs.declaration import Verb


class Entry(NamedTuple):
    """Where a verb is declared, and what it does.

    Attributes:
        in_recipes: whether a recipe may have a stage of this verb.
    """

    module: str
    function: str
    summary: str
    in_recipes: bool = True


_VERBS = "irdistill.verbs."
_RECIPES = "irdistill.recipes."
_CLI = "irdistill.cli."

#: The verbs by name, in the order of the help.
CATALOG: dict[str, Entry] = {
    "run": Entry(_RECIPES + "recipe_verbs", "run_recipe", "Run a recipe.", False),
    "retrieve": Entry(
        _VERBS + "search_verbs",
        "retrieve",
        "Retrieve the top documents of each query of a collection.",
    ),
    "search": Entry(
        _VERBS + "search_verbs",
        "search_text",
        "Search a corpus for one question and show the documents.",
        False,
    ),
    "score": Entry(_VERBS + "scoring_verbs", "score", "Score candidates with a teacher."),
    "estimate": Entry(
        _VERBS + "scoring_verbs",
        "estimate",
        "Estimate what scoring would take, from a sample; writes nothing.",
        False,
    ),
    "fuse": Entry(
        _VERBS + "run_verbs",
        "fuse",
        "Fuse runs of one collection: an ensemble of teachers, or a hybrid.",
    ),
    "mask": Entry(
        _VERBS + "run_verbs",
        "mask",
        "Flag unjudged documents that are probably relevant, so that they are never negatives.",
    ),
    "audit": Entry(
        _VERBS + "evaluation_verbs",
        "audit",
        "Audit teachers before training: is a teacher worth learning from, and how?",
    ),
    "train": Entry(
        _VERBS + "training_verbs", "train", "Train a student on the scores of teachers."
    ),
    "pretrain": Entry(
        _VERBS + "training_verbs",
        "pretrain",
        "Train a backbone to predict masked words of a corpus.",
    ),
    "terms": Entry(
        _VERBS + "training_verbs",
        "fit_terms",
        "Fit term vectors: distill BM25 into the query tower of a dense model in closed form.",
    ),
    "evaluate": Entry(
        _VERBS + "evaluation_verbs",
        "evaluate",
        "Evaluate runs as trec_eval does, with confidence intervals and tested differences.",
    ),
    "compare": Entry(
        _VERBS + "evaluation_verbs",
        "compare",
        "Compare losses over students, collections and seeds.",
    ),
    "choose": Entry(
        _VERBS + "evaluation_verbs",
        "choose",
        "Choose the training settings whose run is best; train takes them as ``chosen``.",
    ),
    "measure": Entry(
        _VERBS + "evaluation_verbs",
        "measure",
        "Measure the cost of systems: latency, throughput, operations, bytes.",
    ),
    "report": Entry(
        _VERBS + "evaluation_verbs",
        "report",
        "Write a report: a page, tables for a paper, a plot, MTEB results or a model card.",
        False,
    ),
    "benchmark": Entry(
        _VERBS + "evaluation_verbs",
        "benchmark",
        "Measure a model on a benchmark, dataset by dataset. A stopped benchmark resumes.",
        False,
    ),
    "rewrite": Entry(
        _VERBS + "query_verbs", "rewrite", "Make the questions of conversations stand alone."
    ),
    "split": Entry(
        _VERBS + "query_verbs",
        "split",
        "Split queries into folds for cross-validation; the turns of a conversation stay together.",
    ),
    "generate": Entry(
        _VERBS + "query_verbs",
        "generate",
        "Generate synthetic queries from a corpus, with or without a language model.",
    ),
    "filter": Entry(
        _VERBS + "query_verbs",
        "filter",
        "Keep the synthetic queries whose source passages a retriever and a teacher rank high.",
    ),
    "critic-curve": Entry(
        _VERBS + "query_verbs",
        "critic_curve",
        "Size and quality of synthetic queries at thresholds of the teacher's score.",
        False,
    ),
    "specialise": Entry(
        _RECIPES + "recipe_verbs",
        "specialise",
        "Specialise a retriever to a corpus, without labels, and report whether it helped.",
        False,
    ),
    "export": Entry(
        _VERBS + "training_verbs",
        "export",
        "Export a model to ONNX Runtime or OpenVINO and compare its scores.",
        False,
    ),
    "runs import": Entry(
        _VERBS + "run_verbs", "import_run", "Import a run or score file of another project.", False
    ),
    "runs export": Entry(
        _VERBS + "run_verbs",
        "export_run",
        "Export a run as a score file of another project.",
        False,
    ),
    "runs verify": Entry(
        _VERBS + "run_verbs",
        "verify_runs",
        "Read every byte of runs: checksums, counts, order. Exits with 1 if there is a problem.",
        False,
    ),
    "runs merge": Entry(
        _VERBS + "run_verbs",
        "merge_runs",
        "Join the shards of a run. Gaps, overlaps and different identities are refused.",
        False,
    ),
    "runs stats": Entry(
        _VERBS + "run_verbs",
        "run_stats",
        "Counts, depths and statistics of the scores of a run.",
        False,
    ),
    "runs diff": Entry(
        _VERBS + "run_verbs",
        "diff_runs",
        "How two runs differ: identity, queries, documents, scores, order.",
        False,
    ),
    "cards list": Entry(
        _CLI + "tool_verbs",
        "list_all_cards",
        "Print the name and description of every card.",
        False,
    ),
    "cards show": Entry(_CLI + "tool_verbs", "show_card", "Print a card.", False),
    "cards copy": Entry(
        _CLI + "tool_verbs",
        "copy_card",
        "Copy a card to a file or a folder, to edit it and give its path to a command.",
        False,
    ),
    "doctor": Entry(
        _CLI + "tool_verbs",
        "check_installation",
        "Report what is installed, what is missing, and the command that fixes it.",
        False,
    ),
}


def verb_names(prefix: str = "") -> list[str]:
    """The names of the verbs of a group of commands, without the prefix."""
    return [
        name.removeprefix(prefix)
        for name in CATALOG
        if name.startswith(prefix) and " " not in name.removeprefix(prefix)
    ]


def load_verb(name: str) -> Verb:
    """The declaration of a verb; imports its module."""
    from irdistill.verbs.declaration import declared_verb

    entry = CATALOG[name]
    return declared_verb(getattr(import_module(entry.module), entry.function))
