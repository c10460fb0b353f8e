"""Prompts that begin alike: which to put together, and a key-value cache of the beginning that all
of them read.
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
    """Sequences whose first ``length`` ids are the same; ``members`` are their places."""

    length: int
    members: list[int]


def group_by_prefix(sequences: Sequence[Sequence[int]], least: int = 16) -> list[Group]:
    """Put sequences together so that much need be computed only once.

    Sequences are sorted, which brings those that begin alike next to each other, and a group takes
    the next one while what it saves, (members - 1) x length, grows by that. So the candidates of a
    query stay together, and queries are joined where their candidates are few beside what all
    prompts share.

    Args:
        sequences: token ids, of any length from 1.
        least: a shorter prefix is not worth a call of its own; sequences without a longer one come
            as one group of length 0.

    Returns:
        Each sequence in one group; at least its last id is outside the prefix.
    """
    if not sequences:
        return []
    order = sorted(range(len(sequences)), key=lambda place: tuple(sequences[place]))
    groups: list[Group] = []
    length, members = len(sequences[order[0]]) - 1, order[:1]
    for before, place in pairwise(order):
        own = len(sequences[place]) - 1
        shared = min(common_prefix(sequences[before], sequences[place]), length, own)
        if shared >= least and shared * len(members) >= length * (len(members) - 1):
            length = shared
            members.append(place)
        else:
            groups.append(Group(length, members))
            length, members = own, [place]
    groups.append(Group(length, members))
    alone = sorted(place for group in groups if len(group.members) == 1 for place in group.members)
    return [
        *(group for group in groups if len(group.members) > 1),
        *([Group(0, alone)] if alone else []),
    ]


class SharedPrefix(Cache):
    """Keys and values of one beginning, read by any number of rows.

    Rows see the beginning through a view of batch size n without a copy of their own; a layer's
    keys of beginning and suffix stand together only while that layer is computed, and are not kept.
    So one cache serves all batches of a group.
    """

    def __init__(self, prefix: DynamicCache) -> None:
        super().__init__(layers=prefix.layers)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Keys and values, (n, heads, prefix + suffix, width), of the beginning and these
        suffixes.
        """
        layer, rows = self.layers[layer_idx], key_states.shape[0]
        return (
            torch.cat([layer.keys.expand(rows, -1, -1, -1), key_states], dim=-2),
            torch.cat([layer.values.expand(rows, -1, -1, -1), value_states], dim=-2),
        )


def can_share(cache: object) -> bool:
    """Whether a model's cache holds keys and values alone; a recurrent state cannot be read by many
    rows like this.
    """
    layers = getattr(cache, "layers", None) or [None]
    return isinstance(cache, DynamicCache) and all(
        type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers
    )
