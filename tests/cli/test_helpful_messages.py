"""Errors of the command line and of Python name the fix."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import irdistill as ird
from irdistill.cli.entry_point import main
from irdistill.errors import ModelError, NotFoundError, OptionError
from irdistill.modeling.hub import check_hub_model
from irdistill.modeling.model_files import check_model_folder
from irdistill.teachers.function_teacher import FunctionTeacher, load_reference
from irdistill.verbs import load_verb

JUDGMENTS = {"q1": {"d1": 1}}
RUN = {"q1": {"d1": 2.0, "d2": 1.0}}


def test_quiet_and_debug_may_follow_the_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["cards", "list", "--quiet", "--debug"])
    assert stop.value.code == 0
    assert "minilm" in capsys.readouterr().out


def test_a_misspelt_command_is_answered_with_a_close_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["evalute"])
    assert re.search(r"Did you mean.*evaluate", capsys.readouterr().err)


def test_evaluate_without_runs_and_with_an_unknown_baseline() -> None:
    with pytest.raises(OptionError, match="no runs were given; write: irdistill evaluate COLLEC"):
        ird.evaluate(JUDGMENTS, {})
    with pytest.raises(OptionError, match="no runs were given"):
        ird.evaluate(JUDGMENTS)
    with pytest.raises(OptionError, match="the baseline 'x' is none of the runs: a, b"):
        ird.evaluate(JUDGMENTS, {"a": RUN, "b": RUN}, baseline="x")


def test_the_folder_of_a_training_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    with pytest.raises(ModelError) as error:
        check_model_folder(tmp_path)
    assert str(error.value) == f"{tmp_path} is no model itself; its model is {tmp_path / 'model'}."


def test_the_folder_of_several_trainings_is_no_model(tmp_path: Path) -> None:
    for name in ("train", "terms"):
        (tmp_path / name / "model").mkdir(parents=True)
        (tmp_path / name / "model" / "config.json").write_text("{}")
    models = f"{tmp_path / 'terms' / 'model'}, {tmp_path / 'train' / 'model'}."
    with pytest.raises(ModelError) as error:
        check_model_folder(tmp_path)
    assert str(error.value) == f"{tmp_path} is no model itself; give one of its models: {models}"
    (tmp_path / "report.md").write_text("# Report")
    with pytest.raises(ModelError, match=r"models; \S+report.md names the one that is kept: "):
        check_model_folder(tmp_path)


def test_a_misspelt_retriever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(NotFoundError, match=r"Did you mean bm25\?"):
        check_hub_model("bm52")


def test_steps_and_epochs_are_alternatives_for_a_caller_and_not_for_a_recipe() -> None:
    verb = load_verb("train")
    with pytest.raises(OptionError, match="steps and epochs were given; give one of them"):
        verb.refuse_alternatives({"steps": 5, "epochs": 2})
    verb.refuse_alternatives({"steps": 5, "epochs": 0})


def test_values_and_names_of_options() -> None:
    verb = load_verb("retrieve")
    with pytest.raises(OptionError, match="k is 'many'; expected an integer"):
        verb.check({"collection": "pydocs/test", "k": "many"})
    with pytest.raises(OptionError, match="k is 0; expected at least 1"):
        verb.check({"collection": "pydocs/test", "k": 0})
    with pytest.raises(OptionError, match="has no option 'zzzzzz'; its options are collection"):
        verb.check({"zzzzzz": 1})
    with pytest.raises(OptionError, match="train needs a loss, such as "):
        load_verb("train").check({"collection": "pydocs/train", "scores": "out/x"})


def test_functions_that_are_no_teachers(tmp_path: Path) -> None:
    def alone(queries: list[str]) -> np.ndarray:
        return np.zeros(len(queries))

    with pytest.raises(OptionError, match=r"takes \(queries, documents\) and its settings"):
        FunctionTeacher(alone)  # type: ignore[arg-type]
    path = tmp_path / "own_scores.py"
    path.write_text("def overlap(queries, documents):\n    return [0.0] * len(queries)\n")
    with pytest.raises(NotFoundError, match=r"has no function 'nosuch'; it has: overlap\."):
        load_reference(f"{path}:nosuch")
