"""The verb `collect`."""

from __future__ import annotations

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
        "# Only some files, and a table whose columns are named:",
        "irdistill collect handbook --include '*.md' 'guide/' --exclude 'drafts/' --out my-docs",
        "irdistill collect articles.csv --id key --text abstract body --out my-docs",
        "# A dataset of Hugging Face and a collection of ir_datasets:",
        "irdistill collect hf:OWNER/NAME#train vaswani --out my-docs",
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
    return collect_documents(names, out, options, overwrite)
