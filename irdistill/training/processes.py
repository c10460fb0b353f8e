"""MultiValueCommand processes that train one student, as ``torchrun`` starts them: who does what,
and what they tell each other.

A step is the same function of (seed, step) for all processes. Each encodes its share of the step's
texts; then all of them have the vectors of all texts, and compute the loss of the whole batch. So
no loss knows of processes, and means over pairs, lists or vectors are those of the whole batch
whatever share of them a process has.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from irdistill.errors import IrdistillError

T = TypeVar("T")
_PATIENCE = timedelta(
    hours=6
)  # while the first process compiles a corpus; torchrun ends all when one dies


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Attributes:
        rank: its number, from 0.
        world: how many there are.
    """

    rank: int = 0
    world: int = 1

    @classmethod
    def join(cls) -> Processes:
        """Join the others, where ``torchrun`` or ``accelerate launch`` started several: NCCL on
        CUDA, else gloo.
        """
        if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) < 2:
            return cls()
        if not dist.is_initialized():
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=_PATIENCE
            )
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    # -- one after the other
    # --------------------------------------------------------------------------------

    def agree(self, work: Callable[[], T]) -> T:
        """What ``work`` gives in the first process, which alone does it.

        Raises:
            IrdistillError: it failed there.
        """
        if self.world == 1:
            return work()
        told: list[Any] = [None, None]
        failure: BaseException | None = None
        if self.first:
            try:
                told[0] = work()
            except BaseException as error:
                failure, told[1] = error, f"{error}" or type(error).__name__
        dist.broadcast_object_list(told, src=0)
        if failure is not None:
            raise failure
        if told[1] is not None:
            raise IrdistillError(told[1])
        return told[0]

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """The first process goes through the block alone, then all others: what it leaves on the
        disk they find there.
        """
        if not self.first:
            self.agree(lambda: None)
        try:
            yield
        except BaseException as error:
            if self.first and self.world > 1:
                dist.broadcast_object_list([None, f"{error}" or type(error).__name__], src=0)
            raise
        if self.first:
            self.agree(lambda: None)

    # -- shares
    # ---------------------------------------------------------------------------------------------

    def share(self, count: int) -> np.ndarray:
        """(ceil(count / world),) int64: which of ``count`` texts this process encodes, every
        ``world``-th one.

        All have equally many; where they do not come out even, the first texts are encoded twice
        and counted once.
        """
        each = -(-count // self.world)
        return np.arange(self.rank, each * self.world, self.world, dtype=np.int64) % max(count, 1)

    def gather(self, own: Any, count: int) -> Any:
        """The results of all ``count`` texts in their order, with gradients, from each process's
        share.

        Args:
            own: (n, ...) a tensor, or n tensors (tokens, D).
        """
        if self.world == 1 or not len(own):
            return own
        if isinstance(own, Tensor):
            return _Gather.apply(own, self).transpose(0, 1).flatten(0, 1)[:count]
        lengths = _Gather.apply(
            torch.tensor([len(vectors) for vectors in own], device=own[0].device), self
        )
        joined = torch.cat(own)
        missing = int(lengths.sum(dim=1).max()) - len(joined)
        gathered = _Gather.apply(nn.functional.pad(joined, (0, 0, 0, missing)), self)
        parts = [
            vectors[: sum(each)].split(each)
            for vectors, each in zip(gathered, lengths.tolist(), strict=True)
        ]
        return [vectors for together in zip(*parts, strict=True) for vectors in together][:count]

    def average(self, parameters: Iterable[nn.Parameter]) -> None:
        """Make each gradient its mean over the processes. As each encodes texts of all sorts, all
        have the same gradients.
        """
        if self.world == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        for kind in dict.fromkeys((gradient.dtype, gradient.device) for gradient in gradients):
            some = [gradient for gradient in gradients if (gradient.dtype, gradient.device) == kind]
            flat = torch.cat([gradient.flatten() for gradient in some])
            dist.all_reduce(flat)
            means = (flat / self.world).split([gradient.numel() for gradient in some])
            for gradient, mean in zip(some, means, strict=True):
                gradient.copy_(mean.view_as(gradient))


class _Gather(torch.autograd.Function):
    """(n, ...) of this process to (world, n, ...) of all.

    Every process computes the same loss of the whole, so the gradient of its own part is complete
    here. It is multiplied by the number of processes because the gradients of the weights, to which
    each process gives a part, are averaged and not summed.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor, processes: Processes) -> Tensor:
        ctx.processes = processes
        parts = [torch.empty_like(own) for _ in range(processes.world)]
        dist.all_gather(parts, own.contiguous())
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        processes: Processes = ctx.processes
        return gradients[0][processes.rank] * processes.world, None
