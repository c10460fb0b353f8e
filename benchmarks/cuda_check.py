"""Check a machine with CUDA: the same scores as on the CPU, FAISS on the GPU, and speed.

Parity compares tiny models with random weights of every kind of student and of local teacher on the
GPU, in float32 and bfloat16, with the same model on the CPU in float32. Speed runs
`benchmarks/training.py` and `benchmarks/scoring.py` next to sentence-transformers. Run with

    python benchmarks/cuda_check.py --json out/cuda.json

Without CUDA it names what it skipped and exits with 0; `--dry-run` then runs the parity checks with
the CPU on both sides, in float32, to test this script. It exits with 1 if a check fails.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # for the tiny models of the tests

TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}
"""Largest difference of a score, as a share of the spread of the CPU's scores."""
QUERIES, DOCUMENTS = 8, 64
FAISS_DOCUMENTS, NEIGHBORS = 4000, 10
OVERLAP = 0.99
STUDENTS: dict[str, dict[str, Any]] = {
    "dense": {},
    "sparse": {},
    "late-interaction": {"dimension": 16},
    "cross-encoder": {},
    "split-cross-encoder": {"split_layer": 1, "dimension": 16},
    "kernel": {"dimension": 16},
}
PROMPT = {"template": "{query} {document}", "positive": "yes", "negative": "no"}


class Report:
    """Results by name: figures with ``ok``, or the reason why a check was skipped."""

    def __init__(self) -> None:
        self.results: dict[str, dict[str, Any]] = {}

    def run(self, name: str, check: Callable[[], dict[str, Any]]) -> None:
        """Run a check and print its result; an exception is a failure."""
        start = time.perf_counter()
        try:
            result = check()
        except Exception as error:
            result = {"ok": False, "error": f"{type(error).__name__}: {error}"}
        result["seconds"] = round(time.perf_counter() - start, 2)
        self.results[name] = result
        print(f"{name:44} {json.dumps(result)}", flush=True)

    def skip(self, name: str, reason: str) -> None:
        """Record that a check was skipped."""
        self.results[name] = {"skipped": reason}
        print(f"{name:44} skipped: {reason}", flush=True)


def tiny_collection(documents: int = DOCUMENTS) -> Any:
    """Random words; each query is a part of one document."""
    from irdistill.collections import Collection
    from tests.students.tiny import WORDS

    random = np.random.default_rng(3)
    texts = {f"d{i}": " ".join(random.choice(WORDS, 3 + i % 17)) for i in range(documents)}
    queries = {f"q{i}": " ".join(texts[f"d{i}"].split()[:3]) for i in range(QUERIES)}
    return Collection.from_dicts("tiny", texts, queries, {})


def compare(expected: np.ndarray, scores: np.ndarray, precision: str) -> dict[str, Any]:
    """The largest difference relative to the spread of the expected scores."""
    spread = float(np.ptp(expected))
    difference = float(np.abs(expected - scores).max()) / max(spread, 1e-12)
    correlation = float(np.corrcoef(expected, scores)[0, 1])
    ok = bool(np.isfinite(scores).all() and difference <= TOLERANCE[precision])
    return {"ok": ok, "difference": difference, "correlation": correlation}


def student_scores(kind: str, backbone: Path, precision: str, device: str) -> np.ndarray:
    """The list scores of one training batch, and of its gradient the norm."""
    import torch

    from irdistill.students import build_student
    from irdistill.training.data.collate import make_collator
    from irdistill.training.data.list_sampler import ListBatch
    from irdistill.training.objectives.batch_scores import score_batch
    from irdistill.training.objectives.encode import Encoder

    collection = tiny_collection()
    student = build_student(kind, str(backbone), device=device, **STUDENTS[kind])
    student.model.eval()
    rows = np.arange(DOCUMENTS).reshape(QUERIES, -1)
    lists = ListBatch(
        queries=np.arange(QUERIES),
        rows=rows,
        teacher=np.zeros((1, *rows.shape), np.float32),
        labels=np.zeros(rows.shape, np.float32),
        not_negatives=[np.empty(0, np.int64)] * QUERIES,
    )
    sampler: Any = argparse.Namespace(query_ids=list(collection.queries))
    batch = make_collator(collection, sampler, student).collate(lists)
    scores = score_batch(Encoder(student, getattr(torch, precision)), batch, False).student
    scores.mean().backward()
    if not all(p.grad.isfinite().all() for p in student.train_parameters() if p.grad is not None):
        raise ValueError("a gradient is not finite")
    return scores.detach().float().cpu().numpy().ravel()


def student_parity(kind: str, backbone: Path, precision: str, device: str) -> dict[str, Any]:
    """A student on the device and on the CPU."""
    expected = student_scores(kind, backbone, "float32", "cpu")
    return compare(expected, student_scores(kind, backbone, precision, device), precision)


def teacher_models(folder: Path) -> Iterator[tuple[str, Path]]:
    """Local teachers by kind: saved students, which are retrievers and cross-encoders, and language
    models.
    """
    from irdistill.students import build_student
    from tests.students.tiny import tiny_backbone
    from tests.teachers.families import tiny_causal, tiny_classifier, tiny_t5

    backbone = tiny_backbone(folder / "backbone", layers=2)
    for kind, settings in STUDENTS.items():
        if kind != "cross-encoder":
            student = build_student(kind, str(backbone), device="cpu", **settings)
            student.save(folder / kind)
            yield kind, folder / kind
    yield "cross-encoder", tiny_classifier(folder / "cross-encoder", "bert")
    yield "causal", tiny_causal(folder / "causal")
    yield "seq2seq", tiny_t5(folder / "seq2seq")


def teacher_scores(model: Path, work: Path, precision: str, device: str) -> np.ndarray:
    """The scores of all pairs."""
    from irdistill.teachers import TextPair, load_teacher, score_pairs

    collection = tiny_collection()
    prompt: dict[str, Any] = PROMPT if model.name == "causal" else {}
    teacher: Any = load_teacher(
        str(model),
        collection.corpus,
        work=work,
        precision=precision,
        device=device,
        **prompt,
    )
    pairs = [
        TextPair(query, row, collection.corpus.text(row))
        for query in collection.queries.values()
        for row in range(DOCUMENTS)
    ]
    return np.asarray(score_pairs(teacher, pairs)[0].values, np.float32)


def teacher_parity(model: Path, work: Path, precision: str, device: str) -> dict[str, Any]:
    """A teacher on the device and on the CPU."""
    expected = teacher_scores(model, work / "cpu", "float32", "cpu")
    scores = teacher_scores(model, work / f"{device}-{precision}", precision, device)
    return compare(expected, scores, precision)


def faiss_gpu_check(folder: Path, backbone: Path) -> dict[str, Any]:
    """The neighbors that an inverted-list index finds on the GPU and on the CPU."""
    from irdistill.search.vectors.faiss_index import FaissIndex
    from irdistill.search.vectors.vector_store import corpus_vectors
    from irdistill.students import build_student

    collection = tiny_collection(FAISS_DOCUMENTS)
    student: Any = build_student("dense", str(backbone))
    store = corpus_vectors(collection.corpus, student, folder / "vectors")
    index = FaissIndex.build(store, "ivfflat", folder / "index")
    if index._on_gpus is None:
        raise ValueError("FAISS does not search on the GPU")
    queries = student.encode([query.text for query in collection.queries.values()], "query")
    on_cpu = FaissIndex(store, index.kind, index.settings, index._index, index._path)
    start = time.perf_counter()
    neighbors = index.search(queries, NEIGHBORS)[1]
    seconds = time.perf_counter() - start
    expected = on_cpu.search(queries, NEIGHBORS)[1]
    overlap = float(
        np.mean([np.isin(a, b).mean() for a, b in zip(neighbors, expected, strict=True)])
    )
    return {"ok": overlap >= OVERLAP, "overlap": overlap, "search_seconds": seconds}


def speed(script: str, *options: str) -> dict[str, Any]:
    """The ratios that a benchmark reports."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "report.json"
        done = subprocess.run(
            [sys.executable, str(HERE / script), "--json", str(out), *options],
            capture_output=True,
            text=True,
        )
        if done.returncode or not out.exists():
            return {"ok": False, "error": (done.stderr or done.stdout)[-2000:]}
        report = json.loads(out.read_text())
    figures = {name: value for name, value in report.items() if isinstance(value, int | float)}
    return {"ok": True, **figures}


@contextmanager
def models_folder() -> Iterator[Path]:
    """A temporary folder, with the logs of the libraries switched off."""
    import logging

    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def check_parity(report: Report, folder: Path, device: str, precisions: list[str]) -> None:
    """Students and teachers of every kind."""
    from tests.students.tiny import tiny_backbone

    backbone = tiny_backbone(folder / "students", layers=2)
    for precision in precisions:
        for kind in STUDENTS:
            name = f"student {kind} {precision}"
            report.run(name, partial(student_parity, kind, backbone, precision, device))
    for kind, model in teacher_models(folder / "teachers"):
        for precision in precisions:
            work = folder / "work" / kind
            name = f"teacher {kind} {precision}"
            report.run(name, partial(teacher_parity, model, work, precision, device))


def check_speed(report: Report, precisions: list[str]) -> None:
    """Training and scoring next to sentence-transformers."""
    for precision in precisions:
        report.run(
            f"training speed {precision}",
            partial(speed, "training.py", "--precision", precision, "--runs", "1", "--steps", "6"),
        )
    report.run("scoring speed", partial(speed, "scoring.py"))


def main() -> None:
    """Run the checks, and write the report."""
    import torch

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="file of the report")
    parser.add_argument("--no-speed", action="store_true", help="check parity and FAISS only")
    parser.add_argument("--dry-run", action="store_true", help="without CUDA: compare CPU with CPU")
    settings = parser.parse_args()
    cuda = torch.cuda.is_available()
    report, reason = Report(), "CUDA is not available"
    precisions = ["float32", "bfloat16"] if cuda else ["float32"]
    if cuda or settings.dry_run:
        with models_folder() as folder:
            check_parity(report, folder, "cuda" if cuda else "cpu", precisions)
    else:
        report.skip("parity of students and teachers", reason)
    report.skip("teachers behind servers, and vLLM", "their models do not run in this process")
    if not cuda:
        report.skip("parity in bfloat16", reason)
        report.skip("faiss", reason)
        report.skip("speed", reason)
    else:
        import faiss

        if not getattr(faiss, "get_num_gpus", int)():
            report.skip("faiss", "the installed FAISS has no GPU support: install faiss-gpu")
        else:
            with models_folder() as folder:
                from tests.students.tiny import tiny_backbone

                backbone = tiny_backbone(folder / "backbone", layers=2)
                report.run("faiss", partial(faiss_gpu_check, folder, backbone))
        if settings.no_speed:
            report.skip("speed", "--no-speed was given")
        else:
            check_speed(report, precisions)
    failed = [name for name, result in report.results.items() if result.get("ok") is False]
    skipped = [name for name, result in report.results.items() if "skipped" in result]
    print(
        f"{len(report.results) - len(skipped)} checks, {len(failed)} failed,"
        f" {len(skipped)} skipped: {', '.join(skipped) or 'none'}"
    )
    if settings.json:
        settings.json.parent.mkdir(parents=True, exist_ok=True)
        device = torch.cuda.get_device_name() if cuda else "cpu"
        content = {"device": device, "torch": torch.__version__, "failed": failed}
        settings.json.write_text(json.dumps(content | {"results": report.results}, indent=1) + "\n")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
