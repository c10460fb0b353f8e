"""Silencing the progress bars and warnings of libraries."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence the bars of transformers and the warnings of torch, for loading and tracing."""
    from transformers.utils import logging

    # no setting turns off the bar of the reader of GGUF files
    gguf: Any = import_module("transformers.modeling_gguf_pytorch_utils")
    bars, level, bar = logging.is_progress_bar_enabled(), logging.get_verbosity(), gguf.tqdm
    gguf.tqdm = partial(bar, disable=True)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        gguf.tqdm = bar
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
