"""The code of losses that are defined outside the package."""

from __future__ import annotations

import inspect

from irdistill.losses.loss_base import Loss
from irdistill.storage.files import digest

_PACKAGE = __name__.partition(".")[0]


def code_digests(loss: Loss) -> dict[str, str]:
    """Hashes of the source of the losses in an expression that are not part of irdistill, by name.

    A hash does not cover functions that the class calls. It is empty if the source is not
    available, as for a class that was typed into the prompt of Python.

    Examples:
        >>> from irdistill.losses import parse_loss
        >>> code_digests(parse_loss("KL(tau=0.05) + 0.1*InfoNCE"))
        {}
    """
    kinds = {type(basic) for basic in loss.basic_losses}
    return {
        kind.name: _source_digest(kind)
        for kind in sorted(kinds, key=lambda kind: kind.name)
        if kind.__module__.partition(".")[0] != _PACKAGE
    }


def _source_digest(kind: type[Loss]) -> str:
    try:
        return digest(inspect.getsource(kind))
    except (OSError, TypeError):
        return ""
