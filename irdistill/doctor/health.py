"""The checks of ``irdistill doctor``."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import psutil
from packaging.requirements import Requirement
from rich.table import Table
from rich.text import Text

from irdistill.doctor.installed_packages import (
    faiss_builds,
    installed_version,
    modules_of,
    requirements,
)
from irdistill.search.lucene.java_runtime import (
    MINIMUM_VERSION,
    all_javas,
    find_java,
    install_command,
)
from irdistill.storage.files import cache_folder

Status = Literal["ok", "missing", "problem"]
Result = tuple[Status, str, str]
"""Status, detail and fix of a check."""
_GIB = 1 << 30
MINIMUM_DISK, MINIMUM_MEMORY = _GIB, 2 * _GIB


@dataclass(frozen=True)
class HealthCheck:
    """Result of one check.

    Attributes:
        name: what was checked.
        status: ``ok``, ``missing`` (not installed) or ``problem`` (installed, does not work).
        detail: version, size or error.
        fix: the command that fixes it, or an empty string.
        extra: the extra that needs it; None when irdistill needs it.
    """

    name: str
    status: Status
    detail: str
    fix: str = ""
    extra: str | None = None


def examine(folder: Path | None = None) -> list[HealthCheck]:
    """Check everything, without downloads; a check that raises is a problem.

    Args:
        folder: the user's folder (default: the current folder).
    """
    checks: list[tuple[str, str | None, Callable[[], Result]]] = [
        ("Python", None, lambda: ("ok", f"{platform.python_version()}, {platform.platform()}", "")),
        *((line.name, None, partial(_check_library, line)) for line in requirements()[""]),
        ("faiss", None, _check_faiss),
        ("disk, cache", None, lambda: _check_disk(cache_folder())),
        ("disk, here", None, lambda: _check_disk(folder or Path.cwd())),
        ("memory", None, _check_memory),
        ("NVIDIA GPU", "gpu", _check_gpu),
        ("Java", "lucene", _check_java),
    ]
    extras = [extra for extra in requirements() if extra not in ("", "cpu", "gpu")]
    checks += [(f"extra {extra}", extra, partial(_check_extra, extra)) for extra in extras]
    results = []
    for name, extra, check in checks:
        try:
            result = check()
        except Exception as error:
            result = ("problem", f"{type(error).__name__}: {' '.join(str(error).split())}", "")
        results.append(HealthCheck(name, *result, extra))
    return results


def is_healthy(checks: Sequence[HealthCheck]) -> bool:
    """Whether everything that irdistill itself needs works; extras do not count."""
    return all(check.status == "ok" for check in checks if check.extra is None)


def render(checks: Sequence[HealthCheck]) -> Table:
    """The checks as a table for the terminal."""
    table = Table("", "", "found", "fix", box=None, pad_edge=False)
    for check in checks:
        style = "green" if check.status == "ok" else "yellow" if check.extra else "bold red"
        status = "optional" if check.extra and check.status == "missing" else check.status
        cells = (check.name, check.detail, check.fix)
        table.add_row(Text(status, style=style), *(Text(cell, overflow="fold") for cell in cells))
    return table


def to_json(checks: Sequence[HealthCheck]) -> dict[str, Any]:
    """The checks as JSON values."""
    return {"ok": is_healthy(checks), "checks": [asdict(check) for check in checks]}


def _check_library(line: Requirement) -> Result:
    version, needed = installed_version(line.name), f"{line.name}{line.specifier}"
    if version is None:
        return "missing", f"not installed; needs {needed}", f"pip install '{needed}'"
    if not line.specifier.contains(version, prereleases=True):
        return "problem", f"{version}; needs {needed}", f"pip install --upgrade '{needed}'"
    try:
        for module in modules_of(line.name):
            import_module(module)
    except Exception as error:
        fix = f"pip install --force-reinstall '{needed}'"
        return "problem", f"{version} does not work: {error}", fix
    return "ok", f"{version}{_torch_build() if line.name == 'torch' else ''}", ""


def _torch_build() -> str:
    import torch

    from irdistill.modeling.hardware import best_device, has_fast_bfloat16

    device, build = best_device(), f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    name = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    bfloat16 = "fast" if has_fast_bfloat16(device) else "slow, so float32 is used"
    threads = torch.get_num_threads()
    return f", {build} build, device {device.type}{name}, {threads} threads, bfloat16 {bfloat16}"


def _check_faiss() -> Result:
    """faiss-cpu or faiss-gpu, but not both: they install the same files."""
    builds = faiss_builds()
    names = " and ".join(f"{name} {installed_version(name)}" for name in builds)
    install = f"pip install 'irdistill[{'gpu' if _has_nvidia_gpu() else 'cpu'}]'"
    replace = f"pip uninstall --yes {' '.join(builds)} && {install}"
    if not builds:
        return "missing", "neither faiss-cpu nor faiss-gpu", install
    if len(builds) > 1:
        return "problem", f"{names} overwrite each other; keep one", replace
    try:
        gpus = import_module("faiss").get_num_gpus()
    except Exception as error:
        return "problem", f"{names} does not work: {error}", replace
    return "ok", f"{names}, searches on {f'{gpus} GPUs' if gpus else 'the processor'}", ""


def _check_disk(folder: Path) -> Result:
    existing = next(
        path for path in (folder.absolute(), *folder.absolute().parents) if path.exists()
    )
    free = shutil.disk_usage(existing).free
    detail = f"{free / _GIB:.1f} GiB free at {folder}"
    if free >= MINIMUM_DISK:
        return "ok", detail, ""
    return "problem", detail, "export IRDISTILL_CACHE=FOLDER_ON_A_LARGER_DISK"


def _check_memory() -> Result:
    memory, limit = psutil.virtual_memory(), Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else "max"
    total = min(memory.total, int(text)) if text.isdigit() else memory.total
    available = min(total, memory.available)
    detail = f"{total / _GIB:.1f} GiB, {available / _GIB:.1f} GiB of it available"
    return "ok" if total >= MINIMUM_MEMORY else "problem", detail, ""


def _has_nvidia_gpu() -> bool:
    return Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi") is not None


def _check_gpu() -> Result:
    import torch

    if torch.cuda.is_available():
        return "ok", f"{torch.cuda.device_count()}, used by torch", ""
    if _has_nvidia_gpu():
        return "problem", "this torch cannot use it", "pip install --force-reinstall torch"
    return "missing", "none; the processor is used", ""


def _check_java() -> Result:
    if java := find_java():
        return "ok", f"{java.release} in {java.home}", ""
    others = ", ".join(f"{java.release} in {java.home}" for java in all_javas())
    detail = f"needs {MINIMUM_VERSION} or newer; found {others or 'none'}"
    return "problem" if others else "missing", detail, install_command()


def _check_extra(extra: str) -> Result:
    versions = {line: installed_version(line.name) for line in requirements()[extra]}
    wrong = [
        line for line, version in versions.items() if not (version and version in line.specifier)
    ]
    if wrong:
        needed = ", ".join(f"{line.name}{line.specifier}" for line in wrong)
        return "missing", f"needs {needed}", f"pip install 'irdistill[{extra}]'"
    return "ok", ", ".join(f"{line.name} {version}" for line, version in versions.items()), ""
