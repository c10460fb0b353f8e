"""Search with a question that depends on the conversation before it."""

import json
import tempfile
from pathlib import Path

from small_corpus import write_collection

import irdistill as ird

CONVERSATION = [
    ("How do I unpack an archive?", "With shutil.unpack_archive.", "shutil.unpack_archive"),
    ("How do I register a new format?", "With a function.", "shutil.register_unpack_format"),
    ("Which of them are supported?", "There is a list.", "shutil.get_unpack_formats"),
]

folder = write_collection(Path(tempfile.mkdtemp()), documents=2000)
history: list[dict[str, str]] = []
with (folder / "queries.jsonl").open("w", encoding="utf-8") as queries:
    for turn, (question, answer, _) in enumerate(CONVERSATION):
        queries.write(json.dumps({"_id": f"c-{turn}", "text": question, "history": history}) + "\n")
        history = [
            *history,
            {"role": "user", "text": question},
            {"role": "assistant", "text": answer},
        ]
judged = [f"c-{turn}\t{name}\t1" for turn, (_, _, name) in enumerate(CONVERSATION)]
for split in ("train", "test"):
    lines = ["query-id\tcorpus-id\tscore", *judged]
    (folder / "qrels" / f"{split}.tsv").write_text("\n".join(lines) + "\n")

questions = ird.load_collection(f"{folder}#test")
with_history = ird.rewrite(questions, history="newest questions")
runs = {
    "last turn": ird.retrieve(questions, "bm25"),
    "with history": ird.retrieve(with_history, "bm25"),
}
print(ird.evaluate(questions, runs, measures="RR@10 R@10", baseline="last turn"))
