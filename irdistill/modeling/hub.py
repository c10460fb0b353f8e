"""A quick check of the Hugging Face hub before a model is loaded from it.

Without it a missing model or network fails after minutes: a loader asks for each of a dozen files
five times, with waits between.
"""

from __future__ import annotations

import difflib
import logging
import time
from pathlib import Path

from irdistill.errors import NotFoundError, one_line

_log = logging.getLogger(__name__)

#: Seconds to connect. A hub that answers more slowly works, and the loader waits for it.
_TIMEOUT = 10.0
_TRIES = 2
_SLOW = {"ReadTimeout", "WriteTimeout", "PoolTimeout"}
_NO_NETWORK = {"TransportError", "ConnectionError", "ConnectTimeout", "OfflineModeIsEnabled"}
_BUSY = range(500, 600)
_UNKNOWN = (
    "the hub has no model of this name, or it is private (log in with: hf auth login). Check the"
    " spelling."
)
#: Retrievers that have a name of their own.
_BUILTIN = ("bm25", "lucene")
_checked: set[tuple[str, str | None]] = set()
_offline_by_us = False


def check_hub_model(model: str, revision: str | None = None) -> None:
    """Check that a hub model can be loaded, once in each process.

    If the hub cannot be reached and the model is in the hub cache, this process uses the cache
    without asking the hub.

    Args:
        model: a hub id; for a GGUF file on the hub, the id before ``::``.

    Raises:
        NotFoundError: there is no such model, or it is not cached and the hub cannot be reached.
    """
    if (model, revision) in _checked:
        return
    from huggingface_hub import constants
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    builtin = difflib.get_close_matches(model, _BUILTIN, 1)
    close = f" Did you mean {builtin[0]}?" if builtin else ""
    try:
        validate_repo_id(model)
    except HFValidationError as error:
        raise NotFoundError(
            f"there is no model {model!r}: it is neither a folder nor a valid hub id.{close}"
        ) from error
    if constants.HF_HUB_OFFLINE and not _offline_by_us:
        if not in_hub_cache(model):
            raise NotFoundError(
                f"there is no model {model!r}: it is no folder and not in the hub cache, and"
                " HF_HUB_OFFLINE is set, so that the hub is not asked. Check the name, unset"
                f" HF_HUB_OFFLINE, or give a folder that holds the model.{close}"
            )
        return
    _set_offline(False)
    fault = _ask(model, revision)
    if fault and not in_hub_cache(model):
        raise NotFoundError(
            f"the model {model!r} cannot be loaded: it is no folder, and {fault}{close}"
        )
    if fault:
        _log.warning("%s: %s The copy in the hub cache is used.", model, fault)
        _set_offline(True)
    _checked.add((model, revision))


def hub_is_off() -> bool:
    """Whether models come from the hub cache only, by request or because the hub is unreachable."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def in_hub_cache(model: str) -> bool:
    """Whether the hub cache has files of a model."""
    from huggingface_hub import constants

    snapshots = Path(constants.HF_HUB_CACHE) / f"models--{model.replace('/', '--')}" / "snapshots"
    return any(path.is_file() for path in snapshots.glob("*/*"))


def _ask(model: str, revision: str | None) -> str:
    """Why a model cannot be loaded from the hub, as the end of a sentence; empty if it can."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    for attempt in range(_TRIES):
        try:
            HfApi().model_info(model, revision=revision, timeout=_TIMEOUT)
            return ""
        except GatedRepoError:
            return ""  # its files may be open to this user, and the loader says so if not
        except RevisionNotFoundError:
            return f"the hub's model of this name has no revision {revision!r}."
        except RepositoryNotFoundError:
            return _UNKNOWN
        except HfHubHTTPError as error:
            status = getattr(error.response, "status_code", 0)
            if status == 404:
                return _UNKNOWN
            if status not in _BUSY:
                return ""
            fault = (
                f"the hub at {constants.ENDPOINT} answers with the error {status}. Try again later,"
                " or give a model folder."
            )
        except Exception as error:  # the HTTP library differs between versions of the hub client
            names = {kind.__name__ for kind in type(error).__mro__}
            if names & _SLOW or not names & _NO_NETWORK:
                return ""
            fault = (
                f"the hub at {constants.ENDPOINT} cannot be reached ({one_line(error, 120)}). Check"
                " the network, or give a folder that holds the model."
            )
        if attempt + 1 < _TRIES:
            time.sleep(0.5)
    return fault


def _set_offline(offline: bool) -> None:
    global _offline_by_us
    from huggingface_hub import constants

    if offline or _offline_by_us:
        constants.HF_HUB_OFFLINE = offline
    _offline_by_us = offline
