"""Every example of the help is one line that can be pasted, and runs; every command of the README
and the docs can be parsed.

The examples run on a small collection in place of pydocs and of ir_datasets, with MiniLM as it is.
Trainings take two steps. A stand-in writes for the language model. The ONNX export is called and
not made, and the 30,000 tokens of a static tower are drawn and not encoded;
tests/students/test_export.py and tests/training/test_static_fitting.py do both.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from irdistill.cli.commands import checked_options
from irdistill.cli.entry_point import cli, main
from irdistill.collections import Collection, Query, Turn
from irdistill.collections.beir import load_beir
from irdistill.collections.judging import JudgmentLog
from irdistill.errors import IrdistillError
from irdistill.students.exporting import ExportAgreement
from irdistill.teachers.llm.language_model import Answer, Request
from irdistill.verbs import load_verb
from irdistill.verbs.opening_inputs import open_collection
from tests.recipes.tiny import beir_folder

REPOSITORY = Path(__file__).resolve().parents[2]


def commands(
    command: click.Command = cli, name: str = "irdistill"
) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for key in command.list_commands(context):
            inner = command.get_command(context, key)
            assert inner is not None
            yield from commands(inner, f"{name} {key}")


def examples(command: click.Command) -> list[str]:
    return [
        line.strip()
        for line in (command.epilog or "").splitlines()
        if line.strip().startswith("irdistill ")
    ]


ALL = [line for _, command in commands() for line in examples(command)]


def test_every_command_has_examples_of_itself_each_on_a_line_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, command in commands():
        if isinstance(command, click.Group) and name != "irdistill":
            continue
        assert examples(command) and examples(command)[0].startswith(name), name
        with click.Context(
            command, info_name=name, terminal_width=80, max_content_width=80
        ) as context:
            lines = [line.strip() for line in command.get_help(context).splitlines()]
        for example in examples(command):
            assert example in lines, f"{name}: {example}"
            assert shlex.split(example)[0] == "irdistill"
    assert len(ALL) == len(set(ALL)) > 40


class Writer:
    """Writes a question for any request."""

    parallel = 4
    identity: Mapping[str, Any] = {"model": "stand-in"}

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        ends = [" ".join(request.messages[-1].content.split()[-4:]) for request in requests]
        return [
            Answer(text=f"what is the meaning of {end}?", input_tokens=1, output_tokens=1)
            for end in ends
        ]


@pytest.fixture()
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with small files under the names that the examples use."""
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    source = beir_folder(tmp_path / "mydocs")
    words = (source / "corpus.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in words]
    (source / "corpus.jsonl").write_text(
        "".join(
            json.dumps(
                entry
                | {
                    "title": f"About {entry['text']}",
                    "text": f"This is what there is to say of {entry['text']}.",
                }
            )
            + "\n"
            for entry in entries
        )
    )
    for split, other in (("dev", "test"), ("howto", "test")):
        shutil.copy(source / "qrels" / f"{other}.tsv", source / "qrels" / f"{split}.tsv")

    def small(name: str, *_: Any) -> Collection:
        split = name.rsplit("/", 1)[-1]
        return load_beir(
            name,
            source,
            split if split in ("train", "dev", "howto") else "test",
            tmp_path / "cache",
        )

    monkeypatch.setattr("irdistill.collections.pydocs.load_pydocs", small)
    monkeypatch.setattr("irdistill.collections.ir_datasets_reader.load_ir_dataset", small)
    for module in ("rewriting", "generating"):
        monkeypatch.setattr(f"irdistill.queries.{module}.load_writer", lambda card: Writer())
    from irdistill.training.pretraining import pretrain
    from irdistill.training.pretraining_options import PretrainOptions
    from irdistill.training.trainer import train

    def short_train(
        collection: Any,
        scores: Any,
        student: Any,
        loss: Any,
        out: Any,
        options: Any,
        *more: Any,
        **named: Any,
    ) -> Any:
        return train(
            collection,
            scores,
            student,
            loss,
            out,
            replace(options, steps=2, batch_size=2, list_size=4),
            *more,
            **named,
        )

    def short_pretrain(
        collection: Any, backbone: str, out: Any, options: PretrainOptions, **named: Any
    ) -> Any:
        return pretrain(collection, backbone, out, replace(options, steps=2, batch_size=2), **named)

    monkeypatch.setattr("irdistill.training.trainer.train", short_train)
    monkeypatch.setattr("irdistill.training.pretraining.pretrain", short_pretrain)

    def no_export(
        student: Any, out: Path, form: str, queries: Any, documents: Any, least_tau: float
    ) -> ExportAgreement:
        assert len(queries) and len(documents) > 1 and form == "onnx"
        return ExportAgreement(4, 0.0, 1.0, 1, 0.0)

    def no_encoding(texts: Sequence[str], teacher: Any) -> np.ndarray:
        drawn = np.random.default_rng(0).normal(size=(len(texts), teacher.dimension))
        return drawn.astype(np.float32)

    monkeypatch.setattr("irdistill.students.exporting.export_student", no_export)
    monkeypatch.setattr("irdistill.training.static_fitting._tokens_alone", no_encoding)
    monkeypatch.setattr("irdistill.view.server.serve", lambda viewed, options: viewed.artifacts())
    # conversations, as irdistill rewrite takes them
    history = [
        {"role": "user", "text": "what is a cat?"},
        {"role": "assistant", "text": "an animal"},
    ]
    talks = tmp_path / "talks"
    shutil.copytree(source, talks)
    (talks / "queries.jsonl").write_text(
        "".join(
            json.dumps(
                json.loads(line)
                | {
                    "history": history,
                    "rewrite": f"cats and {json.loads(line)['text']}",
                }
            )
            + "\n"
            for line in (talks / "queries.jsonl").read_text().splitlines()
        )
    )
    assert Query("q", "x", (Turn(**history[0]),)).history  # type: ignore[arg-type]
    return tmp_path


#: Ids in examples, and those of the small collection in place of pydocs.
_KNOWN = {"dict.update": "d001", "locals": "d001", "q:locals": "q001"}


def run(line: str) -> None:
    command, _, source = line.partition(" > ")[0].partition(" < ")
    questions = Path(source).read_text() if source else ""
    with pytest.raises(SystemExit) as stop, pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", io.StringIO(questions))
        main([_KNOWN.get(word, word) for word in shlex.split(command)[1:]])
    assert stop.value.code in ((0, 1) if line == "irdistill doctor" else (0, None)), line


def prepare(line: str, place: Path) -> None:
    """Files that an example needs and that no other example creates."""
    out = place / "out"
    if "--weights similarity" in line:
        for name, split in (("a-dev", "dev"), ("b-dev", "dev")):
            run(f"irdistill retrieve pydocs/{split} --out out/{name}-pool")
            run(
                f"irdistill score pydocs/{split} --candidates out/{name}-pool --teacher"
                f" {'bm25' if name[0] == 'a' else 'minilm'} --out out/{name}"
            )
        run("irdistill score pydocs/train --candidates out/bm25 --teacher bm25 --out out/a")
        shutil.copytree(out / "minilm", out / "b")
    if line.startswith("irdistill evaluate pydocs/test"):
        run(
            "irdistill retrieve pydocs/test --model out/student/model --k 20 --out out/student-test"
        )
    if line.startswith("irdistill evaluate qrels.tsv"):
        run("irdistill runs export out/bm25-test --format trec --out run.txt.gz")
        shutil.copy(place / "mydocs" / "qrels" / "test.tsv", place / "qrels.tsv")
    if line.startswith("irdistill compare"):
        for name in ("KL.s1", "KL.s2", "MSE.s1", "MSE.s2"):
            shutil.copytree(
                out / ("student-test" if name[0] == "K" else "bm25-test"), out / "losses" / name
            )
    if " texts.txt " in line:
        (place / "texts.txt").write_text("how to swim\nwhat is a cat\n")
    if "questions.txt" in line:
        (place / "questions.txt").write_text("how long is a leave\n")
    if line.startswith("irdistill collect"):
        (place / "handbook").mkdir(exist_ok=True)
        (place / "handbook" / "leave.md").write_text("# Leave\n\nAsk for leave a week before.")
        (place / "articles.csv").write_text("key,title,abstract,body\n1,Cats,They purr.,Long.\n")
    if line.startswith("irdistill runs import"):
        shutil.copy(place / "run.txt.gz", place / "bm25.txt.gz")
        assert gzip.decompress((place / "bm25.txt.gz").read_bytes())
    if "quickstart bundle" in line:
        (out / "quickstart").mkdir(exist_ok=True)
    if "judgments" in line and "view" not in line:
        add_judgments(place, "bob" if "agreement" in line else "anna")
    if line.startswith("irdistill runs merge"):
        for number in (1, 2):
            run(
                "irdistill score pydocs/train --candidates out/bm25 --teacher bm25 --shard"
                f" {number}/2 --part-queries 4 --out out/shard-{number}"
            )
    if line.startswith("irdistill filter") and not (out / "teacher").exists():
        run("irdistill retrieve out/queries#train --out out/queries-bm25")
        run(
            "irdistill score out/queries#train --candidates out/queries-bm25 --teacher bm25 --out"
            " out/teacher"
        )


def add_judgments(place: Path, judge: str) -> None:
    """What a person judged on the page."""
    if not (place / "judgments" / f"{judge}.jsonl").exists():
        collection = open_collection("pydocs/train").describe()
        with JudgmentLog(place / "judgments", judge, collection) as log:
            log.add("q001", "d001", 1)
            log.add("q001", "d002", 0)


def in_order(line: str) -> int:
    """Sort key of a line: commands that create files come before those that read them."""
    late = ("irdistill search bundle", "irdistill explain", "irdistill view")
    if line.startswith(late) or "out/compressed/model" in line or "--feedback" in line:
        return 100
    first = (
        "cards",
        "retrieve pydocs",
        "score",
        "fuse",
        "train",
        "search",
        "evaluate",
        "generate",
        "filter",
        "split",
        "retrieve out",
    )
    return next(
        (place for place, verb in enumerate(first) if line.startswith(f"irdistill {verb}")),
        len(first),
    )


@pytest.mark.slow
def test_every_example_runs(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for line in sorted(ALL, key=in_order):
        prepare(line, place)
        run(line)
        assert "Traceback" not in capsys.readouterr().err
    made = [
        "out/student/model/README.md",
        "report.html",
        "report.md",
        "audit.html",
        "costs.json",
        "fused.txt.gz",
        "mine.yaml",
        "out/quickstart/results.json",
        "out/short/report.md",
        "out/mine/terms/model",
        "out/backbone/model",
        "out/losses.svg",
        "out/beir/results.json",
        "out/minilm.yaml",
    ]
    assert [path for path in made if not (place / path).exists()] == []


def shell_lines(text: str) -> Iterator[str]:
    """The irdistill commands in the code blocks of a page, lines joined where they end with a
    backslash.
    """
    for block in re.findall(r"```(?:\w*)\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            command = line.strip().removeprefix("$ ").partition("  #")[0].strip()
            if (
                re.match(r"(torchrun .*-m )?irdistill ", command)
                and "…" not in command
                and "..." not in command
            ):
                yield command[command.index("irdistill ") :]


PAGES = [
    REPOSITORY / "README.md",
    *sorted((REPOSITORY / "docs").rglob("*.md")),
    REPOSITORY / "data" / "README.md",
    REPOSITORY / "recipes" / "README.md",
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_the_docs_can_be_parsed(page: Path) -> None:
    for line in shell_lines(page.read_text(encoding="utf-8")):
        shown = re.sub(r"\$\w+", "1", re.split(r" [|<>&;]+ ", line)[0])
        words = shlex.split(shown)[1:]
        if words[0] in ("--version", "--help"):
            continue
        command: click.Command = cli
        name = "irdistill"
        while isinstance(command, click.Group):
            name = words.pop(0)
            inner = command.get_command(click.Context(command), name)
            assert inner is not None, f"{page.name}: {line}"
            command = inner
        try:
            context = command.make_context(name, words)
            verb_name = line.removeprefix("irdistill ").partition(name)[0] + name
            checked_options(load_verb(verb_name), context.params)
        except click.exceptions.Exit:
            continue  # --help
        except click.ClickException as error:
            raise AssertionError(f"{page.name}: {line}: {error.format_message()}") from error
        except IrdistillError as error:
            raise AssertionError(f"{page.name}: {line}: {error}") from error
