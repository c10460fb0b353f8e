"""Listwise teachers by labels: the order of a window is that of its labels' log-probabilities."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irdistill import IrdistillError
from irdistill.teachers import ScoreOptions, read_card, score
from irdistill.teachers.llm.language_model import Answer, Message, Request
from irdistill.teachers.llm.listwise_teacher import ListwiseLLMTeacher
from irdistill.teachers.llm.local import TransformersModel
from irdistill.teachers.llm.order_agreement import in_sample, window_agreement
from irdistill.teachers.llm.reading import Reading
from tests.teachers.llm.chat_stub import Reply, always, completion
from tests.teachers.llm.ranking_fakes import (
    LISTWISE,
    FakeModel,
    best_first,
    query_pairs,
    worths_in,
)
from tests.teachers.llm.server_models import model as server_model
from tests.teachers.llm.test_ranking_runs import small
from tests.teachers.llm.tiny import tiny_lm

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class LabelModel(FakeModel):
    """Gives each passage's label a log-probability that grows with its worth; writes orders."""

    def __init__(
        self,
        logs: Callable[[list[int]], Sequence[float]] | None = None,
        write: Callable[[list[int]], str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(**more)
        self.logs = logs or (lambda worths: [worth / 10 - 100 for worth in worths])
        self.write = write or written

    def _one(self, request: Request) -> Answer:
        worths = worths_in(request)
        if not request.labels:
            return Answer(self.write(worths), output_tokens=5)
        assert request.labels == tuple(LETTERS[: len(worths)]) and request.max_tokens == 1
        return Answer(labels=np.array(self.logs(worths), np.float32), input_tokens=1)


def written(worths: Sequence[int]) -> str:
    return " > ".join(f"[{LETTERS[place]}]" for place in best_first(worths))


def teacher(model: FakeModel, **settings: Any) -> ListwiseLLMTeacher:
    return ListwiseLLMTeacher(model, LISTWISE, **({"by": "labels"} | settings))


def mixed(count: int, seed: int = 0) -> list[int]:
    worths = list(range(100, 100 + count))
    random.Random(seed).shuffle(worths)
    return worths


def test_a_window_is_ordered_by_hand() -> None:
    """Log-probabilities -2.5, -0.5, -3 and -1 of A, B, C and D: the order is B, D, A, C."""
    model = LabelModel(lambda worths: [-2.5, -0.5, -3.0, -1.0])
    [ranking] = teacher(model).rank([query_pairs([1, 2, 3, 4])])
    assert (ranking.order, ranking.flags) == ([1, 3, 0, 2], [None] * 4)
    [user] = model.requests[0].messages
    assert "[A] passage worth 1 points\n[B] passage worth 2 points" in user.content
    mass = math.exp(-2.5) + math.exp(-0.5) + math.exp(-3.0) + math.exp(-1.0)
    assert ranking.usage["label_mass_sum"] == pytest.approx(min(1.0, mass))
    assert (ranking.usage["windows"], ranking.usage["windows_ok"]) == (1, 1)
    assert "output_tokens" not in ranking.usage and "tied" not in ranking.usage


def test_equal_logits_keep_the_order_shown_and_are_counted() -> None:
    [ranking] = teacher(LabelModel(lambda worths: [-2.0, -1.0, -2.0, -1.0, -9.0])).rank(
        [query_pairs([1, 2, 3, 4, 5])]
    )
    assert (ranking.order, ranking.usage["tied"]) == ([1, 3, 0, 2, 4], 4)


def test_unreported_labels_are_null_after_those_that_were_reported() -> None:
    nan = math.nan
    [ranking] = teacher(LabelModel(lambda worths: [nan, -1.0, nan, -0.5])).rank(
        [query_pairs([1, 2, 3, 4])]
    )
    assert ranking.order == [3, 1]
    assert ranking.flags == ["label not reported", None, "label not reported", None]
    assert ranking.usage["unreported"] == 2 and "windows_ok" not in ranking.usage
    [ranking] = teacher(LabelModel(lambda worths: [nan] * 3)).rank([query_pairs([1, 2, 3])])
    assert (ranking.order, ranking.flags) == ([], ["label not reported"] * 3)
    assert ranking.usage["windows_failed"] == 1


def test_a_later_window_that_reports_a_label_removes_the_flag() -> None:
    """Windows of four by two: in the first, the two worst are not reported and drop out of the
    next; 30 is not reported there, moves to the top window, and is reported in it.
    """

    def logs(worths: list[int]) -> list[float]:
        if 10 in worths:
            return [worth / 10 - 100 for worth in worths]
        return [math.nan if worth < 50 else worth / 10 - 100 for worth in worths]

    [ranking] = teacher(LabelModel(logs), window=4, step=2).rank(
        [query_pairs([10, 20, 60, 30, 40, 50])]
    )
    assert ranking.order[:2] == [2, 5]
    assert [ranking.flags[place] for place in (3, 4)] == ["label not reported"] * 2
    assert [ranking.flags[place] for place in (0, 1, 2, 5)] == [None] * 4


@pytest.mark.parametrize("method", ["sliding", "top-down"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_every_method_sorts_as_with_generated_orders(method: str, shuffle: bool) -> None:
    worths = mixed(23)
    settings: dict[str, Any] = {
        "method": method,
        "window": 6,
        "step": 2,
        "top": 5,
        "passes": 6,
        "shuffle": shuffle,
    }
    first = LabelModel()
    [by_labels] = teacher(first, **settings).rank([query_pairs(worths)])
    second = LabelModel()
    [by_text] = ListwiseLLMTeacher(second, LISTWISE | {"labels": list(LETTERS)}, **settings).rank(
        [query_pairs(worths)]
    )
    assert by_labels.order == by_text.order and by_labels.flags == by_text.flags
    assert by_labels.order[:5] == best_first(worths)[:5]
    assert [request.messages for request in first.requests] == [
        request.messages for request in second.requests
    ]


def test_top_down_with_an_unreported_pivot_knows_what_is_above_it() -> None:
    """The pivot (worth 197) is not reported next to weaker passages: those that are reported are
    more likely, so they are above it.
    """
    worths = [200, 199, 197, 150, 160, 10, 20]

    def logs(shown: list[int]) -> list[float]:
        if 200 in shown and 150 in shown:  # the first window; the pivot is at rank 3
            return [worth / 10 - 100 for worth in shown]
        return [
            -1.0 if worth == 160 else math.nan if worth in (197, 10) else -2.0 for worth in shown
        ]

    [ranking] = teacher(LabelModel(logs), method="top-down", window=4, top=3).rank(
        [query_pairs(worths)]
    )
    assert "pivot omitted" not in ranking.flags
    assert ranking.flags[5] == "label not reported" and 5 not in ranking.order
    assert set(ranking.order) == {0, 1, 2, 3, 4, 6}


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 30),
    st.sampled_from(["sliding", "top-down"]),
    st.integers(2, 9),
)
@settings(max_examples=100, deadline=None)
def test_every_document_is_ranked_or_flagged(
    seed: int, count: int, method: str, window: int
) -> None:
    chance = random.Random(seed)

    def logs(worths: list[int]) -> list[float]:
        return [math.nan if chance.random() < 0.3 else -float(chance.randint(0, 5)) for _ in worths]

    settings = {"step": window - 1} if method == "sliding" else {"top": max(1, window // 2)}
    [ranking] = teacher(LabelModel(logs), method=method, window=window, **settings).rank(
        [query_pairs(mixed(count, seed))]
    )
    assert len(set(ranking.order)) == len(ranking.order) and set(ranking.order) <= set(range(count))
    for place in range(count):
        assert (place in ranking.order) == (ranking.flags[place] in (None, "unsorted"))


@pytest.mark.parametrize(
    ("order", "generated", "tau", "first", "both"),
    [
        ([0, 1, 2, 3], [0, 1, 2, 3], 1.0, 1, 4),
        ([0, 1, 2, 3], [3, 2, 1, 0], -1.0, 0, 4),
        ([0, 1, 2, 3], [0, 2, 1, 3], 4 / 6, 1, 4),  # one of six pairs is in another order
        ([2, 0, 1], [1, 0, 2], -1.0, 0, 3),
        ([0, 1, 2, 3], [3, 0], -1.0, 0, 2),  # the passages that both contain: 0 and 3
    ],
)
def test_agreement_by_hand(
    order: list[int], generated: list[int], tau: float, first: int, both: int
) -> None:
    counts = window_agreement(Reading(order, [], [], 0), Reading(generated, [], [], 0))
    assert counts == {
        "agreement_windows": 1,
        "agreement_tau_sum": pytest.approx(tau),
        "agreement_tau_count": 1,
        "agreement_first_sum": first,
        "agreement_first_count": 1,
        "agreement_passages_sum": both,
        "agreement_passages_count": 1,
    }


def test_windows_that_cannot_be_compared_are_counted() -> None:
    order = Reading([0, 1, 2], [], [], 0)
    for other in (None, Reading([1], [], [0, 2], 0), Reading([1, 0], [1], [2], 0)):
        assert window_agreement(order, other) == {"agreement_windows": 1, "agreement_unread": 1}
    assert window_agreement(None, order)["agreement_unread"] == 1


def test_a_sample_has_its_share_of_queries() -> None:
    ids = [f"q{number}" for number in range(2000)]
    assert not any(in_sample(query, 0.0) for query in ids)
    assert all(in_sample(query, 1.0) for query in ids)
    chosen = {query for query in ids if in_sample(query, 0.25)}
    assert 430 < len(chosen) < 570  # 500, with a standard deviation of 19
    assert chosen < {query for query in ids if in_sample(query, 0.5)}


def test_generated_orders_of_a_sample_are_compared_and_change_no_score(tmp_path: Path) -> None:
    collection, candidates = small()

    def run(folder: str, **more: Any) -> Any:
        model = LabelModel(write=lambda worths: written(worths)[:3] if 13 in worths else "?")
        loaded = teacher(model, window=4, step=2, **more)
        return score(collection, candidates, loaded, tmp_path / folder, ScoreOptions())

    plain, compared = run("plain"), run("compared", compare_generated=1.0)
    for query in plain.query_ids:
        assert plain[query].doc_ids == compared[query].doc_ids
        assert np.array_equal(plain[query].scores, compared[query].scores, equal_nan=True)
    usage = compared.manifest.usage
    assert usage["agreement_windows"] == usage["agreement_unread"] == usage["windows"]
    assert usage["requests"] == 2 * usage["windows"] and "agreement_tau_mean" not in usage
    assert "agreement_windows" not in plain.manifest.usage

    model = LabelModel(write=lambda worths: written([-worth for worth in worths]))
    loaded = teacher(model, window=4, step=2, compare_generated=0.5)
    usage = score(collection, candidates, loaded, tmp_path / "half").manifest.usage
    assert 0 < usage["agreement_windows"] < usage["windows"]
    assert (usage["agreement_tau_mean"], usage["agreement_first_mean"]) == (-1.0, 0.0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"by": "logits"}, "expected one of text, labels"),
        ({"window": 27, "step": 10}, r"window is 27, and there are 26 labels \(A to Z\)"),
        ({"compare_generated": 1.5}, "share of the queries"),
        ({"by": "text", "compare_generated": 0.1}, "Set by: labels"),
    ],
)
def test_invalid_settings_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(IrdistillError, match=words):
        teacher(FakeModel(), **settings)


@pytest.mark.parametrize("labels", ["AB", ["A"], ["A", "A"], ["A", " A"], ["A", ""], [1, 2]])
def test_invalid_labels_are_refused(labels: Any) -> None:
    with pytest.raises(IrdistillError, match="expected a list of different texts"):
        ListwiseLLMTeacher(FakeModel(), LISTWISE | {"labels": labels}, by="labels")


def test_a_card_for_numbers_is_refused_with_labels() -> None:
    numbers = read_card("rankzephyr").prompt
    with pytest.raises(IrdistillError, match="does not find the label 'A'"):
        ListwiseLLMTeacher(FakeModel(), numbers, by="labels")
    fitting = numbers | {"identifier": r"\[([A-Z])\]"}
    ListwiseLLMTeacher(FakeModel(), fitting, by="labels")


def test_the_identity_of_orders_by_text_stays() -> None:
    identity = ListwiseLLMTeacher(FakeModel(), LISTWISE).identity
    assert not {"by", "compare_generated"} & identity.keys()
    assert identity["prompt"] == "c620217e8cc85141"
    by_labels = teacher(FakeModel()).identity
    assert by_labels["by"] == "labels" and by_labels["prompt"] != identity["prompt"]


def test_a_letter_in_a_passage_is_not_an_identifier() -> None:
    pairs = [pair._replace(text=f"see [A] and [3] {pair.text}") for pair in query_pairs([1, 2])]
    model = LabelModel()
    teacher(model).rank([pairs])
    assert "[B] see (A) and [3] passage worth 2" in model.requests[0].messages[0].content


def test_a_local_model_is_read_by_hand(tmp_path: Path) -> None:
    """The tiny model's own logits at the end of the prompt give the order."""
    torch = pytest.importorskip("torch")
    model = TransformersModel(str(tiny_lm(tmp_path)), device="cpu", precision="float32")
    model._head.last = None
    listwise = teacher(model, window=5, step=2)
    pairs = query_pairs([3, 1, 2, 5, 4])
    [ranking] = listwise.rank([pairs])
    texts = [pair.text for pair in pairs]
    [prompt] = model.chat.prompts([listwise._prompt.request("about q", texts)])
    with torch.inference_mode():
        logits = model.network(input_ids=torch.tensor([prompt.ids])).logits[0, -1]
    ids = model.chat.tokenizer.convert_tokens_to_ids(list("ABCDE"))
    assert ranking.order == sorted(range(5), key=lambda place: -float(logits[ids[place]]))
    assert ranking.usage["requests"] == 1 and "output_tokens" not in ranking.usage


def test_labels_of_several_tokens_are_refused_before_anything_is_scored(tmp_path: Path) -> None:
    """The tiny model reads bytes, so a label of two letters has two tokens."""
    model = TransformersModel(str(tiny_lm(tmp_path)), device="cpu")
    prompt = LISTWISE | {"labels": ["A", "Bx", "C"]}
    with pytest.raises(IrdistillError, match="'Bx' are not single tokens of this model"):
        ListwiseLLMTeacher(model, prompt, by="labels", window=3, step=1)
    spaced = LISTWISE | {"labels": ["AX", "BX"]}
    with pytest.raises(IrdistillError, match="such as letters, or read the order from a text"):
        ListwiseLLMTeacher(model, spaced, by="labels", window=2, step=1)
    alike = LISTWISE | {"labels": ["A", "AB"]}
    with pytest.raises(IrdistillError, match="do not differ in one token"):
        ListwiseLLMTeacher(model, alike, by="labels", window=2, step=1)
    ListwiseLLMTeacher(model, alike, window=2, step=1)  # a text is not read token by token


def test_a_server_reports_some_labels(stub: Any, tmp_path: Path, waits: list[float]) -> None:
    """C is most likely, then A; B is not among the reported tokens: null, and never a guess."""
    top = {"C": -0.2, " A": -1.9, "The": -3.0}
    served = stub(always(Reply(body=completion("C", top=top))))
    [ranking] = teacher(server_model(served, tmp_path)).rank([query_pairs([1, 2, 3])])
    assert (ranking.order, ranking.flags) == ([2, 0], [None, "label not reported", None])
    assert ranking.usage["unreported"] == 1
    body = served.bodies[0]
    assert (body["logprobs"], body["top_logprobs"], body["max_tokens"]) == (True, 20, 1)


@pytest.mark.parametrize(
    ("top", "flag"),
    [({"The": -0.1, "Hm": -2.0}, "labels not reported"), ({"<think>": -0.1}, "thinks first")],
)
def test_a_server_without_labels_gives_nulls(
    stub: Any, tmp_path: Path, top: dict[str, float], flag: str
) -> None:
    served = stub(always(Reply(body=completion("x", top=top))))
    [ranking] = teacher(server_model(served, tmp_path)).rank([query_pairs([1, 2, 3])])
    assert (ranking.order, ranking.flags) == ([], [flag] * 3)


def test_a_server_without_log_probabilities_stops_the_job(stub: Any, tmp_path: Path) -> None:
    served = stub(always(Reply(body=completion("[A] > [B]"))))
    with pytest.raises(IrdistillError, match="reports no log-probabilities"):
        teacher(server_model(served, tmp_path)).rank([query_pairs([1, 2, 3])])
    assert len(served.bodies) == 1


def test_included_cards_have_labels_for_their_windows() -> None:
    for name in ("smollm2-first-token", "first-mistral"):
        card = read_card(name)
        settings = {
            key: value
            for key, value in card.settings.items()
            if key in ("method", "by", "window", "step")
        }
        assert settings["by"] == "labels"
        request = ListwiseLLMTeacher(FakeModel(), card.prompt, **settings)._prompt.request(
            "q", ["text"] * 3
        )
        assert request.labels == ("A", "B", "C")
        assert request.messages[-1] == Message("assistant", "[")
