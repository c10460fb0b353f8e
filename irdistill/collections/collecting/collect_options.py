"""Options of `collect`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any

from pydantic import Field

COLUMN_IGNORED = "-"


@dataclass(frozen=True)
class CollectOptions:
    """How sources are read.

    Examples:
        >>> CollectOptions(exclude=("*.pdf",)).max_megabytes
        64
    """

    include: Annotated[
        tuple[str, ...],
        Field(description="Read only these files of folders; patterns as in .gitignore: '*.md'."),
    ] = ()
    exclude: Annotated[
        tuple[str, ...],
        Field(description="Leave out these files and folders of folders: '*.pdf' 'node_modules/'."),
    ] = ()
    plain: Annotated[
        tuple[str, ...],
        Field(
            description="Read these files as plain text, whatever their ending: 'README' '*.log'."
        ),
    ] = ()
    max_megabytes: Annotated[
        float, Field(gt=0, le=1024, description="Skip larger files of folders (MB).")
    ] = 64
    encoding: Annotated[
        str | None,
        Field(description="Encoding of text files and tables, such as cp1252 (default: detected)."),
    ] = None
    id: Annotated[
        str | None,
        Field(
            description="Column of the ids in tables; - for file name and row number (default: by"
            " its name)."
        ),
    ] = None
    title: Annotated[
        str | None,
        Field(description="Column of the titles; - for none (default: by its name)."),
    ] = None
    text: Annotated[
        tuple[str, ...],
        Field(description="Column of the texts, or several, which are joined (default: by name)."),
    ] = ()
    header: Annotated[
        bool,
        Field(
            description="Whether the first row of CSV and TSV names the columns. Without it,"
            " columns are named by their numbers from 1."
        ),
    ] = True
    quotes: Annotated[
        bool | None,
        Field(description="Whether cells may be in quotation marks (default: in CSV, not in TSV)."),
    ] = None
    keep_duplicates: Annotated[
        bool, Field(description="Keep documents that repeat the text of another one.")
    ] = False

    def to_json(self) -> dict[str, Any]:
        """All settings as plain values."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }
