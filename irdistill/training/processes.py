"""Processes that ``torchrun`` started to train one student together.

A step is the same function of (seed, step) in all processes. Each encodes its share of the step's
texts; then every process has the vectors of all texts, and computes the loss of the whole batch. No
loss depends on the number of processes, and means over pairs, lists or vectors are those of the
whole batch.
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
_TIMEOUT = timedelta(hours=6)
"""The first process may compile a corpus this long. torchrun ends all processes if one dies."""


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Attributes:
        rank: its number, from 0.
        world: number of processes.
    """

    rank: int = 0
    world: int = 1

    @classmethod
    def join(cls) -> Processes:
        """Join the processes that ``torchrun`` or ``accelerate launch`` started, if any: NCCL on
        CUDA, else gloo.
        """
        if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) < 2:
            return cls()
        if not dist.is_initialized():
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=_TIMEOUT
            )
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def agree(self, work: Callable[[], T]) -> T:
        """The result of ``work``, which only the first process does.

        Raises:
            IrdistillError: it failed in the first process.
        """
        if self.world == 1:
            return work()
        answer: list[Any] = [None, None]
        failure: BaseException | None = None
        if self.first:
            try:
                answer[0] = work()
            except BaseException as error:
                failure, answer[1] = error, _message(error)
        dist.broadcast_object_list(answer, src=0)
        if failure is not None:
            raise failure
        if answer[1] is not None:
            raise IrdistillError(answer[1])
        return answer[0]

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """The first process goes through the block alone, then all others.

        So they find what it left on disk.
        """
        if not self.first:
            self.agree(lambda: None)
        try:
            yield
        except BaseException as error:
            if self.first and self.world > 1:
                dist.broadcast_object_list([None, _message(error)], src=0)
            raise
        if self.first:
            self.agree(lambda: None)

    def share(self, count: int) -> np.ndarray:
        """(ceil(count / world),) int64, the texts that this process encodes: every ``world``-th.

        All shares have the same size; if the texts do not divide evenly, the first ones are encoded
        twice and used once.
        """
        size = -(-count // self.world)
        return np.arange(self.rank, size * self.world, self.world, dtype=np.int64) % max(count, 1)

    def gather(self, part: Any, count: int) -> Any:
        """The results of all ``count`` texts in order, with gradients, from the shares.

        Args:
            part: results of this process's share: a tensor (n, ...), or n tensors (tokens, D).
        """
        if self.world == 1 or not len(part):
            return part
        if isinstance(part, Tensor):
            return _Gather.apply(part, self).transpose(0, 1).flatten(0, 1)[:count]
        lengths = _Gather.apply(
            torch.tensor([len(vectors) for vectors in part], device=part[0].device), self
        )
        joined = torch.cat(part)
        missing = int(lengths.sum(dim=1).max()) - len(joined)
        gathered = _Gather.apply(nn.functional.pad(joined, (0, 0, 0, missing)), self)
        shares = [
            vectors[: sum(sizes)].split(sizes)
            for vectors, sizes in zip(gathered, lengths.tolist(), strict=True)
        ]
        return [vectors for turn in zip(*shares, strict=True) for vectors in turn][:count]

    def average(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its mean over the processes.

        All processes have gradients of the same parameters, as each encodes texts of all kinds.
        """
        if self.world == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        for kind in dict.fromkeys((grad.dtype, grad.device) for grad in gradients):
            alike = [
                gradient for gradient in gradients if (gradient.dtype, gradient.device) == kind
            ]
            flat = torch.cat([gradient.flatten() for gradient in alike])
            dist.all_reduce(flat)
            means = (flat / self.world).split([gradient.numel() for gradient in alike])
            for gradient, mean in zip(alike, means, strict=True):
                gradient.copy_(mean.view_as(gradient))


def _message(error: BaseException) -> str:
    return f"{error}" or type(error).__name__


class _Gather(torch.autograd.Function):
    """(n, ...) of this process to (world, n, ...) of all.

    Every process computes the loss of the whole batch, so the gradient of its own part is complete.
    It is multiplied by the number of processes because the gradients of the weights, to which each
    process contributes a part, are averaged and not summed.
    """

    @staticmethod
    def forward(ctx: Any, part: Tensor, processes: Processes) -> Tensor:
        """Gather the parts."""
        ctx.processes = processes
        parts = [torch.empty_like(part) for _ in range(processes.world)]
        dist.all_gather(parts, part.contiguous())
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """The gradient of this process's part."""
        processes: Processes = ctx.processes
        return gradients[0][processes.rank] * processes.world, None
