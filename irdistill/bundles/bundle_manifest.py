"""The manifest of a package: what it is, what determines it, and checksums of its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from irdistill.errors import InputError, NotFoundError, OptionError
from irdistill.storage.checksums import CHECKSUM, FILES, CheckedFile, read_sealed
from irdistill.storage.files import digest, read_json, write_json
from irdistill.storage.ownership import FileTest, is_manifest

MANIFEST, FORMAT = "manifest.json", "irdistill-package"
VERSION = 2
"""Increased when the files of a bundle change."""
MODEL, QUERY_TOWER, INDEX = "model", "onnx", "index"
DOCUMENTS, OFFSETS = "documents.jsonl", "offsets.npy"
ADVICE = "Copy the folder again, or make it again with irdistill package --overwrite."


def is_package(folder: str | Path) -> bool:
    """Whether a folder was written by `irdistill package`."""
    return is_manifest(Path(folder) / MANIFEST, ("contents", FILES), format=FORMAT)


def is_bundle(folder: object) -> bool:
    """Whether this is the path of a bundle, which can be searched."""
    if not isinstance(folder, str | Path) or not is_package(folder):
        return False
    return bool(read_json(Path(folder) / MANIFEST)["contents"].get("format") == "bundle")


@dataclass(frozen=True)
class Bundle:
    """A finished package.

    Attributes:
        path: its folder.
        manifest: ``contents`` says what it holds, ``identity`` what determines it, ``made_with``
            the versions of the libraries.

    Examples:
        >>> import irdistill as ird
        >>> bundle = ird.package("out/mine/terms/model", "my-docs", out="bundle")  # doctest: +SKIP
        >>> ird.Searcher(bundle).search("how do I reset the device")  # doctest: +SKIP
    """

    path: Path
    manifest: Mapping[str, Any]

    @classmethod
    def open(cls, folder: str | Path) -> Bundle:
        """Read the manifest of a package.

        Raises:
            NotFoundError: the folder is no package.
            DamagedError: the manifest is damaged.
        """
        path = Path(folder)
        if not is_package(path):
            raise NotFoundError(
                f"{path} is not a package (no {MANIFEST} of irdistill package). Make one with:"
                f" irdistill package MODEL COLLECTION --out {path}"
            )
        manifest = read_sealed(path / MANIFEST, ADVICE)
        version = manifest["contents"]["version"]
        if version != VERSION:
            raise InputError(
                f"{path} was written in version {version} of the format; this irdistill reads"
                f" version {VERSION}. {ADVICE}"
            )
        return cls(path, manifest)

    @cached_property
    def contents(self) -> Mapping[str, Any]:
        """What the package holds: format, kind, number of documents, similarity, dimension."""
        return dict(self.manifest["contents"])

    @property
    def fingerprint(self) -> str:
        """Hash of everything that determines the package."""
        return digest(self.manifest["identity"])

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        return sum(int(entry["bytes"]) for entry in self.manifest[FILES].values())

    def require_index(self) -> None:
        """Refuse a package without an index."""
        if self.contents["format"] != "bundle":
            raise OptionError(
                f"{self.path} holds files for {self.contents['format']}, which cannot be searched"
                " here. Make a bundle: irdistill package MODEL COLLECTION --out BUNDLE"
            )

    def checked(self, name: str) -> Path:
        """The path of a file whose bytes are those that were written.

        Raises:
            DamagedError: a block differs.
        """
        CheckedFile(self.path / name, self.manifest[FILES][name], ADVICE, cache=False).check_all()
        return self.path / name

    def names(self, prefix: str) -> list[str]:
        """The files whose names begin so."""
        return [name for name in self.manifest[FILES] if name.startswith(prefix)]

    def has(self, name: str) -> bool:
        """Whether the package holds a file."""
        return name in self.manifest[FILES]

    def __repr__(self) -> str:
        facts = self.contents
        rows = "passages" if facts["passages"] else "documents"
        return (
            f"Bundle({str(self.path)!r}: {facts['format']}, {facts['kind']},"
            f" {facts['rows']} {rows}, {self.nbytes / 1e6:.1f} MB)"
        )


def write_manifest(
    folder: Path,
    contents: Mapping[str, Any],
    identity: Mapping[str, Any],
    made_with: Mapping[str, str],
    files: Mapping[str, Any],
) -> None:
    """Write the manifest, last of all files."""
    value = {
        "format": FORMAT,
        "contents": dict(contents),
        "identity": dict(identity),
        "made_with": dict(made_with),
        FILES: dict(sorted(files.items())),
    }
    write_json(folder / MANIFEST, value | {CHECKSUM: digest(value)})


def package_files(folder: Path) -> FileTest:
    """A test for the files that a package's manifest names."""
    if not is_package(folder):
        return lambda name: False
    names = {MANIFEST, *map(str, read_json(folder / MANIFEST)[FILES])}
    return lambda name: name in names
