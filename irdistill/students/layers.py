"""Making an encoder shallower: which layers to keep, and taking the others out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from irdistill.errors import IrdistillError


def evenly_spaced(keep: int, total: int) -> list[int]:
    """``keep`` layer numbers spread over ``total`` layers, the first and the last among them.

    For 6 of 12 it is 0, 2, 4, 7, 9, 11, the choice of DistilBERT (Sanh et al. 2019,
    arXiv:1910.01108).
    """
    if keep == 1:
        return [0]
    return [int(index * (total - 1) / (keep - 1) + 0.5) for index in range(keep)]


def choose_layers(layers: int | Sequence[int], total: int) -> list[int]:
    """The layer numbers meant by a count (evenly spaced) or by a list (negative numbers count from
    the end).

    Raises:
        IrdistillError: more layers than there are, none at all, or a list that is not ascending.
    """
    if isinstance(layers, int):
        if not 1 <= layers <= total:
            raise IrdistillError(
                f"layers={layers} was asked for and the backbone has {total}; give 1 to {total}."
            )
        return evenly_spaced(layers, total)
    chosen = [layer + total if layer < 0 else layer for layer in layers]
    if not chosen or chosen != sorted(set(chosen)) or chosen[0] < 0 or chosen[-1] >= total:
        raise IrdistillError(
            f"layers={list(layers)} was asked for and the backbone has {total}; "
            f"give different layer numbers from 0 to {total - 1} in ascending order."
        )
    return chosen


def find_layers(backbone: Any) -> tuple[nn.Module, str, nn.ModuleList]:
    """The module that owns the encoder's layer list, the list's name there, and the list.

    It is the biggest ``ModuleList`` with as many members as the config states layers, which holds
    for BERT, DistilBERT, RoBERTa, ELECTRA, MPNet, ModernBERT and their like.

    Raises:
        IrdistillError: there is no such list (ALBERT shares one layer, for instance).
    """
    total = getattr(backbone.config, "num_hidden_layers", None)
    found: list[tuple[int, nn.Module, str, nn.ModuleList]] = []
    for owner in backbone.modules():
        for name, child in owner.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == total:
                found.append((sum(p.numel() for p in child.parameters()), owner, name, child))
    if not found:
        raise IrdistillError(
            f"cannot take layers out of {type(backbone).__name__}: no list of its {total} layers"
            " was found (a model that shares its layers has none). Leave out layers= and"
            " query_layers=, or use another backbone."
        )
    _, owner, name, layers = max(found, key=lambda entry: entry[0])
    return owner, name, layers


def keep_layers(backbone: Any, layers: int | Sequence[int]) -> list[int]:
    """Remove from a backbone, in place, all layers but the chosen ones; its config is made to
    agree.

    Config lists with one entry a layer (``layer_types`` of ModernBERT) are cut in the same way, so
    that the saved folder loads as the same function.

    Returns:
        The numbers of the kept layers in the former backbone.

    Raises:
        IrdistillError: see ``choose_layers`` and ``find_layers``; or layer 0 of a ModernBERT is
            left out, which has another structure than the rest.
    """
    owner, name, modules = find_layers(backbone)
    total = len(modules)
    chosen = choose_layers(layers, total)
    config = backbone.config
    if config.model_type == "modernbert" and chosen[0] != 0:
        raise IrdistillError(
            f"layers={list(chosen)} leaves out layer 0, which ModernBERT needs; begin the list"
            " with 0."
        )
    for key, value in list(vars(config).items()):
        if isinstance(value, (list, tuple)) and len(value) == total and key != "architectures":
            setattr(config, key, type(value)(value[layer] for layer in chosen))
    setattr(owner, name, nn.ModuleList(modules[layer] for layer in chosen))
    config.num_hidden_layers = len(chosen)
    return chosen
