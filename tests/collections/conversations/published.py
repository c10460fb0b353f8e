"""Tiny conversations in the published layouts. The same talk about kites, in words of our own, told
by each layout.

A word that begins with ``SECRET`` may reach neither text nor history of a question it is secret to.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

ASKED = ["what keeps a kite up?", "and its tail?", "who flew one first?"]
ANSWERS = [
    "The wind does, answer one.",
    "It steadies it, answer two.",
    "Nobody knows, answer three.",
]
REWRITES = [
    "REWRITE what keeps a kite up?",
    "REWRITE what is the tail of a kite for?",
    "REWRITE who flew a kite first?",
]
PASSAGES = {"p1": "Wind holds kites.", "p2": "A tail steadies.", "p3": "Kites are old."}


def dump(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def lines(path: Path, values: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")


def passages(path: Path, ids: dict[str, str] | None = None) -> None:
    lines(path, [{"id": key, "contents": text} for key, text in (ids or PASSAGES).items()])


def context(turn: int) -> list[str]:
    return [text for pair in zip(ASKED[:turn], ANSWERS[:turn], strict=True) for text in pair]


def qrecc(folder: Path) -> None:
    dump(
        folder / "scai-qrecc21-test-turns.json",
        [
            {
                "Context": context(turn),
                "Question": ASKED[turn],
                "Truth_rewrite": REWRITES[turn],
                "Truth_answer": ANSWERS[turn],
                "Truth_passages": [f"p{turn + 1}"] if turn < 2 else [],
                "Conversation_no": 7,
                "Turn_no": turn + 1,
                "Conversation_source": "quac",
            }
            for turn in range(3)
        ],
    )
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / "passages.zip", "w") as archive:
        archive.writestr(
            "paragraph/commoncrawl/a.jsonl",
            json.dumps({"id": "p1", "contents": PASSAGES["p1"]}) + "\n",
        )
        archive.writestr(
            "paragraph/wayback/b.jsonl",
            "".join(
                json.dumps({"id": key, "contents": PASSAGES[key]}) + "\n" for key in ("p2", "p3")
            ),
        )


def topiocqa(folder: Path) -> None:
    lines(
        folder / "data" / "topiocqa_valid.jsonl",
        [
            {
                "Conversation_no": 1,
                "Turn_no": turn + 1,
                "Question": ASKED[turn],
                "Answer": ANSWERS[turn],
                "Topic": "Kite",
                "Topic_section": "Tail",
                "Rationale": "SECRET rationale",
                "is_nq": turn == 0,
                "Context": context(turn),
                "Additional_answers": [{"Answer": "SECRET other answer"}],
                "Gold_passage": (
                    {
                        "id": f"wiki:{turn + 1}",
                        "title": "Kite [SEP] Tail",
                        "text": "SECRET passage",
                    }
                    if turn < 2
                    else {}
                ),
            }
            for turn in range(3)
        ],
    )
    dump(
        folder / "topiocqa_rewrites_t5_qrecc_dev.json",
        [
            {
                "conv_id": 1,
                "turn_id": turn + 1,
                "question": REWRITES[turn],
                "answers": [ANSWERS[turn]],
            }
            for turn in range(3)
        ],
    )
    (folder / "full_wiki_segments.tsv").write_text(
        "id\ttext\ttitle\n"
        + "".join(
            f'{number}\t"{text} So it is ""said""."\tKite [SEP] Tail\n'
            for number, text in enumerate(PASSAGES.values(), 1)
        )
    )


def mtrag(folder: Path) -> None:
    tasks = folder / "mtrag-human" / "retrieval_tasks" / "sky"
    shown = [f"|user|: {text}" for text in ASKED]
    for kind, texts in (
        ("lastturn", shown),
        ("questions", ["\n".join(shown[: turn + 1]) for turn in range(3)]),
        ("rewrite", [f"|user|: {text}" for text in REWRITES]),
    ):
        lines(
            tasks / f"sky_{kind}.jsonl",
            [{"_id": f"c0<::>{turn + 1}", "text": text} for turn, text in enumerate(texts)],
        )
    (tasks / "qrels").mkdir()
    (tasks / "qrels" / "dev.tsv").write_text(
        "query-id\tcorpus-id\tscore\nc0<::>1\tp1\t1\nc0<::>2\tp2\t1\n"
    )
    corpora = folder / "corpora" / "passage_level"
    corpora.mkdir(parents=True)
    with zipfile.ZipFile(corpora / "sky.jsonl.zip", "w") as archive:
        archive.writestr(
            "sky.jsonl",
            "".join(
                json.dumps({"_id": key, "text": text, "title": "", "url": ""}) + "\n"
                for key, text in PASSAGES.items()
            ),
        )


def mtrag_answers(folder: Path) -> None:
    """The agent's answers, as the generation tasks of the first release contain them."""
    turns = [
        {"speaker": "user" if place % 2 == 0 else "agent", "text": text}
        for place, text in enumerate(context(3))
    ]
    lines(
        folder / "mtrag-human" / "generation_tasks" / "reference.jsonl",
        [
            {
                "task_id": f"c0::{turn + 1}",
                "contexts": [{"text": "SECRET context"}],
                "input": turns[: 2 * turn + 1],
                "targets": [{"speaker": "agent", "text": ANSWERS[turn]}],
            }
            for turn in range(3)
        ],
    )


def ikat(folder: Path, year: int = 2023) -> None:
    turns, user, known = (
        ("turns", "utterance", {"1": "SECRET I am afraid of heights."})
        if year < 2025
        else ("responses", "user_utterance", ["SECRET I am afraid of heights."])
    )
    topics = folder / str(year) / "data" / f"{year}_test_topics.json"
    dump(
        topics,
        [
            {
                "number": "9-1",
                "title": "SECRET title",
                "ptkb": known,
                turns: [
                    {
                        "turn_id": turn + 1,
                        user: ASKED[turn],
                        "resolved_utterance": REWRITES[turn],
                        "response": ANSWERS[turn],
                        "response_provenance": ["p3"],
                    }
                    for turn in range(3)
                ],
            }
        ],
    )
    (folder / str(year) / "evaluation").mkdir()
    (folder / str(year) / "evaluation" / "qrels").write_text(
        "See the site of TREC for the judgments.\n"
    )
    (folder / f"{year}-qrels.all-turns.txt").write_text(
        "9-1_1 0 p1 3\n9-1_2 0 p2 0\n9-1_2 0 p3 1\n"
    )
    passages(folder / "passages" / "ikat_00.jsonl")


def cast(folder: Path, year: int) -> None:
    """Topic 31 with three turns: 2019 without answers, 2020 with ids of passages, 2021 with
    passages, 2022 as a tree.
    """
    rewritten = [
        {
            "manual_rewritten_utterance": text,
            "automatic_rewritten_utterance": "REWRITE by a machine",
        }
        for text in REWRITES
    ]
    raw = [{"number": turn + 1, "raw_utterance": text} for turn, text in enumerate(ASKED)]
    qrels = "31_1 0 p1 4\n31_2 0 p2 2\n"
    if year == 2019:
        dump(
            folder / "2019/data/evaluation/evaluation_topics_v1.0.json",
            [{"number": 31, "title": "SECRET title", "turn": raw}],
        )
        (folder / "2019/data/evaluation/evaluation_topics_annotated_resolved_v1.0.tsv").write_text(
            "".join(f"31_{turn + 1}\t{text}\n" for turn, text in enumerate(REWRITES))
        )
        (folder / "2019/data/2019qrels.txt").write_text(qrels)
    elif year == 2020:
        manual = [
            {**turn, **more, "manual_canonical_result_id": "p3"}
            for turn, more in zip(raw, rewritten, strict=True)
        ]
        automatic = [
            {**turn, "automatic_canonical_result_id": f"p{place + 1}"}
            for place, turn in enumerate(raw)
        ]
        dump(
            folder / "2020/2020_manual_evaluation_topics_v1.0.json",
            [{"number": 31, "turn": manual}],
        )
        dump(
            folder / "2020/2020_automatic_evaluation_topics_v1.0.json",
            [{"number": 31, "turn": automatic}],
        )
        (folder / "2020/2020qrels.txt").write_text(qrels)
    elif year == 2021:
        turns = [
            {
                **turn,
                **more,
                "passage": ANSWERS[place],
                "canonical_result_id": "p1",
                "passage_id": 1,
            }
            for place, (turn, more) in enumerate(zip(raw, rewritten, strict=True))
        ]
        dump(
            folder / "2021/2021_manual_evaluation_topics_v1.0.json", [{"number": 31, "turn": turns}]
        )
        (folder / "2021/trec-cast-qrels-docs.2021.qrel").write_text(qrels)
    else:
        dump(
            folder / "2022/2022_evaluation_topics_tree_v1.0.json",
            [
                {
                    "number": 31,
                    "turn": [
                        {
                            "number": "1-1",
                            "participant": "User",
                            "utterance": ASKED[0],
                            "manual_rewritten_utterance": REWRITES[0],
                        },
                        {
                            "number": "1-2",
                            "parent": "1-1",
                            "participant": "System",
                            "response": ANSWERS[0],
                            "provenance": ["p1"],
                        },
                        {
                            "number": "1-3",
                            "parent": "1-2",
                            "participant": "User",
                            "utterance": "SECRET of another branch",
                            "manual_rewritten_utterance": "REWRITE of another branch",
                        },
                        {
                            "number": "1-4",
                            "parent": "1-3",
                            "participant": "System",
                            "response": "SECRET answer of another branch",
                        },
                        {
                            "number": "2-1",
                            "parent": "1-2",
                            "participant": "User",
                            "utterance": ASKED[1],
                            "manual_rewritten_utterance": REWRITES[1],
                        },
                        {
                            "number": "3-1",
                            "parent": "2-1",
                            "participant": "System",
                            "response": ANSWERS[1],
                            "provenance": [],
                        },
                        {
                            "number": "3-2",
                            "parent": "3-1",
                            "participant": "User",
                            "utterance": ASKED[2],
                            "manual_rewritten_utterance": REWRITES[2],
                        },
                        {
                            "number": "3-3",
                            "parent": "3-2",
                            "participant": "System",
                            "response": ANSWERS[2],
                        },
                    ],
                }
            ],
        )
        (folder / "2022/cast2022.qrel").write_text(
            "31_1-1 0 p1 4\n31_2-1 0 p2 2\n31_1-3 0 p3 0\n31_3-2 0 p3 0\n"
        )
    passages(folder / "passages.jsonl")
