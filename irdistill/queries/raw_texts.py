"""Raw texts of collections and text files, without duplicates: what `align` learns from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

import numpy as np
import xxhash
from pydantic import Field

from irdistill.collections import Collection, Corpus, Document, load_collection
from irdistill.collections.compiling import open_or_compile
from irdistill.collections.passage_corpus import reading_corpus
from irdistill.collections.text_files import uncompressed_name
from irdistill.collections.text_lines import json_objects, numbered_lines, read_text_field
from irdistill.console.progress_bars import progress
from irdistill.errors import InputError, OptionError
from irdistill.option_checks import check_fields
from irdistill.queries.query_kinds import as_question, passage_title, split_sentences
from irdistill.storage.files import cache_folder, digest, file_sha256

CollectionTexts = Literal["documents", "sentences", "titles", "queries", "questions"]
"""What is taken of a collection."""
_KINDS = get_args(CollectionTexts)
_FORMAT = 1
"""Raised when other texts are read from the same sources."""
_JSON = (".jsonl", ".ndjson", ".json")


@dataclass(frozen=True)
class TextOptions:
    """Which texts of the sources are used.

    Raises:
        OptionError: a value is out of bounds.

    Examples:
        >>> TextOptions(kinds=("titles", "queries")).max_texts is None
        True
    """

    kinds: Annotated[
        tuple[CollectionTexts, ...],
        Field(
            min_length=1,
            description="What is taken of collections: documents, sentences of documents, titles,"
            " queries, or questions: short sentences, and queries if they are taken, in the form"
            " of questions.",
        ),
    ] = ("sentences",)
    field: Annotated[
        str, Field(min_length=1, description="Field with the text in .jsonl files.")
    ] = "text"
    max_texts: Annotated[
        Annotated[int, Field(ge=2)] | None,
        Field(description="Use this many texts, drawn at random (default: all)."),
    ] = None

    def __post_init__(self) -> None:
        check_fields(self)


class TextSource(NamedTuple):
    """A collection or a file with texts.

    Attributes:
        identity: everything that decides the texts.
        read: yields them; may be called more than once.
    """

    name: str
    identity: Any
    read: Callable[[], Iterator[str]]


def open_texts(
    sources: Sequence[str | Path | Collection],
    options: TextOptions | None = None,
    seed: int = 42,
) -> Corpus:
    """All different texts of collections and text files as a corpus.

    It is compiled in the cache on first use. Texts with the same words are one text, and texts
    without words are left out. Memory: about 50 bytes per text of the sources.

    Args:
        sources: see `open_source`.
        seed: draws the texts if there are more than ``max_texts``.

    Raises:
        NotFoundError: there is no such collection or file.
        OptionError: there are no sources.
        InputError: the sources have no text.
    """
    options = options or TextOptions()
    if not sources:
        raise OptionError("no texts were given; give collections or text files.")
    opened = [open_source(source, options.kinds, options.field) for source in sources]
    identity = [_FORMAT, [source.identity for source in opened]]
    if options.max_texts is not None:
        identity += [options.max_texts, seed]
    return open_or_compile(
        lambda: _different_texts(opened, options.max_texts, seed),
        cache_folder() / "texts" / digest(identity),
        "texts",
    )


def open_source(
    source: str | Path | Collection, kinds: Sequence[CollectionTexts], field: str
) -> TextSource:
    """Open a collection or a text file.

    Args:
        source: a text file with one text per line, a ``.jsonl`` file, or a collection. A collection
            may be followed by a colon and the kinds of its texts: ``out/queries:queries``,
            ``pydocs/train:sentences,titles``.
        kinds: what is taken of a collection without such an ending.
        field: field of the objects in ``.jsonl`` files.

    Raises:
        NotFoundError: there is no such collection or file.
    """
    if isinstance(source, Collection):
        return _collection_source(source.id, source, kinds)
    name, _, ending = str(source).rpartition(":")
    named = ending.split(",")
    if name and set(named) <= set(_KINDS):
        chosen: Any = named
        return _collection_source(name, load_collection(name, queries=False), chosen)
    path = Path(source).expanduser()
    if path.is_file():
        identity = {"file": file_sha256(path), "field": field if _is_json(path) else None}
        return TextSource(str(source), identity, lambda: _lines(path, field))
    return _collection_source(str(source), load_collection(source, queries=False), kinds)


def _collection_source(
    name: str, collection: Collection, kinds: Sequence[CollectionTexts]
) -> TextSource:
    read = reading_corpus(collection.corpus)
    identity: dict[str, Any] = {"corpus": read.fingerprint, "kinds": sorted(kinds)}
    if "queries" in kinds:
        identity["queries"] = collection.queries_fingerprint
    return TextSource(name, identity, lambda: _texts(collection, kinds))


def _is_json(path: Path) -> bool:
    return uncompressed_name(path).endswith(_JSON)


def _lines(path: Path, field: str) -> Iterator[str]:
    """The texts of a file.

    Raises:
        InputError: an object of a ``.jsonl`` file lacks the field.
    """
    if not _is_json(path):
        for _, line in numbered_lines(path):
            yield line.strip()
        return
    for number, entry in json_objects(numbered_lines(path), path):
        if field not in entry:
            raise InputError(
                f"line {number} of {path} has no field {field!r}; it has"
                f" {', '.join(sorted(entry))}. Name the field with the text: --field NAME."
            )
        yield read_text_field(entry, field, path, number)


def _texts(collection: Collection, kinds: Sequence[CollectionTexts]) -> Iterator[str]:
    """The texts of a collection, document by document (passages if they are split), then its
    queries.
    """
    form = count()
    read = reading_corpus(collection.corpus)
    for document in read.documents() if set(kinds) - {"queries"} else ():
        if "documents" in kinds:
            yield f"{document.title} {document.text}".strip()
        if "titles" in kinds:
            yield passage_title(document)
        sentences = split_sentences(document.text)
        if "sentences" in kinds:
            yield from sentences
        if "questions" in kinds:
            yield from (as_question(text, next(form)) for text in sentences)
    for query in collection.queries.values() if "queries" in kinds else ():
        yield query.text
        if "questions" in kinds:
            yield as_question(query.text, next(form))


def _different_texts(
    sources: Sequence[TextSource], max_texts: int | None, seed: int
) -> Iterator[Document]:
    with progress(None, "texts", "read texts") as bar:
        keys = np.fromiter(_keys(sources, bar.update), dtype=np.uint64)
    different, places = np.unique(keys, return_index=True)
    places = np.sort(places[different != _NO_WORDS])
    if not len(places):
        raise InputError(
            f"{', '.join(source.name for source in sources)} has no text of the kinds that were"
            f" chosen. Name others with --kinds ({', '.join(_KINDS)})."
        )
    if max_texts is not None and max_texts < len(places):
        random = np.random.default_rng([seed, 5])
        places = np.sort(random.permutation(places)[:max_texts])
    chosen = iter(places.tolist())
    next_place = next(chosen)
    for place, text in enumerate(_all_texts(sources)):
        if place == next_place:
            yield Document(str(place), "", text)
            next_place = next(chosen, -1)


_NO_WORDS = np.uint64(0)


def _keys(sources: Sequence[TextSource], done: Callable[[int], Any]) -> Iterator[int]:
    """A hash of the words of each text; 0 without words."""
    for text in _all_texts(sources):
        words = " ".join(text.split())
        yield xxhash.xxh3_64_intdigest(words.encode()) if words else 0
        done(1)


def _all_texts(sources: Iterable[TextSource]) -> Iterator[str]:
    for source in sources:
        yield from source.read()
