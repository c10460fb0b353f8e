"""Prompts with common beginnings: groups of them, and a key-value cache of the beginning that all
of a group read.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from irdistill.teachers.llm.chat import common_prefix


class Group(NamedTuple):
    """Sequences whose first ``length`` ids are equal; ``members`` are their positions."""

    length: int
    members: list[int]


def group_by_prefix(sequences: Sequence[Sequence[int]], least: int = 16) -> list[Group]:
    """Group sequences so that as much as possible is computed only once.

    Sequences are sorted, so that common beginnings are adjacent, and a group takes the next
    sequence while its savings, (members - 1) x length, grow. So the candidates of a query stay
    together, and queries are joined if their candidates are few compared to what all prompts share.

    Args:
        sequences: token ids, of any length from 1.
        least: shorter common beginnings are ignored; sequences without a longer one form one group
            of length 0.

    Returns:
        Each sequence in one group; at least its last id is outside the common beginning.

    Examples:
        >>> group_by_prefix([[1, 2, 3], [1, 2, 4], [9]], least=2)
        [Group(length=2, members=[0, 1]), Group(length=0, members=[2])]
    """
    if not sequences:
        return []
    order = sorted(range(len(sequences)), key=lambda place: tuple(sequences[place]))
    groups: list[Group] = []
    length, members = len(sequences[order[0]]) - 1, order[:1]
    for before, place in pairwise(order):
        prefix_length = len(sequences[place]) - 1
        shared = min(common_prefix(sequences[before], sequences[place]), length, prefix_length)
        if shared >= least and shared * len(members) >= length * (len(members) - 1):
            length = shared
            members.append(place)
        else:
            groups.append(Group(length, members))
            length, members = prefix_length, [place]
    groups.append(Group(length, members))
    alone = sorted(place for group in groups if len(group.members) == 1 for place in group.members)
    return [
        *(group for group in groups if len(group.members) > 1),
        *([Group(0, alone)] if alone else []),
    ]


class SharedPrefix(Cache):
    """Keys and values of one common beginning, read by any number of rows.

    Rows read the beginning through a view of batch size n without a copy. The keys of beginning and
    suffix are joined only while a layer is computed, and are not kept. So one cache serves all
    batches of a group.
    """

    def __init__(self, prefix: DynamicCache) -> None:
        super().__init__(layers=prefix.layers)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Keys and values, (n, heads, prefix + suffix, width), of the beginning and of these
        suffixes.
        """
        layer, rows = self.layers[layer_idx], key_states.shape[0]
        return (
            torch.cat([layer.keys.expand(rows, -1, -1, -1), key_states], dim=-2),
            torch.cat([layer.values.expand(rows, -1, -1, -1), value_states], dim=-2),
        )


def can_share(cache: object) -> bool:
    """Whether a model's cache holds keys and values only; a recurrent state cannot be shared by
    rows.
    """
    layers = getattr(cache, "layers", None) or [None]
    return isinstance(cache, DynamicCache) and all(
        type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers
    )
