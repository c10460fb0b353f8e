"""Cards: found under every accepted name, listed with close names, copied without overwriting."""

from __future__ import annotations

from pathlib import Path

import pytest

from irdistill import IrdistillError
from irdistill.card_files import CARD_KINDS, card_folder, choose_card, find_card, list_cards
from irdistill.evaluation.suites import read_suite
from irdistill.recipes import read_recipe
from irdistill.teachers.teacher_card import card_of


@pytest.mark.parametrize(
    "name",
    [
        "quickstart",
        "quickstart.yaml",
        "recipes/quickstart.yaml",
        "recipes/quickstart",
        "./recipes/quickstart.yaml",
    ],
)
def test_packaged_card_is_found_outside_a_checkout(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_card("recipes", name) == card_folder("recipes") / "quickstart.yaml"
    assert read_recipe(name).name == "quickstart"


def test_file_of_the_user_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "quickstart.yaml").write_text("stages: []\n")
    assert find_card("recipes", "recipes/quickstart.yaml") == Path("recipes/quickstart.yaml")
    assert (
        find_card("data", "data/prompts/rewrite.yaml")
        == card_folder("data") / "prompts" / "rewrite.yaml"
    )


@pytest.mark.parametrize(
    ("kind", "name", "close"),
    [
        ("teachers", "minlm", "minilm"),
        ("eval", "bier", "beir"),
        ("recipes", "quikstart", "quickstart"),
        ("data", "prompts/rewrit", "prompts/rewrite"),
        ("recipes", "", ""),
    ],
)
def test_unknown_name_lists_close_ones(kind: str, name: str, close: str) -> None:
    with pytest.raises(IrdistillError) as error:
        find_card(kind, name)
    assert (f"Close names: {close}" in str(error.value)) == bool(close)
    assert f"All names: irdistill cards list {kind}." in str(error.value)
    assert len(str(error.value)) < 300


def test_unknown_teacher_suite_and_recipe() -> None:
    with pytest.raises(
        IrdistillError,
        match=r"no teacher 'ms-marco-minilm'.*Close names: .*ms-marco-minilm-l6.*All names: irdistill cards list teachers",
    ):
        card_of("ms-marco-minilm")
    with pytest.raises(
        IrdistillError, match=r"there is no suite 'nanobier'. Close names: nanobeir"
    ):
        read_suite("nanobier")
    with pytest.raises(
        IrdistillError, match=r"there is no recipe 'margin_mse'. Close names: margin-mse"
    ):
        read_recipe("margin_mse")


def test_every_card_is_listed_once_and_chosen_by_its_name() -> None:
    cards = list_cards()
    assert {card.kind for card in cards} == set(CARD_KINDS) and len(
        {(card.kind, card.name) for card in cards}
    ) == len(cards)
    for card in cards:
        assert choose_card(f"{card.kind}/{card.name}") == card == choose_card(card.name, card.kind)
    assert (
        choose_card("minilm.yaml").path.name == "minilm.yaml"
        and choose_card("pydocs-howto").path.suffix == ".jsonl"
    )
    with pytest.raises(
        IrdistillError, match=r"there is no card 'rewrte'. Close names: prompts/rewrite"
    ):
        choose_card("rewrte")
    with pytest.raises(
        IrdistillError, match=r"no cards of the kind 'suites'\. The kinds are teachers, eval"
    ):
        list_cards("suites")
