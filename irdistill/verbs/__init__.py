"""The verbs: what irdistill does, each declared once as a typed function.

`CATALOG` lists them without importing them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from irdistill.verbs.declaration import Verb


class CatalogEntry(NamedTuple):
    """Where a verb is declared, and what it does.

    Attributes:
        in_recipes: whether a recipe may have a stage of this verb.
    """

    module: str
    function: str
    in_recipes: bool
    summary: str


#: Verb, module and function, whether recipes have it; and the summary. In the order of the help.
_VERBS = """
run | recipes.recipe_verbs:run_recipe
    Run a recipe.
collect | verbs.collection_verbs:collect | recipes
    Collect documents into a collection: files, tables, datasets, other collections.
retrieve | verbs.search_verbs:retrieve | recipes
    Retrieve the top documents of each query of a collection.
search | verbs.search_verbs:search_text
    Search a bundle or a corpus for a question and show the documents.
explain | verbs.search_verbs:explain
    Explain why a document is in a ranking, part by part.
score | verbs.scoring_verbs:score | recipes
    Score candidates with a teacher.
estimate | verbs.scoring_verbs:estimate
    Estimate what scoring would take, from a sample; writes nothing.
fuse | verbs.run_verbs:fuse | recipes
    Fuse runs of one collection: an ensemble of teachers, or a hybrid.
mask | verbs.run_verbs:mask | recipes
    Flag unjudged documents that are probably relevant, so that they are never negatives.
audit | verbs.evaluation_verbs:audit | recipes
    Audit teachers before training: is a teacher worth learning from, and how?
rank-students | verbs.comparison_verbs:rank_students | recipes
    Rank students before training, by how near their scores are to the teacher's.
train | verbs.training_verbs:train | recipes
    Train a student on the scores of teachers.
pretrain | verbs.training_verbs:pretrain | recipes
    Train a backbone to predict masked words of a corpus, or the states of a teacher.
align | verbs.alignment_verbs:align | recipes
    Align a student with a teacher: learn its vectors from raw texts.
terms | verbs.training_verbs:fit_terms | recipes
    Fit term vectors: distill BM25 into the query tower of a dense model in closed form.
static | verbs.training_verbs:fit_static | recipes
    Fit a static query tower: a vector for each token, in closed form, no transformer.
compress | verbs.training_verbs:compress | recipes
    Fit linear layers behind a dense model, for document vectors of bits, bytes or few numbers.
merge | verbs.merge_verbs:merge | recipes
    Merge models: average the weights of models of one architecture.
retokenize | verbs.tokenizer_verbs:retokenize | recipes
    Give a model another tokenizer: its token embeddings are converted by strings.
evaluate | verbs.evaluation_verbs:evaluate | recipes
    Evaluate runs as trec_eval does, with confidence intervals and tested differences.
compare | verbs.comparison_verbs:compare | recipes
    Compare losses over students, collections and seeds.
diversity | verbs.comparison_verbs:measure_diversity | recipes
    Measure how varied the lists of runs are, and how much of the corpus they reach.
choose | verbs.comparison_verbs:choose | recipes
    Choose the training settings whose run is best; train takes them as ``chosen``.
measure | verbs.evaluation_verbs:measure | recipes
    Measure the cost of systems: latency, throughput, operations, bytes.
report | verbs.evaluation_verbs:report
    Write a report: a page, tables for a paper, a plot, MTEB results or a model card.
view | view.view_verbs:view_results
    Show results on a local web page: watch jobs, ask models, compare rankings, judge documents.
benchmark | verbs.evaluation_verbs:benchmark
    Measure a model on a benchmark, dataset by dataset. A stopped benchmark resumes.
rewrite | verbs.query_verbs:rewrite | recipes
    Make the questions of conversations stand alone.
split | verbs.query_verbs:split | recipes
    Split queries into folds for cross-validation; the turns of a conversation stay together.
generate | verbs.query_verbs:generate | recipes
    Generate synthetic queries from a corpus, with or without a language model.
filter | verbs.query_verbs:filter | recipes
    Keep the synthetic queries whose source passages a retriever and a teacher rank high.
critic-curve | verbs.query_verbs:critic_curve
    Size and quality of synthetic queries at thresholds of the teacher's score.
specialise | recipes.recipe_verbs:specialise
    Specialise a retriever to a corpus, without labels, and report whether it helped.
package | verbs.package_verbs:package | recipes
    Package a model with the index of a corpus, to search with or for a search engine.
export | verbs.training_verbs:export
    Export a whole model to ONNX Runtime or OpenVINO and compare its vectors.
runs import | verbs.run_verbs:import_run
    Import a run or score file of another project.
runs export | verbs.run_verbs:export_run
    Export a run as a score file of another project.
runs verify | verbs.run_verbs:verify_runs
    Read every byte of runs: checksums, counts, order. Exits with 1 if there is a problem.
runs merge | verbs.run_verbs:merge_runs
    Join the shards of a run. Gaps, overlaps and different identities are refused.
runs stats | verbs.run_verbs:run_stats
    Counts, depths and statistics of the scores of a run.
runs diff | verbs.run_verbs:diff_runs
    How two runs differ: identity, queries, documents, scores, order.
judgments export | verbs.judgment_verbs:export_judgments
    Write what people judged as a new file of qrels.
judgments agreement | verbs.judgment_verbs:judgment_agreement
    How far people agree who judged the same pairs, with Cohen's kappa.
cards list | cli.tool_verbs:list_all_cards
    Print the name and description of every card.
cards show | cli.tool_verbs:show_card
    Print a card.
cards copy | cli.tool_verbs:copy_card
    Copy a card to a file or a folder, to edit it and give its path to a command.
doctor | cli.tool_verbs:check_installation
    Report what is installed, what is missing, and the command that fixes it.
"""


def _catalog() -> dict[str, CatalogEntry]:
    lines = _VERBS.strip().splitlines()
    catalog = {}
    for line, summary in zip(lines[::2], lines[1::2], strict=True):
        name, place, *recipes = line.split(" | ")
        module, _, function = place.partition(":")
        catalog[name] = CatalogEntry(
            f"irdistill.{module}", function, bool(recipes), summary.strip()
        )
    return catalog


CATALOG = _catalog()


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
