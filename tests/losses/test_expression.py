"""The loss language reads what it writes, and says what is wrong with the rest."""

from __future__ import annotations

import pytest

from irdistill.errors import IrdistillError
from irdistill.losses import KL, MSE, Cut, InfoNCE, MarginMSE, Sum, parse_loss


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("MarginMSE", "MarginMSE"),
        ("MarginMSE()", "MarginMSE"),
        ('MarginMSE(pairs="all", scale=20)', 'MarginMSE(pairs="all", scale=20)'),
        (
            "KL(tau=0.05, teacher_tau=0.3) + 0.1*InfoNCE(tau=0.01)",
            "KL(tau=0.05, teacher_tau=0.3) + 0.1*InfoNCE(tau=0.01)",
        ),
        ("KL(tau = 1)", "KL"),
        ("KL(teacher_tau=2, tau=1e-3)", "KL(tau=0.001, teacher_tau=2)"),
        ("2*KL@20", "2*KL@20"),
        ("1*KL", "KL"),
        ("0.5*(KL + 2*MSE)@10", "0.5*KL@10 + MSE@10"),
        ("KL*0.25", "0.25*KL"),
        (
            'InfoNCE(negatives="batch", masked="teacher")',
            'InfoNCE(negatives="batch", masked="teacher")',
        ),
    ],
)
def test_reading_and_writing(text: str, written: str) -> None:
    loss = parse_loss(text)
    assert str(loss) == written
    assert parse_loss(str(loss)) == loss


def test_the_objects_are_those_built_by_hand() -> None:
    assert parse_loss("KL(tau=0.05) + 0.1*InfoNCE(tau=0.01)") == KL(tau=0.05) + 0.1 * InfoNCE(
        tau=0.01
    )
    assert parse_loss("KL@20") == Cut(KL(), 20) == KL() @ 20
    assert parse_loss("0.1*MSE") == Sum(((0.1, MSE()),))
    loss = KL()
    assert parse_loss(loss) is loss


def test_needs() -> None:
    assert parse_loss("KL@3").needs == {"score"}
    assert parse_loss("MarginMSE").needs == {"margin", "label"}
    assert MarginMSE(pairs="all").needs == {"margin"}
    assert parse_loss("KL + 0.1*InfoNCE").needs == {"score", "label"}
    assert InfoNCE(positive_by="teacher").needs == {"order"}
    assert parse_loss("KL").uses_in_batch is False
    assert parse_loss("KL + 0.1*InfoNCE").uses_in_batch is True
    assert parse_loss('KL + 0.1*InfoNCE(negatives="list")').uses_in_batch is False


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("KLL", "Did you mean KL(tau=1.0, teacher_tau=1.0, top=None, negatives='list')?"),
        ("kl", "Did you mean KL(tau=1.0"),
        (
            "KL(temperature=2)",
            "no parameter 'temperature'. It is written KL(tau=1.0, teacher_tau=1.0, top=None, negatives='list')",
        ),
        ("KL(0.05)", "written with their names, as in KL(tau=1.0"),
        ("KL(tau=0)", "must be a finite number above 0"),
        ("KL(tau=-1)", "must be a finite number above 0"),
        ('KL(tau="a")', "must be a finite number above 0"),
        ('MarginMSE(pairs="some")', 'pairs must be one of "positive", "all"'),
        ("KL +", "cannot be read"),
        ("", "cannot be read"),
        ("0.5", "is a number"),
        ("KL - MSE", "has no meaning"),
        ("KL@0", "whole number of at least 1"),
        ("KL@2.5", "has no meaning"),
        ("0*KL", "must be a finite number above 0"),
        ("KL*MSE", "has no meaning"),
        ("__import__('os').system('true')", "no loss"),
        ("KL(tau=[1])", "must be a number"),
    ],
)
def test_errors_say_what_is_known(text: str, said: str) -> None:
    with pytest.raises(IrdistillError) as caught:
        parse_loss(text)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "+".join(["KL"] * 20_000),
        "-" * 5000 + "KL",
        "2*" * 3000 + "KL",
        "(" * 300 + "KL" + ")" * 300,
    ],
)
def test_endless_expressions_are_refused(text: str) -> None:
    with pytest.raises(IrdistillError, match="the loss"):
        parse_loss(text)
