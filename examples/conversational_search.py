"""Search with the questions of a conversation: alone, with their history, and rewritten."""

import json
from pathlib import Path

import irdistill as ird

documents = {
    "d1": "Cats sleep for most of the day.",
    "d2": "Dogs need a walk every day.",
    "d3": "Dogs bark at strangers.",
    "d4": "Fish live under water.",
}
history = [
    {"role": "user", "text": "Tell me about dogs."},
    {"role": "assistant", "text": "Dogs are loyal animals."},
]
question = {"_id": "q1", "text": "What do they need?", "history": history}
folder = Path("out/conversation")
(folder / "qrels").mkdir(parents=True, exist_ok=True)
(folder / "corpus.jsonl").write_text(
    "".join(json.dumps({"_id": key, "text": text}) + "\n" for key, text in documents.items())
)
(folder / "queries.jsonl").write_text(
    json.dumps({**question, "rewrite": "What do dogs need every day?"}) + "\n"
)
(folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td2\t1\n")

views = {
    "last turn": ird.rewrite(str(folder), "last-turn"),
    "history": ird.rewrite(str(folder), history="newest questions"),
    "rewritten": ird.rewrite(str(folder), "human"),
}
runs = {name: ird.retrieve(view, "bm25", k=4) for name, view in views.items()}
for name, view in views.items():
    print(f"{name}: {view.queries['q1'].text!r}")
print(ird.evaluate(str(folder), runs, measures="RR@10", baseline="last turn").to_markdown())
