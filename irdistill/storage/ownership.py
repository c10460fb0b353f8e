"""Which files irdistill wrote. Only those are replaced or deleted.

A folder belongs to irdistill if a manifest in it says so, and then only the files that the manifest
names. Deletion walks the folder and asks for each file whether it is named, so a name in a manifest
is never used as a path. Links are not followed. A single file, such as an export, belongs to
irdistill while it holds the bytes that were written: the cache folder keeps a checksum of each.
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
    explain_os_errors,
    fsync_folder,
    fsync_tree,
    is_temporary,
    json_text,
    make_folder,
    read_json,
    write_json,
)

LOCK, MARK, OWNER = ".lock", ".damaged", ".irdistill.json"
_FORMAT = "irdistill-folder"
FileTest = Callable[[str], bool]
"""Whether a file, by its path relative to a folder, belongs to irdistill."""

_CACHE_NAME = re.compile(r"[0-9a-f]{16}")


def list_files(folder: Path) -> Iterator[str]:
    """All files and links under a folder, as relative paths with slashes; links are not followed.

    Lock files and the temporary files of irdistill are omitted.
    """
    for place, folders, names in os.walk(folder):
        inside = Path(place).relative_to(folder)
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        folders[:] = [name for name in folders if name not in links and not is_temporary(name)]
        for name in sorted([*names, *links]):
            if not is_temporary(name) and name != LOCK:
                yield (inside / name).as_posix()


def refuse_foreign_files(folder: Path, ours: FileTest, what: str) -> None:
    """Check that a folder contains no file of others.

    Args:
        ours: whether a file belongs to irdistill, by its relative path.
        what: what is to be written there, for the message.

    Raises:
        OutputExistsError: there is such a file; the message names it.
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
    """A test that no file passes, for a folder that must be new or empty."""
    return False


def remove_owned_files(folder: Path, ours: FileTest) -> None:
    """Delete the files that belong to irdistill, and the subfolders that become empty.

    Links are deleted, not what they point to.
    """
    names = [name for name in list_files(folder) if ours(name)]  # before a manifest is deleted
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


def move_into_place(staged: Path, final: Path, ours: Callable[[str], bool] | None = None) -> None:
    """Rename a complete folder to its final name, in one step.

    Args:
        ours: whether a file in ``final`` may be deleted, by its relative path (default: none may).

    Raises:
        OutputExistsError: ``final`` contains other files.
    """
    with explain_os_errors(final):
        fsync_tree(staged)
        refuse_foreign_files(final, ours or no_file, f"a folder {final.name!r}")
        if final.is_dir():
            remove_owned_files(final, ours or no_file)
            for place, _, _ in os.walk(final, topdown=False):
                os.rmdir(place)
        os.replace(staged, final)
        fsync_folder(final.parent)


def is_manifest(path: Path, keys: Sequence[str] = (), **values: object) -> bool:
    """Whether a file is JSON with these keys and values."""
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
    """Whether the name of a folder, or of one of its two parents, is a cache key."""
    return any(
        _CACHE_NAME.fullmatch(place.name) for place in (folder, folder.parent, folder.parent.parent)
    )


def claim_folder(
    folder: Path, names: Iterable[str], what: str, before: FileTest | None = None
) -> None:
    """Record in a folder which files irdistill will write there, before they are written.

    Args:
        names: relative paths; those recorded earlier stay.
        what: what is to be written there, for the message.
        before: a test for the files of a folder from an earlier version, which has no record.

    Raises:
        OutputExistsError: the folder contains a file that is not recorded.
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
    """The files that `claim_folder` recorded, and the record; None if there is no record."""
    if not is_manifest(folder / OWNER, ("files",), format=_FORMAT):
        return None
    return {OWNER, *map(str, read_json(folder / OWNER)["files"])}


def check_replaceable(path: str | Path) -> None:
    """Check that a file may be replaced.

    Raises:
        OutputExistsError: it is not a file, irdistill did not write it, or it was changed since.
    """
    target = Path(path)
    if not os.path.lexists(target) or _is_stream(target):
        return
    if target.is_dir():
        state = "is a folder"
    elif target.is_symlink():
        state = "is a link"
    elif not target.stat().st_size or _record_path(_state(target)).is_file():
        return
    else:
        state = "holds something that irdistill did not write, or that was changed since"
    raise OutputExistsError(
        f"{target} {state}, and is not replaced. Choose another name, or move it away."
    )


@contextmanager
def replace_safely(path: str | Path) -> Iterator[Path]:
    """`atomic_path` for a file that the user names: a file of others is not replaced.

    Raises:
        OutputExistsError: see `check_replaceable`.
    """
    target = Path(path)
    if _is_stream(target):
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch) / target.name
            with open(Path(scratch) / target.name, "rb") as source, open(target, "wb") as stream:
                shutil.copyfileobj(source, stream)
        return
    check_replaceable(target)
    _remove_leftovers(target)
    with atomic_path(target) as temporary:
        yield temporary
        record_written_file(target, temporary)


def _is_stream(path: Path) -> bool:
    """Whether a path is a device or a pipe, such as /dev/stdout; nothing is replaced there."""
    return Path("/dev") in path.absolute().parents or (
        path.exists() and not path.is_file() and not path.is_dir()
    )


def _remove_leftovers(target: Path) -> None:
    """Remove temporary files of killed processes that wrote this file."""
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
        OutputExistsError: see `check_replaceable`.
    """
    with replace_safely(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json_file(path: str | Path, value: Any) -> None:
    """Write JSON to a file that the user names.

    Raises:
        OutputExistsError: see `check_replaceable`.
    """
    write_file(path, json_text(value))


def record_written_file(path: Path, written: Path) -> None:
    """Remember the content of the file ``written``, which will be moved to ``path``.

    The record is found by the content, so a file still belongs to irdistill after its folder was
    moved or copied.
    """
    write_json(_record_path(_state(written)), {"path": str(path.absolute())})


def _record_path(state: Mapping[str, Any]) -> Path:
    folder = cache_folder() / "written"
    folder.mkdir(exist_ok=True)
    return folder / f"{state['xxh3']}-{state['bytes']}.json"


def _state(path: Path) -> dict[str, Any]:
    state = xxhash.xxh3_128()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            state.update(block)
    return {"bytes": path.stat().st_size, "xxh3": state.hexdigest()}
