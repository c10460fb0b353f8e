"""Removing layers from an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from irdistill.errors import OptionError


def evenly_spaced(keep: int, total: int) -> list[int]:
    """``keep`` layer numbers spread over ``total`` layers, with the first and the last.

    6 of 12 are those of DistilBERT (Sanh et al. 2019, arXiv:1910.01108).

    Examples:
        >>> evenly_spaced(6, 12)
        [0, 2, 4, 7, 9, 11]
    """
    if keep == 1:
        return [0]
    return [int(index * (total - 1) / (keep - 1) + 0.5) for index in range(keep)]


def choose_layers(layers: int | Sequence[int], total: int) -> list[int]:
    """The layer numbers of a count, evenly spaced, or of a list; negative ones count from the end.

    Raises:
        OptionError: the backbone lacks such layers, there are none, or the list is not ascending.
    """
    if isinstance(layers, int):
        if not 1 <= layers <= total:
            raise OptionError(
                f"layers={layers} was given, but the backbone has {total}; give 1 to {total}."
            )
        return evenly_spaced(layers, total)
    chosen = [layer + total if layer < 0 else layer for layer in layers]
    if not chosen or chosen != sorted(set(chosen)) or chosen[0] < 0 or chosen[-1] >= total:
        raise OptionError(
            f"layers={list(layers)} was given, but the backbone has {total}; "
            f"give different layer numbers from 0 to {total - 1} in ascending order."
        )
    return chosen


def find_layers(backbone: Any) -> tuple[nn.Module, str, nn.ModuleList]:
    """The parent module of the encoder's layer list, the list's name in it, and the list.

    It is the largest ``ModuleList`` with as many members as the config has layers, as in BERT,
    DistilBERT, RoBERTa, ELECTRA, MPNet and ModernBERT.

    Raises:
        OptionError: there is no such list, because the layers are shared (ALBERT), for instance.
    """
    total = getattr(backbone.config, "num_hidden_layers", None)
    lists: list[tuple[int, nn.Module, str, nn.ModuleList]] = []
    for owner in backbone.modules():
        for name, child in owner.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == total:
                lists.append((sum(p.numel() for p in child.parameters()), owner, name, child))
    if not lists:
        raise OptionError(
            f"cannot take layers out of {type(backbone).__name__}: no list of its {total} layers"
            " was found (a model that shares its layers has none). Leave out layers= and"
            " query_layers=, or use another backbone."
        )
    _, owner, name, layers = max(lists, key=lambda entry: entry[0])
    return owner, name, layers


def keep_layers(backbone: Any, layers: int | Sequence[int]) -> list[int]:
    """Remove all layers of a backbone but the chosen ones, in place, and adapt its config.

    Config lists with one entry for each layer (``layer_types`` of ModernBERT) are cut too, so that
    the saved folder loads as the same function.

    Returns:
        The numbers of the kept layers in the original backbone.

    Raises:
        OptionError: as in `choose_layers` and `find_layers`; or layer 0 of a ModernBERT, which
            differs from the others, would be removed.
    """
    owner, name, modules = find_layers(backbone)
    total = len(modules)
    chosen = choose_layers(layers, total)
    config = backbone.config
    if config.model_type == "modernbert" and chosen[0] != 0:
        raise OptionError(
            f"layers={list(chosen)} leaves out layer 0, which ModernBERT needs; begin the list"
            " with 0."
        )
    for key, value in list(vars(config).items()):
        if isinstance(value, (list, tuple)) and len(value) == total and key != "architectures":
            setattr(config, key, type(value)(value[layer] for layer in chosen))
    setattr(owner, name, nn.ModuleList(modules[layer] for layer in chosen))
    config.num_hidden_layers = len(chosen)
    return chosen
