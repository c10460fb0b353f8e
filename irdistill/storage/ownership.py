"""Which files irdistill wrote: only those are ever replaced or deleted.

A folder belongs to irdistill where a manifest in it says so, and then only the files that this
manifest names. What is deleted is found by walking the folder and asking for each file whether it
is named, so that no name in a manifest is ever used as a path. Links are never followed. A single
file, as an export, belongs to irdistill as long as it holds the bytes that were written to it: the
cache folder keeps a checksum of each.
"""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import xxhash

from irdistill.errors import OutputExistsError
from irdistill.storage.files import (
    atomic_path,
    cache_folder,
    is_temporary,
    json_text,
    make_folder,
    read_json,
    write_json,
)

LOCK, MARK, OWNER = ".lock", ".damaged", ".irdistill.json"
_FORMAT = "irdistill-folder"
FileTest = Callable[[str], bool]
"""Whether a file, by its path relative to a folder, is named by the folder's manifest."""

_CACHE_NAME = re.compile(r"[0-9a-f]{16}")


def list_files(folder: Path) -> Iterator[str]:
    """All files and links under a folder, as relative paths with slashes; links are not followed.

    Lock files and the temporary files of irdistill are left out.
    """
    for place, folders, names in os.walk(folder):
        inside = Path(place).relative_to(folder)
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        folders[:] = [name for name in folders if name not in links and not is_temporary(name)]
        for name in sorted([*names, *links]):
            if not is_temporary(name) and name != LOCK:
                yield (inside / name).as_posix()


def refuse_foreign_files(folder: Path, ours: FileTest, what: str) -> None:
    """Refuse a folder with a file that is not ours.

    Args:
        what: is to be written there, for the message.

    Raises:
        OutputExistsError: there is such a file; the message names one.
    """
    if not folder.is_dir():
        return
    foreign = next((name for name in list_files(folder) if not ours(name)), None)
    if foreign is not None:
        raise OutputExistsError(
            f"{folder} holds {foreign}, which irdistill did not write there, so {what} cannot be"
            " written to this folder. Choose another folder, or move that file away."
        )


def no_file(name: str) -> bool:
    """No file is ours: for a folder that has to be new or empty."""
    return False


def remove_owned_files(folder: Path, ours: FileTest) -> None:
    """Delete the files that are ours, and the subfolders that are empty then; links are deleted,
    not what they point to.
    """
    names = [name for name in list_files(folder) if ours(name)]  # before any manifest is gone
    for name in names:
        (folder / name).unlink(missing_ok=True)
    emptied = {folder / parent for name in names for parent in Path(name).parents if parent.parts}
    for place in sorted(emptied, key=lambda path: len(path.parts), reverse=True):
        left = list(place.iterdir())
        if all(path.name == LOCK or is_temporary(path.name) for path in left) and not any(
            path.is_dir() for path in left
        ):
            for path in left:
                path.unlink()
            place.rmdir()


def is_manifest(path: Path, keys: Sequence[str] = (), **values: object) -> bool:
    """Whether a file is JSON with these keys, and these values, and so one of ours."""
    try:
        stored = json.loads(path.read_bytes()) if path.is_file() else None
    except (ValueError, OSError, RecursionError):
        return False
    return (
        isinstance(stored, dict)
        and all(key in stored for key in keys)
        and all(stored.get(key) == value for key, value in values.items())
    )


def is_in_cache(folder: Path) -> bool:
    """Whether a folder is a cache by its name: it, or one of the two folders around it, is named by
    16 hexadecimal digits.
    """
    return any(
        _CACHE_NAME.fullmatch(place.name) for place in (folder, folder.parent, folder.parent.parent)
    )


def claim_folder(
    folder: Path, names: Iterable[str], what: str, before: FileTest | None = None
) -> None:
    """Record in a folder which files irdistill writes there, before they are written.

    Args:
        names: relative paths; those recorded earlier stay.
        before: the files of a folder that an earlier version wrote, which has no such record.

    Raises:
        OutputExistsError: the folder has other files and no such record, or a file is not
            recorded.
    """
    planned, known = set(names), claimed_files(folder)
    if known is None:
        refuse_foreign_files(folder, before or no_file, what)
        known = {name for name in planned if before is not None and before(name)}
    others = planned - known
    refuse_foreign_files(folder, lambda name: name not in others, what)
    if others or not (folder / OWNER).is_file():
        make_folder(folder)
        write_json(folder / OWNER, {"format": _FORMAT, "files": sorted(known | planned)})


def claimed_files(folder: Path) -> set[str] | None:
    """The files that `claim_folder` recorded, and the record itself; None where there is no
    record.
    """
    if not is_manifest(folder / OWNER, ("files",), format=_FORMAT):
        return None
    return {OWNER, *map(str, read_json(folder / OWNER)["files"])}


# -- single files that the user names
# ------------------------------------------------------------------------


def check_replaceable(path: str | Path) -> None:
    """Refuse to replace a file that irdistill did not write, or that was changed since.

    Raises:
        OutputExistsError: there is such a file, or something that is no file.
    """
    target = Path(path)
    if not os.path.lexists(target):
        return
    if (
        not target.is_symlink()
        and target.is_file()
        and (not target.stat().st_size or _record(_state(target)).is_file())
    ):
        return
    if _is_stream(target):
        return
    state = (
        "is a folder"
        if target.is_dir()
        else (
            "is a link"
            if target.is_symlink()
            else "holds something that irdistill did not write, or that was changed since"
        )
    )
    raise OutputExistsError(
        f"{target} {state}, and is not replaced. Choose another name, or move it away."
    )


@contextmanager
def replace_safely(path: str | Path) -> Iterator[Path]:
    """``atomic_path`` for a file that the user names: a foreign file is never replaced.

    Raises:
        OutputExistsError: as `check_replaceable` and ``atomic_path``.
    """
    target = Path(path)
    if _is_stream(target):
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch) / target.name
            with open(Path(scratch) / target.name, "rb") as source, open(target, "wb") as stream:
                shutil.copyfileobj(source, stream)
        return
    check_replaceable(target)
    _sweep(target)
    with atomic_path(target) as temporary:
        yield temporary
        record_written_file(target, temporary)


def _is_stream(path: Path) -> bool:
    """Whether a path is a device or a pipe, as /dev/stdout: what is written there goes through, and
    nothing is replaced.
    """
    return Path("/dev") in path.absolute().parents or (
        path.exists() and not path.is_file() and not path.is_dir()
    )


def _sweep(target: Path) -> None:
    """Remove what killed processes left of writing a file."""
    import psutil

    for path in target.parent.glob(f".{glob.escape(target.name)}-irdistill-tmp-*"):
        if (
            is_temporary(path.name)
            and path.is_file()
            and not psutil.pid_exists(int(path.name.rpartition("-")[2]))
        ):
            path.unlink(missing_ok=True)


def write_file(path: str | Path, text: str) -> None:
    """Write text to a file that the user names.

    Raises:
        OutputExistsError: as `check_replaceable` and ``atomic_path``.
    """
    with replace_safely(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json_file(path: str | Path, value: Any) -> None:
    """Write JSON to a file that the user names, as ``files.write_json`` does.

    Raises:
        OutputExistsError: as `check_replaceable` and ``atomic_path``.
    """
    write_file(path, json_text(value))


def record_written_file(path: Path, written: Path) -> None:
    """Remember the bytes of the file ``written``, which is about to lie at ``path``.

    They are remembered by their contents, so that a file is still ours after its folder was moved
    or copied.
    """
    write_json(_record(_state(written)), {"path": str(path.absolute())})


def _record(state: Mapping[str, Any]) -> Path:
    folder = cache_folder() / "written"
    folder.mkdir(exist_ok=True)
    return folder / f"{state['xxh3']}-{state['bytes']}.json"


def _state(path: Path) -> dict[str, Any]:
    state = xxhash.xxh3_128()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            state.update(block)
    return {"bytes": path.stat().st_size, "xxh3": state.hexdigest()}
