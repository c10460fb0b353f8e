"""The files of a folder in an order that is the same on every machine, with their ids."""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from irdistill.collections.collecting.collect_options import CollectOptions
from irdistill.collections.collecting.file_kinds import (
    PLAIN,
    FileKind,
    is_table,
    kind_of,
    suffix_of,
)
from irdistill.errors import InputError, OptionError

_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]|^\\s|\\s$")


@dataclass(frozen=True)
class SourceFile:
    """A file that is a document.

    Attributes:
        id: the id of the document.
        times_ns: times of the last change of the content and of the file. A program can set the
            first back, but not the second.
    """

    id: str
    path: Path
    kind: FileKind
    size: int
    times_ns: tuple[int, int]


@dataclass
class FolderListing:
    """The files of a folder.

    Attributes:
        files: those that are documents, in the order of their ids.
        tables: ids of tables.
        skipped: id, reason and detail of each other file.
    """

    files: list[SourceFile] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str, str]] = field(default_factory=list)


def document_id(relative: str) -> str:
    r"""The id of a file from its path below the source, with slashes.

    The same name gives the same id on each system: Unicode is composed (macOS stores it
    decomposed). Control characters, white space at the ends and bytes that are not UTF-8 are
    written as ``\xNN``.

    Examples:
        >>> print(document_id("a/line\nbreak.txt"))
        a/line\x0abreak.txt
    """
    composed = unicodedata.normalize("NFC", relative)
    return _UNSAFE.sub(_escaped, composed)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as Python names it
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def list_folder(folder: Path, options: CollectOptions) -> FolderListing:
    """List the files of a folder and of all folders in it.

    Links to folders are not followed, and hidden files and folders are left out.

    Raises:
        InputError: two files have the same id.
        OptionError: a pattern cannot be read.
    """
    patterns = _Patterns(options)
    listing = FolderListing()
    by_id: dict[str, str] = {}
    for relative, path in _walk(folder, patterns, listing):
        doc_id = document_id(relative)
        first = by_id.setdefault(doc_id, relative)
        if first != relative:
            raise InputError(
                f"{folder} has two files with the id {doc_id!r}: {first!a} and {relative!a}, which"
                " differ only in how their characters are encoded. Rename one of them."
            )
        _add(listing, path, relative, doc_id, options, patterns)
    listing.files.sort(key=lambda file: file.id)
    listing.tables.sort()
    listing.skipped.sort()
    return listing


class _Patterns:
    """Patterns as in .gitignore."""

    def __init__(self, options: CollectOptions) -> None:
        from pathspec import GitIgnoreSpec

        def read(name: str, patterns: tuple[str, ...]) -> GitIgnoreSpec:
            try:
                return GitIgnoreSpec.from_lines(patterns)
            except ValueError as error:
                raise OptionError(
                    f"--{name} {' '.join(patterns)}: {error}. Write patterns as in .gitignore, such"
                    " as '*.md' or 'drafts/'."
                ) from error

        self.include = read("include", options.include) if options.include else None
        self.exclude = read("exclude", options.exclude)
        self.plain = read("plain", options.plain)

    def leave_out(self, relative: str) -> bool:
        """Whether a file is left out."""
        if self.exclude.match_file(relative):
            return True
        return self.include is not None and not self.include.match_file(relative)


def _walk(folder: Path, patterns: _Patterns, listing: FolderListing) -> Iterator[tuple[str, Path]]:
    """Relative path and path of each file; folders that are not entered are listed."""

    def unreadable(error: OSError) -> None:
        place = Path(str(error.filename))
        if place == folder:
            raise error
        relative = place.relative_to(folder).as_posix()
        listing.skipped.append((document_id(relative), "unreadable", str(error.strerror)))

    for place, folders, names in os.walk(folder, onerror=unreadable):
        below = Path(place).relative_to(folder)
        for name in sorted(folders):
            relative = (below / name).as_posix()
            reason = None
            if name.startswith("."):
                reason = "hidden"
            elif patterns.exclude.match_file(f"{relative}/"):
                reason = "excluded"
            elif (Path(place) / name).is_symlink():
                reason = "linked folder"
            if reason is not None:
                folders.remove(name)
                listing.skipped.append((document_id(f"{relative}/"), reason, ""))
        for name in names:
            yield (below / name).as_posix(), Path(place) / name


def _add(
    listing: FolderListing,
    path: Path,
    relative: str,
    doc_id: str,
    options: CollectOptions,
    patterns: _Patterns,
) -> None:
    """Add a file to the listing."""
    kind = PLAIN if patterns.plain.match_file(relative) else kind_of(path.name)
    if path.name.startswith("."):
        listing.skipped.append((doc_id, "hidden", ""))
    elif patterns.leave_out(relative):
        listing.skipped.append((doc_id, "excluded", ""))
    elif kind is None and is_table(path.name):
        listing.tables.append(doc_id)
    elif kind is None:
        listing.skipped.append((doc_id, "unknown kind", suffix_of(path.name) or "no ending"))
    else:
        try:
            file = source_file(doc_id, path, kind)
        except OSError as error:
            listing.skipped.append((doc_id, "unreadable", str(error.strerror or error)))
            return
        if file is None:
            listing.skipped.append((doc_id, "unreadable", "it is not a regular file"))
        elif file.size > options.max_megabytes * 1e6:
            detail = f"{file.size / 1e6:.1f} MB; --max-megabytes is {options.max_megabytes:g}"
            listing.skipped.append((doc_id, "too large", detail))
        else:
            listing.files.append(file)


def source_file(doc_id: str, path: Path, kind: FileKind) -> SourceFile | None:
    """A file with its size and times; None if it is no regular file, such as a pipe."""
    state = os.stat(path)
    if not stat.S_ISREG(state.st_mode):
        return None
    return SourceFile(doc_id, path, kind, state.st_size, (state.st_mtime_ns, state.st_ctime_ns))
