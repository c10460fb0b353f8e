"""Losses as values: they are called, printed, compared, added, weighted and cut to a depth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, Self, TypeVar, dataclass_transform

import torch
from torch import Tensor, nn

from irdistill.errors import OptionError
from irdistill.losses.batch import ScoreBatch
from irdistill.losses.parameter_checks import Positive, check_value, parameter_types
from irdistill.losses.representations import FittingSample

#: What a loss may need: the teacher's ``order``, ``score`` or ``margin``, the ``label`` of the
#: qrels, the teacher's ``representation``, or its ``in_batch`` scores of all documents.
NEEDS = frozenset({"order", "score", "margin", "label", "representation", "in_batch"})

#: What can be read of a teacher's scores of a list.
TEACHER_NEEDS = frozenset({"order", "score", "margin"})

#: Every named loss; the expression language knows exactly these.
REGISTRY: dict[str, type[Loss]] = {}

L = TypeVar("L", bound="type[Loss]")
Requirement = Iterable[str] | Callable[[Any], Iterable[str]]
#: What of the teacher a loss copies with the student: its scores, differences of scores, or the
#: distribution ``softmax(t / teacher_tau)``.
Compared = Literal["scores", "margins", "distributions"]
#: The documents that a loss compares: those of the query's list, or all documents of the batch.
ListDocuments = Literal["list", "batch"]


@dataclass_transform(frozen_default=True)
def register(
    name: str,
    *,
    needs: Requirement = (),
    in_batch: bool | Callable[[Any], bool] = False,
    compares: Compared | None = None,
    lists_of_batch: bool = False,
) -> Callable[[L], L]:
    """Class decorator that makes a subclass of `Loss` a loss with a name.

    The class becomes a frozen dataclass. Its annotated attributes are the parameters of the loss;
    they need defaults, and values are checked against their types (``bool``, ``int``, ``str``,
    ``Literal``, ``Positive``, `AtLeast`). The loss then works in Python and in expressions.

    Args:
        name: the name in expressions.
        needs: what the loss reads, a subset of `NEEDS`; or a function of the loss, where that
            depends on its parameters.
        in_batch: whether the loss reads the (B, U) in-batch scores; or a function of the loss.
        compares: what the loss copies of the teacher, which decides the checks of the teacher's
            scores before the first step. ``"scores"`` and ``"margins"``: can a cosine student,
            multiplied by the parameter ``scale`` if there is one, reach them? ``"distributions"``:
            does the parameter ``teacher_tau`` (1 if there is none) make them one-hot or uniform?
        lists_of_batch: the loss has a parameter ``negatives: ListDocuments = "list"``. With
            ``"batch"`` it is computed on `ScoreBatch.over_batch`, and needs the teacher's
            ``in_batch`` scores instead of those of the lists.

    Raises:
        OptionError: the name is taken or is not an identifier, or a need is unknown.

    Examples:
        >>> @register("Smooth", needs={"score"})
        ... class Smooth(Loss):
        ...     tau: Positive = 1.0
        ...
        ...     def compute(self, batch):
        ...         scored = batch.scored
        ...         if not scored.any():
        ...             return batch.zero()
        ...         return torch.nn.functional.smooth_l1_loss(
        ...             batch.student[scored] / self.tau, batch.teacher[scored]
        ...         )
        >>> 0.5 * Smooth(tau=2) @ 10
        0.5*Smooth(tau=2)@10
        >>> Smooth()(ScoreBatch(student=torch.zeros(1, 2), teacher=torch.ones(1, 2)))
        tensor(0.5000)
    """
    if not name.isidentifier():
        raise OptionError(f"{name!r} cannot name a loss; give letters, digits and underscores.")
    if not callable(needs):
        needs = frozenset(needs)
        if unknown := needs - NEEDS:
            raise OptionError(
                f"the loss {name!r} needs {', '.join(sorted(unknown))}; known needs are"
                f" {', '.join(sorted(NEEDS))}."
            )

    def add(kind: L) -> L:
        known = REGISTRY.get(name)
        here = (kind.__module__, kind.__qualname__)
        if known is not None and (known.__module__, known.__qualname__) != here:
            raise OptionError(
                f"a loss named {name!r} exists ({known.__module__}); choose another name."
            )
        if lists_of_batch and not hasattr(kind, "negatives"):
            raise OptionError(
                f"the loss {name!r} has lists_of_batch and no parameter negatives; add"
                ' `negatives: ListDocuments = "list"` to it.'
            )
        dataclass(frozen=True, repr=False)(kind)  # changes the class in place
        kind.name, kind._needs, kind._in_batch = name, needs, in_batch
        kind.compares, kind._lists_of_batch = compares, lists_of_batch
        REGISTRY[name] = kind
        return kind

    return add


def number(value: float) -> str:
    """A number as expressions write it: ``0.05``, ``2``."""
    return repr(float(value)).removesuffix(".0")


def signature(loss: str | type[Loss]) -> str:
    """A loss with its parameters and defaults: ``MSE(scale=1.0)``."""
    kind = REGISTRY[loss] if isinstance(loss, str) else loss
    parameters = ", ".join(f"{field.name}={field.default!r}" for field in fields(kind))  # type: ignore[arg-type]
    return f"{kind.name}({parameters})"


def check_parameter_names(kind: type[Loss], parameters: Iterable[str]) -> None:
    """Check that a loss has these parameters.

    Raises:
        OptionError: it lacks one.
    """
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    for parameter in parameters:
        if parameter not in known:
            raise OptionError(
                f"{kind.name} has no parameter {parameter!r}. It is written {signature(kind)}."
            )


class Loss(ABC):
    """A function of a `ScoreBatch`. Subclasses are made by `register`.

    Losses are values: equal parameters make equal losses, ``+`` adds, ``*`` weights, ``@`` cuts
    each list to a depth, and ``str`` gives the expression that `parse_loss` reads.

    Examples:
        >>> from irdistill.losses import KL, InfoNCE, parse_loss
        >>> loss = KL(tau=0.05) + 0.1 * InfoNCE()
        >>> loss
        KL(tau=0.05) + 0.1*InfoNCE
        >>> parse_loss(str(loss)) == loss
        True
    """

    name: ClassVar[str] = ""
    #: Whether the loss may have trainable parameters (see `make_parameters`).
    has_parameters: ClassVar[bool] = False
    #: Whether its parameters are fitted to a `FittingSample` before the first step.
    fits_to_sample: ClassVar[bool] = False
    #: What the loss copies of the teacher (see `register`).
    compares: ClassVar[Compared | None] = None
    _needs: ClassVar[Requirement] = ()
    _in_batch: ClassVar[bool | Callable[[Any], bool]] = False
    _lists_of_batch: ClassVar[bool] = False

    def __new__(cls, *values: Any, **parameters: Any) -> Self:
        """Refuse a parameter that the loss does not have, as expressions do."""
        if cls.name:
            check_parameter_names(cls, parameters)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        for parameter, hint in parameter_types(type(self)).items():
            value = check_value(self.name, parameter, getattr(self, parameter), hint)
            object.__setattr__(self, parameter, value)

    @property
    def needs(self) -> frozenset[str]:
        """What the batch must hold, a subset of `NEEDS`."""
        requirement = type(self)._needs
        needs = frozenset(requirement(self) if callable(requirement) else requirement)
        if self._over_batch and needs & TEACHER_NEEDS:
            return needs - TEACHER_NEEDS | {"in_batch"}
        return needs

    @property
    def _over_batch(self) -> bool:
        """Whether the lists of the loss are all documents of the batch."""
        return self._lists_of_batch and self.negatives == "batch"  # type: ignore[attr-defined]

    @property
    def uses_in_batch(self) -> bool:
        """Whether the student's (B, U) scores against the documents of all lists are read."""
        in_batch = type(self)._in_batch
        return self._over_batch or (in_batch(self) if callable(in_batch) else in_batch)

    @property
    def representations(self) -> frozenset[str]:
        """Which representations are read, a subset of the fields of `BatchRepresentations`."""
        return frozenset()

    def make_parameters(
        self, example: ScoreBatch, sample: FittingSample | None
    ) -> nn.Module | None:
        """A new module of the loss's trainable parameters, or None where it has none.

        Args:
            example: a batch of the shapes that the loss will see.
            sample: scored pairs of the whole training set, if ``fits_to_sample``.
        """
        return None

    def parameters_in(self, batch: ScoreBatch) -> nn.Module:
        """The trainable parameters of this loss, as the batch carries them.

        Raises:
            ValueError: the batch carries none for this loss.
        """
        if str(self) not in batch.parameters:
            raise ValueError(
                f"{self} has trainable parameters: make them with make_loss_parameters and pass"
                " them as ScoreBatch(parameters=...)"
            )
        return batch.parameters[str(self)]

    @property
    def basic_losses(self) -> tuple[Loss, ...]:
        """The losses of the expression without weights and cuts."""
        return (self,)

    @property
    def terms(self) -> tuple[tuple[float, Loss], ...]:
        """The weighted summands; a basic loss is one summand of weight 1."""
        return ((1.0, self),)

    @abstractmethod
    def compute(self, batch: ScoreBatch) -> Tensor:
        """The loss with at most one teacher: ``batch.teacher`` is (B, N) or None."""

    def of_lists(self, batch: ScoreBatch, depth: int | None = None) -> Tensor:
        """The loss with at most one teacher, on the lists that it reads, cut to ``depth``."""
        lists = batch.over_batch() if self._over_batch else batch
        return self.compute(lists if depth is None else lists.top(depth))

    def __call__(self, batch: ScoreBatch) -> Tensor:
        """The loss, a scalar. With several teachers (T, B, N) it is the mean of the T losses.

        ``batch.teacher_weights`` (T,) makes it a weighted mean. Weights (T, B) differ from list to
        list: then each list is a batch by itself, and the result is the mean over the lists.
        """
        if batch.teacher is None or batch.teacher.dim() == 2:
            return self.of_lists(batch)
        teachers, lists = batch.teacher.shape[:2]
        weights = batch.teacher_weights
        if weights is not None and weights.dim() == 2:
            return torch.stack([self(batch.one_list(place)) for place in range(lists)]).mean()
        losses = torch.stack([self.of_lists(batch.for_teacher(index)) for index in range(teachers)])
        return losses.mean() if weights is None else (losses * weights).sum() / weights.sum()

    def __str__(self) -> str:
        written = [
            f"{field.name}={_written(getattr(self, field.name))}"
            for field in fields(self)  # type: ignore[arg-type]
            if getattr(self, field.name) != field.default
        ]
        return f"{self.name}({', '.join(written)})" if written else self.name

    def __repr__(self) -> str:
        return str(self)

    def __add__(self, other: Loss) -> Loss:
        return weighted_sum(self.terms + other.terms)

    def __mul__(self, weight: float) -> Loss:
        return weighted_sum(tuple((float(weight) * inner, loss) for inner, loss in self.terms))

    __rmul__ = __mul__

    def __matmul__(self, depth: int) -> Loss:
        return Cut(self, depth)


def _written(value: Any) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, bool) or value is None:
        return str(value)
    return number(value)


@dataclass(frozen=True, repr=False)
class Sum(Loss):
    """A weighted sum: ``KL + 0.1*InfoNCE``."""

    parts: tuple[tuple[float, Loss], ...]

    def __post_init__(self) -> None:
        for weight, loss in self.parts:
            check_value("", f"weight of {loss}", weight, Positive)

    @property
    def needs(self) -> frozenset[str]:
        """The needs of all parts."""
        return frozenset().union(*(loss.needs for _, loss in self.parts))

    @property
    def uses_in_batch(self) -> bool:
        """Whether any part reads in-batch scores."""
        return any(loss.uses_in_batch for _, loss in self.parts)

    @property
    def representations(self) -> frozenset[str]:
        """The representations that the parts read."""
        return frozenset().union(*(loss.representations for _, loss in self.parts))

    @property
    def basic_losses(self) -> tuple[Loss, ...]:
        """Those of all parts."""
        return tuple(inner for _, loss in self.parts for inner in loss.basic_losses)

    @property
    def terms(self) -> tuple[tuple[float, Loss], ...]:
        """The parts."""
        return self.parts

    def compute(self, batch: ScoreBatch) -> Tensor:
        """The weighted sum of the parts."""
        return self.of_lists(batch)

    def of_lists(self, batch: ScoreBatch, depth: int | None = None) -> Tensor:
        """As `Loss.of_lists`; each part has its own lists."""
        values = [weight * loss.of_lists(batch, depth) for weight, loss in self.parts]
        return torch.stack(values).sum()

    def __matmul__(self, depth: int) -> Loss:
        return weighted_sum(tuple((weight, loss @ depth) for weight, loss in self.parts))

    def __str__(self) -> str:
        return " + ".join(
            str(loss) if weight == 1 else f"{number(weight)}*{loss}" for weight, loss in self.parts
        )


def weighted_sum(parts: tuple[tuple[float, Loss], ...]) -> Loss:
    """A `Sum`, or the loss itself if it is the only one and has weight 1."""
    return parts[0][1] if len(parts) == 1 and parts[0][0] == 1 else Sum(parts)


@dataclass(frozen=True, repr=False)
class Cut(Loss):
    """A loss on the top of each list: ``KL@20`` (see `ScoreBatch.top` for the order)."""

    inner: Loss
    depth: int

    def __post_init__(self) -> None:
        if isinstance(self.depth, bool) or not isinstance(self.depth, int) or self.depth < 1:
            raise OptionError(
                f"{self.inner}@{self.depth}: the depth after @ must be a whole number of at"
                " least 1."
            )

    @property
    def needs(self) -> frozenset[str]:
        """The needs of the inner loss."""
        return self.inner.needs

    @property
    def uses_in_batch(self) -> bool:
        """Whether the inner loss reads in-batch scores."""
        return self.inner.uses_in_batch

    @property
    def representations(self) -> frozenset[str]:
        """The representations that the inner loss reads."""
        return self.inner.representations

    @property
    def basic_losses(self) -> tuple[Loss, ...]:
        """Those of the inner loss."""
        return self.inner.basic_losses

    def compute(self, batch: ScoreBatch) -> Tensor:
        """The inner loss of the batch cut to ``depth``."""
        return self.of_lists(batch)

    def of_lists(self, batch: ScoreBatch, depth: int | None = None) -> Tensor:
        """As `Loss.of_lists`; the smaller depth counts."""
        return self.inner.of_lists(batch, self.depth if depth is None else min(depth, self.depth))

    def __str__(self) -> str:
        return f"{self.inner}@{self.depth}"


def make_loss_parameters(
    loss: Loss, example: ScoreBatch, sample: FittingSample | None = None, seed: int = 0
) -> dict[str, nn.Module]:
    """New modules of all trainable parameters of an expression, by the loss as it is written.

    The initial weights depend on ``seed`` alone. The optimizer of the student trains the modules.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        modules = {
            str(basic): basic.make_parameters(example, sample) for basic in loss.basic_losses
        }
    return {
        name: module.to(example.student.device, example.student.dtype)
        for name, module in modules.items()
        if module is not None
    }


def order_needs(loss: Any) -> set[str]:
    """The needs of a loss whose parameter ``by`` names the order it follows."""
    return {"order"} if loss.by == "teacher" else {"label"}
