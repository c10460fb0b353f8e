"""The same training by sentence-transformers: the trainer of each kind of student, with the loss
nearest to KL that it has; and what the benchmarks of training share.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

#: Weights of FLOPS in training a sparse student, on either side: sentence-transformers has no
#: sparse loss without.
QUERY_FLOPS, DOCUMENT_FLOPS = 5e-5, 3e-5


class Clock:
    """Seconds between the end of the warm-up steps and the last step, by the clock and of the
    processor.
    """

    def __init__(self, warmup: int) -> None:
        self.warmup, self.ends = warmup, [(time.perf_counter(), time.process_time())]

    def end_step(self) -> None:
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append((time.perf_counter(), time.process_time()))

    @property
    def seconds(self) -> tuple[float, float]:
        (began, used), (ended, more) = self.ends[self.warmup], self.ends[-1]
        return ended - began, more - used


def train_by_peer(
    kind: str,
    model: Any,
    sampler: Any,
    query_texts: list[str],
    texts: Callable[[Any], list[str]],
    end_step: Callable[[], None],
    folder: str,
    *,
    steps: int,
    batch: int,
    precision: str,
) -> None:
    """Train on the lists of the steps; every list has the same number of documents."""
    import torch
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()

    def rows() -> Iterator[dict[str, Any]]:
        for step in range(steps):
            lists = sampler(step)
            for i, query in enumerate(lists.queries.tolist()):
                list_texts = texts(lists.rows[i])
                documents = (
                    {"documents": list_texts}
                    if kind == "cross-encoder"
                    else {f"document{j}": text for j, text in enumerate(list_texts)}
                )
                yield (
                    {"query": query_texts[query]}
                    | documents
                    | {"label": lists.teacher[0, i].tolist()}
                )

    trainer, arguments, loss = _parts(kind, model)
    trainer(
        model=model,
        loss=loss,
        train_dataset=Dataset.from_list(list(rows())),
        callbacks=[callback(end_step)],
        args=arguments(
            **peer_arguments(folder, batch, precision),
            max_steps=steps,
            learning_rate=2e-5,
            use_cpu=not torch.cuda.is_available(),
        ),
    ).train()


def peer_arguments(folder: str, batch: int, precision: str) -> dict[str, Any]:
    """Arguments of a training that saves and logs nothing."""
    return {
        "output_dir": folder,
        "per_device_train_batch_size": batch,
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "bf16": precision == "bfloat16",
        "log_level": "error",
    }


def callback(end_step: Callable[[], None]) -> Any:
    from transformers import TrainerCallback

    class Callback(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            end_step()

    return Callback()


def _parts(kind: str, model: Any) -> tuple[Any, Any, Any]:
    """The trainer, its arguments and the loss."""
    import sentence_transformers as st

    if kind == "dense":
        from sentence_transformers.sentence_transformer.losses import DistillKLDivLoss
        from sentence_transformers.util import pairwise_cos_sim

        loss = DistillKLDivLoss(
            model,
            similarity_fct=pairwise_cos_sim,
            student_temperature=0.05,
            teacher_temperature=2.0,
        )
        return st.SentenceTransformerTrainer, st.SentenceTransformerTrainingArguments, loss
    if kind == "sparse":
        from sentence_transformers.sparse_encoder.losses import SparseDistillKLDivLoss, SpladeLoss

        inner = SparseDistillKLDivLoss(model, student_temperature=1.0, teacher_temperature=2.0)
        loss = SpladeLoss(
            model,
            inner,
            document_regularizer_weight=DOCUMENT_FLOPS,
            query_regularizer_weight=QUERY_FLOPS,
        )
        return st.SparseEncoderTrainer, st.SparseEncoderTrainingArguments, loss
    if kind == "late-interaction":
        from sentence_transformers.multi_vector_encoder import (
            MultiVectorEncoderTrainer,
            MultiVectorEncoderTrainingArguments,
        )
        from sentence_transformers.multi_vector_encoder.losses import MultiVectorDistillKLDivLoss

        loss = MultiVectorDistillKLDivLoss(model, student_temperature=1.0, teacher_temperature=2.0)
        return MultiVectorEncoderTrainer, MultiVectorEncoderTrainingArguments, loss
    from sentence_transformers.cross_encoder import (
        CrossEncoderTrainer,
        CrossEncoderTrainingArguments,
    )
    from sentence_transformers.cross_encoder.losses import ListNetLoss

    return CrossEncoderTrainer, CrossEncoderTrainingArguments, ListNetLoss(model)
