"""The verb `package`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from irdistill.bundles.package_options import PackageOptions
from irdistill.verbs.argument_types import CollectionLike, ModelLike, OverwriteOption
from irdistill.verbs.declaration import verb
from irdistill.verbs.opening_inputs import model_path, open_collection

if TYPE_CHECKING:
    from irdistill.bundles.bundle_manifest import Bundle


def open_package(folder: Path) -> Bundle:
    """Open a package."""
    from irdistill.bundles.bundle_manifest import Bundle

    return Bundle.open(folder)


@verb(
    "package",
    positional=("model", "collection"),
    examples=(
        "irdistill package out/mine/terms/model my-docs --out bundle",
        'irdistill search bundle "how do I reset the device"',
        'python bundle/search.py "how do I reset the device"',
        "# For a database or a search engine:",
        "irdistill package out/mine/terms/model my-docs --format pgvector --out out/pgvector",
    ),
    reopen=open_package,
)
def package(
    model: Annotated[
        ModelLike,
        Field(description="Dense, sparse or late-interaction model: folder, hub id or package:."),
    ],
    collection: Annotated[CollectionLike, Field(description="The corpus.")],
    *,
    out: Annotated[Path | None, Field(description="Folder of the package.")] = None,
    options: PackageOptions = PackageOptions(),
    overwrite: OverwriteOption = False,
    **settings: Any,
) -> Bundle:
    """Package a model with the index of a corpus, to search with or for a search engine.

    A bundle holds everything that a search needs: the model, the index, ids and texts, and a
    search.py of ten lines that needs sentence-transformers and faiss alone. A stopped call
    resumes, and ends with the same bytes.
    """
    assert out is not None
    corpus = open_collection(collection, queries=False).corpus  # before seconds of imports

    from irdistill.bundles.packaging import package_model
    from irdistill.students import load_student
    from irdistill.students.student_base import Student

    student = (
        model
        if isinstance(model, Student)
        else load_student(
            model_path(model),
            kind=options.kind,
            trust_remote_code=options.trust_remote_code,
            dimension=options.dimension,
        )
    )
    return package_model(corpus, student, out, options, overwrite=overwrite)
