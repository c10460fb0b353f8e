"""Sources of documents: folders of files, single files, tables, datasets and collections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from irdistill.collections.beir import is_beir_folder, jsonl_file, read_queries
from irdistill.collections.collecting.collect_options import CollectOptions
from irdistill.collections.collecting.collect_report import CollectReport
from irdistill.collections.collecting.decoding import SkippedFileError
from irdistill.collections.collecting.document_columns import choose_columns
from irdistill.collections.collecting.file_kinds import (
    PLAIN,
    SUFFIXES,
    TABLES,
    is_table,
    kind_of,
    require_libraries,
)
from irdistill.collections.collecting.folder_files import (
    FolderListing,
    SourceFile,
    document_id,
    list_folder,
    source_file,
)
from irdistill.collections.collecting.hub_dataset import HubTable, is_hub_name, parse_hub_name
from irdistill.collections.collecting.row_tables import open_table, table_documents
from irdistill.collections.collecting.text_blocks import ExtractedText
from irdistill.collections.collection import Collection, Query
from irdistill.collections.conversations import layout_of
from irdistill.collections.derived import is_derived
from irdistill.collections.document_table import Document
from irdistill.collections.load_report import LoadReport
from irdistill.collections.slices import split_folder
from irdistill.collections.text_files import SUFFIXES as COMPRESSED
from irdistill.collections.text_files import open_bytes, uncompressed_name
from irdistill.console.progress_bars import progress
from irdistill.errors import InputError, IrdistillError, NotFoundError, OptionError, one_line

_PARSERS = ("markdown-it-py", "docutils", "lxml", "charset-normalizer", "pypdf", "python-docx")
LoadCollection = Callable[[str], Collection]


class DocumentSource(Protocol):
    """Where documents come from.

    Attributes:
        source: as the user wrote it.
        kind: what it is, as a few words.
        has_ids: whether its ids are referred to by others, so that duplicates are kept.
        titled: whether documents of the same text with different titles differ.
    """

    source: str
    kind: str
    has_ids: bool
    titled: bool

    def state(self) -> Any:
        """Plain values that change whenever the documents change."""
        ...

    def documents(self, report: CollectReport) -> Iterator[Document]:
        """The documents; what is skipped is reported."""
        ...


class FileSource:
    """Files that are documents."""

    has_ids = titled = False

    def __init__(self, source: str, listing: FolderListing, options: CollectOptions) -> None:
        self.source, self.kind = source, "files"
        self._listing, self._options = listing, options

    def state(self) -> Any:
        """Ids, sizes and times of the files, and the versions of the parsers."""
        files = [[file.id, file.size, *file.times_ns] for file in self._listing.files]
        return {"files": files, "parsers": _parser_versions()}

    def documents(self, report: CollectReport) -> Iterator[Document]:
        """The documents in the order of their ids."""
        require_libraries(dict.fromkeys(file.kind for file in self._listing.files), self.source)
        for place, reason, detail in self._listing.skipped:
            report.skip(place, reason, detail)
        with progress(len(self._listing.files), "files", f"reading {self.source}") as bar:
            for file in self._listing.files:
                try:
                    extracted = read_file(file, self._options)
                except SkippedFileError as error:
                    report.skip(file.id, error.kind, error.detail)
                else:
                    report.read[file.kind.name] += 1
                    report.decoded(file.id, extracted.encoding)
                    yield Document(file.id, extracted.title, extracted.text)
                bar.update(1)


class TableSource:
    """A table with a document in each row."""

    has_ids, titled = False, True

    def __init__(self, source: str, path: Path, name: str, options: CollectOptions) -> None:
        self.source, self.kind = source, "table"
        self._path, self._name, self._options = path, name, options

    def state(self) -> Any:
        """Path, size and times of the file."""
        state = self._path.stat()
        times = [state.st_mtime_ns, state.st_ctime_ns]
        return [self._name, str(self._path.resolve()), state.st_size, *times]

    def documents(self, report: CollectReport) -> Iterator[Document]:
        """The documents in the order of the rows."""
        table = open_table(self._path, self._options)
        report.decoded(self._name, table.encoding)
        columns = choose_columns(table.names, self.source, self._options)
        report.columns[self._name] = columns.roles(table.names)
        with progress(None, "rows", f"reading {self.source}") as bar:
            for document in table_documents(table, columns, self._name, report):
                report.read["table rows"] += 1
                yield document
                bar.update(1)


class HubSource:
    """A split of a dataset of Hugging Face."""

    has_ids, titled = False, True

    def __init__(self, source: str, options: CollectOptions) -> None:
        self.source, self.kind = source, "dataset"
        self._options = options
        self._table = HubTable(source)
        path, config, split = parse_hub_name(source)
        place = Path(path).name if Path(path).expanduser().is_dir() else path
        self._name = place + (f":{config}" if config else "") + (f"#{split}" if split else "")

    def state(self) -> Any:
        """Files of the dataset."""
        return self._table.state()

    def documents(self, report: CollectReport) -> Iterator[Document]:
        """The documents in the order of the rows."""
        columns = choose_columns(self._table.names, self.source, self._options)
        report.columns[self._name] = columns.roles(self._table.names)
        with progress(self._table.count, "rows", f"reading {self.source}") as bar:
            for document in table_documents(self._table, columns, self._name, report):
                report.read["dataset rows"] += 1
                yield document
                bar.update(1)


class CollectionSource:
    """A collection with its queries and judgments."""

    has_ids, titled = True, True

    def __init__(self, source: str, load: LoadCollection) -> None:
        self.source, self.kind = source, "collection"
        self.collections = _splits(source, load)
        self.queries = _all_queries(source, self.collections)

    def state(self) -> Any:
        """Fingerprints of the collection in each split, and of all queries."""
        fingerprints = {split: opened.fingerprint for split, opened in self.collections.items()}
        return [fingerprints, [query.identity() for query in self.queries]]

    def documents(self, report: CollectReport) -> Iterator[Document]:
        """The documents of the corpus."""
        corpus = next(iter(self.collections.values())).corpus
        with progress(len(corpus), "documents", f"reading {self.source}") as bar:
            for document in corpus.documents():
                report.read["documents of collections"] += 1
                yield document
                bar.update(1)


def _splits(source: str, load: LoadCollection) -> dict[str, Collection]:
    """The collection by split; of a folder in BEIR layout without a split, all of them."""
    from irdistill.collections.judgments import judgment_files

    path, split = split_folder(source)
    folder = Path(path).expanduser()
    if not split and folder.is_dir() and any(folder.glob("corpus.jsonl*")):
        splits = sorted(judgment_files(folder / "qrels"))
        if splits:
            return {name: load(f"{path}#{name}") for name in splits}
    return {split or "test": load(source)}


def _all_queries(source: str, collections: Mapping[str, Collection]) -> list[Query]:
    """The queries of all splits, and those of a folder that no split judges."""
    path = None
    if len(collections) > 1 or not split_folder(source)[1]:
        folder = Path(split_folder(source)[0]).expanduser()
        path = jsonl_file(folder, "queries") if folder.is_dir() else None
    if path is not None and not is_derived(path.parent):
        return list(read_queries(path, LoadReport()).values())
    return [query for opened in collections.values() for query in opened.queries.values()]


def is_collection_folder(folder: Path) -> bool:
    """Whether a folder holds a collection in one of the known layouts."""
    return is_derived(folder) or is_beir_folder(folder) or layout_of(folder) is not None


def open_sources(
    sources: Sequence[str], options: CollectOptions, load: LoadCollection
) -> list[DocumentSource]:
    """Open sources by their names.

    Documents of several folders and files have the name of their source in front of their ids.

    Args:
        load: loads a collection by its id.

    Raises:
        NotFoundError: a source does not exist or holds no documents.
        InputError: a source can be read in two ways.
    """
    paths = [source for source in sources if _is_files_or_table(source)]
    names = dict(zip(paths, distinct_names([_absolute(path) for path in paths]), strict=True))
    return [
        _open(source, names.get(source, ""), len(sources) > 1, options, load) for source in sources
    ]


def distinct_names(paths: Sequence[str]) -> list[str]:
    """The last part of each path, and as many parts before it as no other path ends with.

    Raises:
        OptionError: a path occurs twice.

    Examples:
        >>> distinct_names(["/x/a/docs", "/x/b/docs", "/x/notes"])
        ['a/docs', 'b/docs', 'notes']
    """
    if len(set(paths)) < len(paths):
        raise OptionError(f"a path is given twice: {', '.join(paths)}. Give each once.")
    names: dict[str, str] = {}
    for length in count(1):
        tails = {path: "/".join(Path(path).parts[-length:]) for path in paths}
        ending_so = Counter(tails.values())
        names = {path: tail for path, tail in tails.items() if ending_so[tail] == 1} | names
        if len(names) == len(paths):
            break
    return [names[path] for path in paths]


def _absolute(source: str) -> str:
    return str(Path(source).expanduser().absolute().resolve())


def _is_files_or_table(source: str) -> bool:
    path = Path(source).expanduser()
    if is_hub_name(source) or not path.exists():
        return False
    return path.is_file() or not is_collection_folder(path)


def _open(
    source: str, name: str, several: bool, options: CollectOptions, load: LoadCollection
) -> DocumentSource:
    path = Path(source).expanduser()
    if is_hub_name(source):
        return HubSource(source, options)
    if not name:
        return CollectionSource(source, load)
    if path.is_dir():
        listing = list_folder(path, options)
        check_listing(source, listing)
        prefix = document_id(f"{name}/") if several else ""
        listing.files = [replace(file, id=prefix + file.id) for file in listing.files]
        listing.skipped = [
            (prefix + place, kind, detail) for place, kind, detail in listing.skipped
        ]
        return FileSource(source, listing, options)
    if is_table(path.name):
        return TableSource(source, path, document_id(name), options)
    return FileSource(source, _single_file(source, path, name, options), options)


def _single_file(source: str, path: Path, name: str, options: CollectOptions) -> FolderListing:
    kind = kind_of(path.name) or (PLAIN if options.plain else None)
    if kind is None:
        raise InputError(
            f"{source} is a file of an unknown kind. Documents are {SUFFIXES}; tables are"
            f" {', '.join(TABLES)}. To read it as plain text: --plain {path.name}."
        )
    file = source_file(document_id(name), path, kind)
    if file is None:
        raise InputError(f"{source} is not a regular file; a file or a folder was expected.")
    return FolderListing([file])


def check_listing(source: str, listing: FolderListing) -> None:
    """Check that the files of a folder can be read in one way.

    Raises:
        NotFoundError: it holds no document.
        InputError: it holds tables, which could be the documents, and files.
    """
    if listing.tables and not listing.files:
        raise InputError(
            f"{source} holds tables and no files that are documents: {_few(listing.tables)}. Give"
            f" the tables as sources: irdistill collect {source}/{listing.tables[0]} --out NEW."
        )
    if listing.tables:
        pattern = " ".join(sorted({f"'*{Path(name).suffix}'" for name in listing.tables}))
        raise InputError(
            f"{source} holds files ({_few([file.id for file in listing.files])}) and tables"
            f" ({_few(listing.tables)}), and either could be the documents. Give the tables as"
            f" sources, or leave them out: irdistill collect {source} --exclude {pattern} --out"
            " NEW."
        )
    if not listing.files:
        counts = {reason for _, reason, _ in listing.skipped}
        state = f" Its files were left out: {', '.join(sorted(counts))}." if counts else ""
        raise NotFoundError(
            f"{source} holds no documents.{state} Expected: files that end in {SUFFIXES} (others"
            " with --plain), or corpus.jsonl (one document per line: _id, title, text)."
        )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def read_file(file: SourceFile, options: CollectOptions) -> ExtractedText:
    """Title and text of a file; the default title is its name without the ending.

    Raises:
        SkippedFileError: it is empty, too large when unpacked, or cannot be read.
    """
    limit = int(options.max_megabytes * 1e6)
    try:
        if file.path.name.endswith(COMPRESSED):
            with open_bytes(file.path) as stream:
                data = stream.read(limit + 1)
        else:
            data = file.path.read_bytes()
    except OSError as error:
        raise SkippedFileError("unreadable", str(error.strerror or error)) from error
    except (IrdistillError, EOFError) as error:
        raise SkippedFileError("damaged", one_line(error)) from error
    if len(data) > limit:
        raise SkippedFileError("too large", f"it unpacks to more than {limit / 1e6:g} MB")
    if not data.strip():
        raise SkippedFileError("empty")
    try:
        extracted = file.kind.read(data, options.encoding)
    except SkippedFileError:
        raise
    except Exception as error:  # an error of a parser must not end the reading of other files
        detail = f"its parser failed ({type(error).__name__}: {one_line(error, 120)})"
        raise SkippedFileError("damaged", detail) from error
    if not extracted.text.strip():
        raise SkippedFileError("no text")
    stem = Path(uncompressed_name(file.id)).stem
    return extracted if extracted.title else extracted._replace(title=stem)


def _parser_versions() -> dict[str, str]:
    versions = {}
    for name in _PARSERS:
        try:
            versions[name] = version(name)
        except ImportError:
            continue
    return versions
