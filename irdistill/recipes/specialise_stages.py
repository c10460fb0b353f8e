"""The stages that specialise a retriever, as a recipe that a user may change and run again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from irdistill.recipes.specialise_budget import TimeBudget
from irdistill.recipes.specialise_options import FUSED, SpecialiseOptions
from irdistill.recipes.specialise_verdict import (
    AFTER,
    BEFORE,
    LEXICAL,
    MERGED,
    TEACHER,
    TERMS,
    TRAINED,
)

MEASURES = "nDCG@10 R@100"
STAGES = {
    BEFORE: "before",
    LEXICAL: "bm25",
    TEACHER: "teacher",
    TERMS: "terms",
    MERGED: "merged",
    TRAINED: "trained",
    "KL alone": "kl-alone",
    "InfoNCE alone": "infonce-alone",
}
"""The stage that makes a system of the figures; ``STAGE-SPLIT`` is its run."""


@dataclass(frozen=True)
class SpecialiseStages:
    """The stages of one collection and model.

    Attributes:
        judged: whether the collection has judged queries, which are measured too.
    """

    collection: str
    model: str
    judged: bool
    options: SpecialiseOptions
    budget: TimeBudget

    @property
    def tested(self) -> dict[str, str]:
        """Names and ids of the collections that are measured."""
        real = {"real": self.collection} if self.judged else {}
        return real | {"dev": "${queries}#dev"}

    def candidates(self, steps: int) -> list[str]:
        """Names of the systems that may be kept, and of those they are compared with."""
        refined = self.options.refined and steps > 0
        return [BEFORE, LEXICAL, TEACHER, TERMS, *((MERGED, TRAINED) if refined else ())]

    def systems(self, steps: int, kept: str) -> dict[str, str]:
        """Names and stages of the systems in the figures; ``after`` is the one that is kept."""
        names = self.candidates(steps)
        if names[-1] == TERMS:
            names.remove(TERMS)
        controls = ("KL alone", "InfoNCE alone") if self.options.control and steps else ()
        stages = {name: STAGES[name] for name in names} | {AFTER: STAGES[kept]}
        return stages | {name: STAGES[name] for name in controls}

    def recipe(self, steps: int | None = None, kept: str | None = None) -> dict[str, Any]:
        """The recipe as a mapping.

        Args:
            steps: steps of training; 0 for no training, None if they are not planned yet.
            kept: the system that is kept; None before it is chosen, which leaves out the figures.
        """
        stages = self._first_stages()
        if steps:
            stages += self._training_stages(steps)
        if kept is not None:
            stages.append(self._figures_stage(self.systems(steps or 0, kept)))
        return {
            "name": "specialise",
            "description": f"{self.model} specialised to the corpus of {self.collection}, without"
            " labels.",
            "settings": {},
            "stages": stages,
        }

    def training_stage(self, steps: int) -> dict[str, Any]:
        """The stage that trains the query tower behind its term vectors."""
        start: dict[str, Any] = {"backbone": "${terms}"}
        if self.options.keep:
            start["keep"] = list(self.options.keep)
        return self._training_stage("trained", steps, self._both, start)

    def _first_stages(self) -> list[dict[str, Any]]:
        """Queries, term vectors, and the lists of everything that is not trained."""
        options = self.options
        llm = {"llm": options.llm} if options.llm else {}
        terms = {"collection": "${queries}#train", "model": self.model, **options.model_options}
        stages: list[dict[str, Any]] = [
            {
                "name": "queries",
                "verb": "generate",
                "collection": self.collection,
                "kinds": list(options.query_kinds),
                "passages": self.budget.passages,
                "sentences": self.budget.sentences,
                "held_out": self.budget.held_out,
                "avoid": options.avoid,
                **llm,
            },
            {"name": "terms", "verb": "terms", **terms},
        ]
        train = {"train": "${queries}#train"} if options.trainings else {}
        for split, collection in (train | self.tested).items():
            stages += self._teacher_stages(split, collection)
        if options.rules and options.trainings:
            stages.append(
                {
                    "name": "good",
                    "verb": "filter",
                    "collection": "${queries}#train",
                    "rules": list(options.rules),
                    "scores": "${teacher-train}",
                    "retrieved": "${before-train}",
                }
            )
        return stages + self._retrievals("terms")

    def _retrievals(self, name: str) -> list[dict[str, Any]]:
        """Lists of a model for the queries that are measured."""
        return [
            {
                "name": f"{name}-{split}",
                "verb": "retrieve",
                "collection": collection,
                "model": f"${{{name}}}",
                "k": 100,
            }
            for split, collection in self.tested.items()
        ]

    def _teacher_stages(self, split: str, collection: str) -> list[dict[str, Any]]:
        """Candidates of BM25 and of the model for queries, and the teacher's scores of both."""
        options = self.options
        k = options.k if split == "train" else 100
        first = {"verb": "retrieve", "collection": collection, "k": k}
        scored = {"verb": "score", "collection": collection, "candidates": f"${{pool-{split}}}"}
        opened = options.model_options
        stages = [
            {"name": f"bm25-{split}", **first, "model": "bm25"},
            {"name": f"before-{split}", **first, "model": self.model, **opened},
            {
                "name": f"pool-{split}",
                "verb": "fuse",
                "method": "rrf",
                "runs": [f"${{bm25-{split}}}", f"${{before-{split}}}"],
            },
        ]
        if options.teacher != FUSED:
            return [*stages, {"name": f"teacher-{split}", **scored, "teacher": options.teacher}]
        return [
            *stages,
            {"name": f"bm25-scores-{split}", **scored, "teacher": "bm25"},
            {"name": f"model-scores-{split}", **scored, "teacher": self.model, **opened},
            {
                "name": f"teacher-{split}",
                "verb": "fuse",
                "method": "zscore",
                "runs": [f"${{bm25-scores-{split}}}", f"${{model-scores-{split}}}"],
            },
        ]

    @property
    def _contrastive(self) -> str:
        return f'InfoNCE(tau={self.options.tau}, positive_by="teacher")'

    @property
    def _both(self) -> str:
        options = self.options
        return f"KL(tau={options.tau}, teacher_tau={options.teacher_tau}) + 0.1*{self._contrastive}"

    def _training_stages(self, steps: int) -> list[dict[str, Any]]:
        """The student, its average with the term vectors, and two controls with one loss each."""
        stages: list[dict[str, Any]] = []
        if self.options.refined:
            merged = {"models": ["${terms}", "${trained}"], "weights": [0.5, 0.5]}
            stages += [
                self.training_stage(steps),
                *self._retrievals("trained"),
                {"name": "merged", "verb": "merge", **merged},
                *self._retrievals("merged"),
            ]
        if self.options.control:
            plain: dict[str, Any] = {"backbone": self.model, "freeze_documents": True}
            if self.options.trust_remote_code:
                plain["trust_remote_code"] = True
            for name, loss in (("kl-alone", self._both), ("infonce-alone", self._contrastive)):
                stages.append(self._training_stage(name, steps, loss, plain))
                stages += self._retrievals(name)
        return stages

    def _training_stage(
        self, name: str, steps: int, loss: str, start: Mapping[str, Any]
    ) -> dict[str, Any]:
        options = self.options
        return {
            "name": name,
            "verb": "train",
            "collection": "${good}#train" if options.rules else "${queries}#train",
            "scores": "${teacher-train}",
            "loss": loss,
            **start,
            "steps": steps,
            "batch_size": options.batch_size,
            "list_size": options.list_size,
            "learning_rate": options.learning_rate,
            "dropout": False,
            "positives": False,
        }

    def _figures_stage(self, systems: Mapping[str, str]) -> dict[str, Any]:
        return {
            "name": "figures",
            "verb": "evaluate",
            "measures": MEASURES,
            "baseline": {name: BEFORE for name in systems if name != BEFORE},
            "datasets": {
                collection: {name: f"${{{stage}-{split}}}" for name, stage in systems.items()}
                for split, collection in self.tested.items()
            },
        }
