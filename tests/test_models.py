"""What a model's identity covers: every file that its loader reads, by its contents, and no
other.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import transformers
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize

from irdistill import IrdistillError
from irdistill.collections import Collection
from irdistill.modeling.model_revisions import (
    _ROOT_ENDINGS,
    _ROOT_FILES,
    file_digests,
    model_identity,
    model_revision,
)
from irdistill.runs import MemoryRun, RankedList, RunIdentity
from irdistill.search.vectors.vector_store import VectorStore, corpus_vectors
from irdistill.students import build_student
from irdistill.students.dense_student import DenseStudent
from irdistill.teachers import CrossEncoderTeacher, ScoreOptions, score
from tests.students.tiny import tiny_backbone
from tests.teachers.tiny import tiny_cross_encoder

DOCS = {
    f"d{number}": text
    for number, text in enumerate(["the cat sat", "a dog in rain", "heat and shock", "Red Bird"])
}
COLLECTION = Collection.from_dicts(
    "tiny", DOCS, {"q1": "the cat", "q2": "what is heat"}, {"q1": {"d0": 1}}
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dense model with pooling, a Dense module with weights, and prompts."""
    folder = tmp_path_factory.mktemp("models")
    made = SentenceTransformer(
        str(tiny_backbone(folder / "backbone", layers=2)), device="cpu", prompts={"query": "what "}
    )
    made.append(Dense(32, 16))
    made.append(Normalize())
    made.save(str(folder / "dense"))
    return folder / "dense"


def edit(file: str, **values: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(content | values))

    return change


def lower_case(value: bool) -> Callable[[Path], None]:
    """Changes that repairing a tokenizer makes."""

    def change(folder: Path) -> None:
        content = json.loads((folder / "tokenizer.json").read_text())
        content["normalizer"]["lowercase"] = value
        (folder / "tokenizer.json").write_text(json.dumps(content))
        edit("tokenizer_config.json", do_lower_case=value)(folder)

    return change


def flip(file: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = bytearray((folder / file).read_bytes())
        content[-1] ^= 1
        (folder / file).write_bytes(content)

    return change


def write(file: str, text: str = "{}") -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text)

    return change


DECIDES = {
    "tokenizer": lower_case(False),
    "tokenizer settings": edit("tokenizer_config.json", model_max_length=8),
    "vocabulary": write("vocab.txt", "a"),
    "special tokens": write("special_tokens_map.json"),
    "chat template": write("chat_template.jinja"),
    "another template": write("additional_chat_templates/tool.jinja"),
    "added tokens": write("added_tokens.json"),
    "module list": write("modules.json", "[]"),
    "prompts": edit("config_sentence_transformers.json", prompts={"query": "how "}),
    "length": edit("sentence_bert_config.json", max_seq_length=7),
    "pooling": edit("1_Pooling/config.json", pooling_mode="cls"),
    "dense settings": edit("2_Dense/config.json", bias=False),
    "dense weights": flip("2_Dense/model.safetensors"),
    "weights": flip("model.safetensors"),
    "config": edit("config.json", hidden_act="relu"),
    "generation": write("generation_config.json"),
    "student": write("irdistill_student.json"),
    "metadata": write("artifact.metadata"),
    "sentencepiece": write("sentencepiece.bpe.model"),
}
IS_READ_BY_NOBODY = {
    "README": write("README.md", "# a model"),
    "license": write("LICENSE"),
    "git": write(".git/HEAD"),
    "cache": write(".cache/x.json"),
    "checkpoint": write("checkpoint-500/model.safetensors"),
    "checkpoint's tokenizer": write("checkpoint-500/tokenizer.json"),
    "notes": write("notes.txt"),
    "results": write("eval/results.json"),
    "results in the root": write("eval_results.json"),
    "training arguments": write("training_args.bin"),
    "TensorFlow": write("tf_model.h5"),
    "Flax": write("flax_model.msgpack"),
    "ONNX": write("onnx/model.onnx"),
    "OpenVINO": write("openvino/openvino_model.xml"),
    "a picture": write("card.png"),
    "pickle beside safetensors": write("pytorch_model.bin"),
    "notes in a module": write("1_Pooling/README.md"),
    "other file": write(".DS_Store"),
    "cards": write("modelcard.json"),
}


@pytest.mark.parametrize("name", DECIDES)
def test_what_the_loader_reads_changes_the_identity(model: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(model, tmp_path / "m")
    before = model_revision(str(tmp_path / "m"))
    DECIDES[name](tmp_path / "m")
    assert model_revision(str(tmp_path / "m")) != before


@pytest.mark.parametrize("name", IS_READ_BY_NOBODY)
def test_what_no_loader_reads_does_not(model: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(model, tmp_path / "m")
    before = model_revision(str(tmp_path / "m"))
    IS_READ_BY_NOBODY[name](tmp_path / "m")
    assert model_revision(str(tmp_path / "m")) == before


def test_contents_count_and_not_times_or_places(model: Path, tmp_path: Path) -> None:
    """A copy is the same model; the same size and time with other contents is another."""
    shutil.copytree(model, tmp_path / "a" / "b")
    copy = tmp_path / "a" / "b"
    assert model_identity(str(copy)) | {"model": ""} == model_identity(str(model)) | {"model": ""}
    before, times = model_revision(str(copy)), os.stat(copy / "model.safetensors")
    flip("model.safetensors")(copy)
    os.utime(copy / "model.safetensors", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert model_revision(str(copy)) != before
    flip("model.safetensors")(copy)
    assert model_revision(str(copy)) == before
    (tmp_path / "linked").mkdir()
    for path in copy.iterdir():
        (tmp_path / "linked" / path.name).symlink_to(path)
    assert model_revision(str(tmp_path / "linked")) == before


def test_every_vocabulary_file_of_transformers_is_known() -> None:
    source = Path(transformers.__file__).parent / "models"
    result = {
        name
        for path in source.glob("*/tokenization_*.py")
        for block in re.findall(r"VOCAB_FILES_NAMES[^=]*=\s*\{(.*?)\}", path.read_text(), re.S)
        for name in re.findall(r":\s*\"([^\"]+\.[^\"]+)\"", block)
    }
    assert len(result) > 15
    assert {
        name
        for name in result
        if name not in _ROOT_FILES and Path(name).suffix not in _ROOT_ENDINGS
    } == set()


def test_code_of_its_own_and_whatever_it_may_read(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "m")
    edit("config.json", auto_map={"AutoModel": "modeling_x.X"})(tmp_path / "m")
    write("modeling_x.py", "one = 1")(tmp_path / "m")
    write("parts/inner.py", "two = 2")(tmp_path / "m")
    write("table.txt", "a")(tmp_path / "m")
    known = file_digests(str(tmp_path / "m"))
    assert {"modeling_x.py", "parts/inner.py", "table.txt"} <= set(known)
    write("README.md")(tmp_path / "m")
    assert file_digests(str(tmp_path / "m")) == known


def test_adapters_belong_to_their_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("peft")
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path / "cache"))
    base = tiny_backbone(tmp_path / "base", layers=2)
    build_student("dense", str(base), lora_rank=2, lora_merge=False, device="cpu").save(
        tmp_path / "adapters"
    )
    before = file_digests(str(tmp_path / "adapters"))
    assert {"model.safetensors", "tokenizer.json"} <= set(before)
    lower_case(False)(
        base
    )  # the adapters were saved with a tokenizer, which is the one that is read
    assert file_digests(str(tmp_path / "adapters")) == before
    weights = load_file(base / "model.safetensors")
    save_file(
        weights | {"embeddings.LayerNorm.weight": weights["embeddings.LayerNorm.weight"] * 2},
        base / "model.safetensors",
        metadata={"format": "pt"},
    )
    changed = file_digests(str(tmp_path / "adapters"))
    assert {name for name in before if changed[name] != before[name]} == {"model.safetensors"}
    shutil.copytree(tmp_path / "adapters", tmp_path / "copy")
    assert file_digests(str(tmp_path / "copy")) == changed
    shutil.rmtree(base)
    with pytest.raises(IrdistillError, match=r"is an adapter, and its backbone cannot be found"):
        model_revision(str(tmp_path / "adapters"))


def test_shards_and_gguf_files(tmp_path: Path) -> None:
    folder = tiny_backbone(tmp_path / "m", layers=2)
    model = transformers.AutoModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="30KB")
    shards = {path.name for path in folder.glob("model-*.safetensors")}
    assert len(shards) > 2 and shards | {"model.safetensors.index.json"} <= set(
        file_digests(str(folder))
    )
    (tmp_path / "g").mkdir()
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / "g" / name).write_bytes(b"GGUF")
    before = model_revision(str(tmp_path / "g" / "a.gguf"))
    (tmp_path / "g" / "b.gguf").write_bytes(b"GGUF2")  # another quantization
    assert model_revision(str(tmp_path / "g" / "a.gguf")) == before
    write("chat_template.jinja")(tmp_path / "g")
    assert model_revision(str(tmp_path / "g" / "a.gguf")) != before


def test_a_hub_id_is_the_commit_of_its_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Branches are resolved too; an unknown revision is an error."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    place = tmp_path / "models--owner--name"
    shutil.copytree(tiny_backbone(tmp_path / "m", layers=2), place / "snapshots" / commit)
    (place / "refs").mkdir()
    for branch in ("main", "v2"):
        (place / "refs" / branch).write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path), raising=False)
    monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", str(tmp_path))
    assert [model_revision("owner/name", branch) for branch in (None, "main", "v2", commit)] == [
        commit
    ] * 4
    monkeypatch.setattr("irdistill.modeling.model_files.find_model_file", lambda *inputs: None)
    with pytest.raises(IrdistillError, match="commit of the model 'owner/other'"):
        model_revision("owner/other")


def encoded(model: Path, work: Path) -> VectorStore:
    """The vectors of the documents, in a store of their own for each identity."""
    return corpus_vectors(
        COLLECTION.corpus, DenseStudent.load(str(model), device="cpu"), work, "float32"
    )  # type: ignore[no-any-return]


def test_a_repaired_tokenizer_encodes_the_corpus_again(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "m")
    lower_case(False)(tmp_path / "m")
    damaged = encoded(tmp_path / "m", tmp_path / "work")
    lower_case(True)(tmp_path / "m")
    repaired = encoded(tmp_path / "m", tmp_path / "work")
    assert damaged.folder != repaired.folder
    fresh = DenseStudent.load(str(tmp_path / "m"), device="cpu").encode(
        list(DOCS.values()), "document", "float32", normalize=True
    )
    np.testing.assert_allclose(repaired.matrix, fresh, atol=1e-6)
    assert not np.allclose(
        damaged.matrix[3], fresh[3], atol=1e-3
    )  # "Red Bird" became unknown words
    for change in (
        edit("config.json", hidden_act="relu"),
        edit("1_Pooling/config.json", pooling_mode="cls"),
        edit("sentence_bert_config.json", document_length=4),
    ):
        change(tmp_path / "m")
        other = encoded(tmp_path / "m", tmp_path / "work")
        assert other.folder != repaired.folder
        repaired = other


def test_a_copied_folder_shares_its_vectors(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "copy")
    stores = [encoded(place, tmp_path / "work") for place in (model, tmp_path / "copy")]
    assert stores[0].folder == stores[1].folder
    DenseStudent.load(str(model), device="cpu").save(tmp_path / "saved")
    assert encoded(tmp_path / "saved", tmp_path / "work").folder == stores[0].folder


@pytest.mark.parametrize("kind", ["cross-encoder", "retriever", "saved cross-encoder"])
def test_a_resumed_score_names_the_file_that_changed(
    model: Path, tmp_path: Path, kind: str
) -> None:
    """Half a run with one tokenizer must not be finished with another."""
    place = tmp_path / "m"
    if kind == "cross-encoder":
        tiny_cross_encoder(place)
    elif kind == "retriever":
        shutil.copytree(model, place)
    else:
        CrossEncoder(str(tiny_cross_encoder(tmp_path / "plain")), device="cpu").save(str(place))
    lists = [
        RankedList(query, list(DOCS), np.arange(4, 0, -1, dtype=np.float32))
        for query in COLLECTION.queries
    ]
    candidates = MemoryRun(RunIdentity("first-stage", {"model": "x"}, COLLECTION.describe()), lists)

    def teacher() -> object:
        if kind != "retriever":
            return CrossEncoderTeacher(
                str(place), precision="float32", backend="torch", device="cpu"
            )
        from irdistill.teachers.retriever_teacher import load_retriever

        return load_retriever(
            str(place), COLLECTION.corpus, tmp_path / "work", precision="float32", device="cpu"
        )

    score(COLLECTION, candidates, teacher(), tmp_path / "run", ScoreOptions(part_queries=1))  # type: ignore[arg-type]
    score(COLLECTION, candidates, teacher(), tmp_path / "run", ScoreOptions(part_queries=1))  # type: ignore[arg-type]
    lower_case(False)(place)
    with pytest.raises(IrdistillError, match="tokenizer") as error:
        score(COLLECTION, candidates, teacher(), tmp_path / "run", ScoreOptions(part_queries=1))  # type: ignore[arg-type]
    assert "What differs" in str(error.value) and "revision" in str(error.value)
    if kind != "retriever":
        assert re.search(r"producer\.files\.tokenizer\.json: ", str(error.value))
