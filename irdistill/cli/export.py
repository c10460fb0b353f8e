"""``irdistill export``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from irdistill.cli.options import (
    examples,
    json_option,
    model_options,
    out_option,
    seed_option,
    show,
)

FORMATS = ("onnx", "onnx-int8", "openvino")


@click.command(
    epilog=examples(
        "irdistill export out/student/model --format onnx --out out/student-onnx",
    )
)
@click.argument("model")
@click.option("--format", "form", type=click.Choice(FORMATS), required=True)
@model_options(("dense", "cross-encoder"))
@click.option(
    "--collection",
    default="pydocs/howto",
    show_default=True,
    help="Whose texts the scores are compared on.",
)
@out_option("A new folder.")
@click.option(
    "--queries", default=16, show_default=True, help="How many queries of the collection are taken."
)
@click.option(
    "--documents", default=64, show_default=True, help="How many documents each is compared with."
)
@click.option(
    "--least-tau",
    default=0.9,
    show_default=True,
    help="Refuse 8-bit weights with a lower Kendall's tau.",
)
@seed_option()
@json_option()
def export(
    model: str,
    form: str,
    kind: str | None,
    trust_remote_code: bool,
    collection: str,
    out: Path,
    queries: int,
    documents: int,
    least_tau: float,
    seed: int,
    json_file: Path | None,
) -> None:
    """Write a dense student or a cross-encoder for ONNX Runtime or OpenVINO, if it scores alike
    there.
    """
    import numpy as np

    from irdistill.collections import load_collection
    from irdistill.students import CrossEncoderStudent, load_student
    from irdistill.students.exporting import export as export_student
    from irdistill.students.model_kinds import model_kind

    loaded = load_collection(collection)
    random = np.random.default_rng(seed)
    texts = [query.text for query in loaded.queries.values()]
    asked = [texts[place] for place in sorted(random.permutation(len(texts))[:queries].tolist())]
    rows = np.sort(random.permutation(len(loaded.corpus))[:documents])
    settings: dict[str, Any] = {"trust_remote_code": trust_remote_code, "device": "cpu"}
    kind = model_kind(model, kind)
    student = (
        CrossEncoderStudent.load(model, **settings)
        if kind == "cross-encoder"
        else load_student(model, kind=kind, **settings)
    )
    found = export_student(student, out, form, asked, list(loaded.corpus.texts(rows)), least_tau)
    show({"model": str(out), **asdict(found)}, json_file)
