"""Results that are kept depend on what names stand for: models, cards, functions, losses, texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

import irdistill as ird
from irdistill.errors import SettingsDifferError
from irdistill.losses import REGISTRY
from irdistill.recipes import read_recipe, run_recipe
from irdistill.storage.checksums import check_folders
from irdistill.students import load_student
from irdistill.training.data.mining import mining_identity
from irdistill.user_modules import import_user_modules
from irdistill.verbs import load_verb
from irdistill.verbs.input_contents import named_contents
from irdistill.verbs.opening_inputs import model_path
from tests.recipes.tiny import beir_folder
from tests.students.tiny import tiny_backbone


@pytest.fixture()
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A small collection; the cache is empty."""
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return f"{beir_folder(tmp_path / 'data')}#train"


def change(model: Path) -> None:
    """Give a model other weights."""
    weights = load_file(model / "model.safetensors")
    changed = {name: 2 * value + 0.1 for name, value in weights.items()}
    save_file(changed, model / "model.safetensors", metadata={"format": "pt"})


def first_scores(run: ird.Run) -> list[float]:
    return [float(score) for ranked in run for score in ranked.scores[:1]]


def test_a_changed_teacher_scores_again(data: str, tmp_path: Path) -> None:
    model = tiny_backbone(tmp_path / "model", layers=1)
    (tmp_path / "card.yaml").write_text("kind: retriever\nmodel: model\n")
    candidates = ird.retrieve(data, "bm25", k=3)
    teachers = ("model", "card.yaml")
    before = [first_scores(ird.score(data, candidates, name)) for name in teachers]
    change(model)
    after = [first_scores(ird.score(data, candidates, name)) for name in teachers]
    assert before[0] == before[1] != after[0] == after[1]


FUNCTION = "def same(queries, documents):\n    return [NUMBER for document in documents]\n"


def test_a_changed_function_scores_again(data: str, tmp_path: Path) -> None:
    candidates = ird.retrieve(data, "bm25", k=3)
    for number in (1.0, 2.5):
        (tmp_path / "own.py").write_text(FUNCTION.replace("NUMBER", str(number)))
        run = ird.score(data, candidates, "own.py:same", trust_remote_code=True)
        assert set(first_scores(run)) == {number}

    def constant(value: float) -> Any:
        return lambda queries, documents: [value] * len(queries)

    class Constant:
        def __init__(self, value: float) -> None:
            self.value = value

        def __call__(self, queries: list[str], documents: list[str]) -> list[float]:
            return [self.value] * len(queries)

    for make in (constant, Constant):
        for value in (3.0, 4.0):
            assert set(first_scores(ird.score(data, candidates, make(value)))) == {value}


def test_changed_texts_are_learned_again(data: str, tmp_path: Path) -> None:
    model = str(tiny_backbone(tmp_path / "model", layers=1))
    digests = []
    for words in ("the cat sat\nthe dog ran\n", "red bird\nblue fish\n", "red bird\nblue fish\n"):
        (tmp_path / "texts.txt").write_text(words)
        student = ird.fit_static("texts.txt", model)
        digests.append(student.weights_digest())
    assert digests[0] != digests[1] == digests[2]


LOSS = """
import irdistill as ird
from irdistill.losses import register


@register("OwnLoss", needs={"score"})
class OwnLoss(ird.Loss):
    def compute(self, batch):
        return FACTOR * ird.KL().compute(batch)
"""


def test_the_code_of_a_loss_decides_a_training(data: str, tmp_path: Path) -> None:
    backbone = str(tiny_backbone(tmp_path / "model", layers=1))
    scores = ird.retrieve(data, "bm25", k=5)
    options: dict[str, Any] = {"loss": "OwnLoss", "steps": 1, "batch_size": 2, "list_size": 3}
    digests = []
    try:
        for factor in ("1.0", "-1.0"):
            (tmp_path / "own_loss.py").write_text(LOSS.replace("FACTOR", factor))
            import_user_modules(["own_loss.py"])
            digests.append(ird.train(data, scores, backbone=backbone, **options).weights_digest())
            if factor == "1.0":
                ird.train(data, scores, backbone=backbone, out="out", **options)
        with pytest.raises(SettingsDifferError, match=r"own_losses\.OwnLoss"):
            ird.train(data, scores, backbone=backbone, out="out", **options)
    finally:
        REGISTRY.pop("OwnLoss", None)
    assert digests[0] != digests[1]


def test_a_stage_of_a_changed_model_or_file_is_not_done(data: str, tmp_path: Path) -> None:
    model = tiny_backbone(tmp_path / "model", layers=1)
    (tmp_path / "card.yaml").write_text("kind: retriever\nmodel: model\n")
    (tmp_path / "recipe.yaml").write_text(
        f"stages:\n- {{name: found, verb: retrieve, collection: '{data}', model: model, k: 3}}\n"
        f"- {{name: scores, verb: score, collection: '{data}', candidates: '${{found}}',"
        " teacher: card.yaml}\n"
    )
    recipe = read_recipe(tmp_path / "recipe.yaml")
    run_recipe(recipe, tmp_path / "out")
    record = tmp_path / "out" / "stages" / "found.json"
    written = record.stat().st_mtime_ns
    run_recipe(recipe, tmp_path / "out")
    assert record.stat().st_mtime_ns == written
    change(model)
    with pytest.raises(SettingsDifferError, match=r"'found' .* other settings: contents\.model"):
        run_recipe(recipe, tmp_path / "out")
    run_recipe(recipe, tmp_path / "out", overwrite=True)
    assert record.stat().st_mtime_ns > written


def flip(path: Path) -> None:
    """Change a bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_damaged_results_are_computed_again(
    data: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = str(tiny_backbone(tmp_path / "model", layers=1))
    before = ird.fit_static(data, model).weights_digest()
    queries = ird.generate(data, kinds=["sentence"])
    for name in ("model.safetensors", "queries.jsonl"):
        flip(next((tmp_path / "cache" / "results").rglob(name)))
    assert not is_healthy(tmp_path / "cache")
    assert ird.fit_static(data, model).weights_digest() == before
    assert ird.generate(data, kinds=["sentence"]).fingerprint == queries.fingerprint
    assert caplog.text.count("The result is computed again") == 2
    assert is_healthy(tmp_path / "cache")


def is_healthy(cache: Path) -> bool:
    return not check_folders(cache).damaged


def test_students_in_memory_are_saved_once_for_all_that_they_are(data: str, tmp_path: Path) -> None:
    backbone = str(tiny_backbone(tmp_path / "model", layers=1))
    plain = ird.DenseStudent(backbone)
    prompted = ird.DenseStudent(backbone, query_prompt="the cat ")
    assert plain.weights_digest() == prompted.weights_digest()
    folders = [model_path(student) for student in (plain, prompted, plain)]
    assert folders[0] == folders[2] != folders[1]
    prompts = [load_student(folder).identity()["prompts"]["query"] for folder in folders]
    assert prompts == ["", "the cat ", ""]
    flip(Path(folders[0]) / "model.safetensors")
    assert load_student(model_path(plain)).weights_digest() == plain.weights_digest()


def test_values_stand_for_nothing(data: str, tmp_path: Path) -> None:
    tiny_backbone(tmp_path / "tower", layers=1)
    train = load_verb("train")
    values = {
        "collection": data,
        "loss": "KL(tau=0.05)",
        "query_backbone": "tower",
        "backbone": "${stage}",
        "sources": "all",
        "responses": "answers.jsonl",
        "query_prompt": "x" * 5000,
    }
    assert set(named_contents(train, values)) == {"tower"}
    assert named_contents(load_verb("retrieve"), {"model": "bm25", "k": 5}) == {}


def test_the_teacher_of_mined_documents_decides_a_training(data: str, tmp_path: Path) -> None:
    model = tiny_backbone(tmp_path / "model", layers=1)
    options = ird.TrainOptions(steps=2, mine_every=1, mine_teacher="model")
    before = mining_identity(options)
    change(model)
    assert mining_identity(options) != before
    assert mining_identity(ird.TrainOptions(steps=2)) == {}
