"""Score files as other projects publish them, and what they hold."""

from __future__ import annotations

TREC = b"7 Q0 10 1 9.5 tag\n7 Q0 20 2 -1.25 tag\n8 Q0 20 1 3 tag\n"
TSV = b"query-id\tcorpus-id\tscore\n7\t10\t9.5\n7\t20\t-1.25\n8\t20\t3\n"
QRELS_LIKE = b"7 0 10 9.5\n7 0 20 -1.25\n\n8 0 20 3\n"
TRIPLES = b"9.5\t-1.25\t7\t10\t20\n3\t0.5\t8\t20\t30\n9.5\t2\t7\t10\t40\n"
COLBERT = b"[7, [10, 9.5], [20, -1.25]]\n[8, [20, 3.0]]\n[7, [20, -1.25], [40, 2]]\n"
FLAG = (
    b'{"query": "what purrs", "pos": ["cats purr"], "neg": ["Dogs dogs bark", "birds sing"],'
    b' "pos_scores": [9.5], "neg_scores": [-1.25, 2], "prompt": "", "type": "normal"}\n{"query": "'
    b' what barks", "pos": ["dogs bark"], "neg": [], "pos_scores": [3], "neg_scores": []}\n'
)
TEVATRON = (
    b'{"query_id": "7", "query": "what purrs", "positive_passages": [{"docid": "10", "title": "",'
    b' "text": "cats purr", "score": 9.5}], "negative_passages": [{"docid": "20", "title": "Dogs",'
    b' "text": "dogs bark", "score": -1.25}]}\n{"query_id": "8", "query": "what barks",'
    b' "positive_passages": [{"docid": "20", "title": "Dogs", "text": "dogs bark", "score": 3}],'
    b' "negative_passages": []}\n'
)
DISCO = b'{"7": {"10": 9.5, "20": -1.25},\n "8": {"20": 3}}'
PYLATE = (
    b'{"query_id": "7", "document_ids": ["10", "20"], "scores": [9.5, -1.25]}\n{"query_id": "8",'
    b' "document_ids": "[20]", "scores": "[3.0]"}\n'
)

TWO = {"7": {"10": 9.5, "20": -1.25}, "8": {"20": 3.0}}
THREE = {"7": {"10": 9.5, "40": 2.0, "20": -1.25}, "8": {"20": 3.0}}
BY_HAND = [
    ("trec", "a.run", TREC, TWO),
    ("tsv", "a.tsv", TSV, TWO),
    ("tsv", "b.tsv", QRELS_LIKE, TWO),
    ("triples", "a.tsv", TRIPLES, {"7": THREE["7"], "8": {"20": 3.0, "30": 0.5}}),
    ("colbert", "examples.json", COLBERT, THREE),
    ("flagembedding", "a.jsonl", FLAG, THREE),
    ("tevatron", "a.jsonl", TEVATRON, TWO),
    ("disco", "scores.json", DISCO, TWO),
    ("pylate", "a.jsonl", PYLATE, TWO),
    ("rank-distillm", "x.run", TREC, TWO),
]
