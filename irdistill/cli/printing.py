"""What the command line prints and writes as JSON for the result of each verb."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from irdistill.console.terminal import echo

if TYPE_CHECKING:
    from irdistill.bundles.bundle_searcher import SearchHit
    from irdistill.collections import Collection
    from irdistill.recipes.specialising import Specialised
    from irdistill.runs import Run


STANDARD_OUTPUT = "irdistill.standard_output"
"""Key of the click context for the standard output while ``--json -`` redirects prints."""


class Printed(NamedTuple):
    """A result as text and as JSON.

    Attributes:
        ok: whether the command exits with 0.
    """

    text: str
    json: Mapping[str, Any]
    ok: bool = True


def print_result(
    verb: str, result: Any, arguments: Mapping[str, Any], json_file: Path | None
) -> bool:
    """Print the result of a verb, and write it as JSON where ``--json`` says.

    Returns:
        Whether the command exits with 0.
    """
    printed = _PRINTERS[verb](result, arguments)
    write_result(json_file, printed.json)
    if printed.text:
        echo(printed.text)
    return printed.ok


def write_result(json_file: Path | None, result: Mapping[str, Any]) -> None:
    """Write a result to the file of ``--json``, or print it if that is ``-``."""
    import click

    from irdistill.console.terminal import printable_json
    from irdistill.storage.files import json_text, make_folder
    from irdistill.storage.ownership import write_json_file

    if json_file is None:
        return
    if str(json_file) == "-":
        text = printable_json(json_text(dict(result)).rstrip("\n"))
        echo(text, file=click.get_current_context().meta[STANDARD_OUTPUT])
    else:
        make_folder(json_file.parent)
        write_json_file(json_file, dict(result))


def _table(values: Mapping[str, Any]) -> Printed:
    width = max(map(len, values), default=0)
    lines = []
    for key, value in values.items():
        text = (
            f"{value:.6g}"
            if isinstance(value, float)
            else "; ".join(map(str, value))
            if isinstance(value, list)
            else value
        )
        lines.append(f"{key:<{width}}  {text}")
    return Printed("\n".join(lines), values)


def _run(run: Run, arguments: Mapping[str, Any]) -> Printed:
    from irdistill.modeling.truncation import Truncation
    from irdistill.runs.label_injection import LABELS
    from irdistill.search import recall
    from irdistill.teachers.scoring_reports import truncation_shares, unscored_flags

    usage, producer = run.manifest.usage, run.identity.producer
    values: dict[str, Any] = {
        "run": str(run.path),
        "queries": len(run),
        "rows": run.num_rows,
        "unscored": run.manifest.nulls,
    }
    kind = run.identity.kind
    if kind == "teacher":
        flags = sorted(unscored_flags(run).items())
        values |= {f"unscored ({flag})": count for flag, count in flags}
        values |= truncation_shares(run)
    elif kind in ("first-stage", "student"):
        share = recall(run)
        values |= {} if share is None else {"recall of exact search": share}
        for side in ("document", "query"):
            values |= Truncation.from_usage(usage, side).shares(side)
    else:
        values |= usage
    privileged = run.identity.settings.get(LABELS)
    if privileged:
        values["labels in the scores"] = [entry["labels"]["id"] for entry in privileged]
    values |= _producer(producer)
    return _table(values | {"fingerprint": run.fingerprint})


def _producer(producer: Mapping[str, Any]) -> dict[str, Any]:
    """Weights and gate of a fused run; the counts of an imported one."""
    values = {}
    if "weights" in producer:
        values["weights"] = producer["weights"]
    gate = producer.get("gate") or {}
    if gate:
        values["gate"] = [
            ", ".join(
                f"{name} {value:+.3f}"
                for name, value in zip(gate["features"], coefficients, strict=True)
            )
            for coefficients in gate["coefficients"]
        ]
        values["bias"] = [round(value, 4) for value in gate["bias"]]
    if "unknown" in producer:
        values |= {
            "format": producer["format"],
            "repeated": producer["repeated"],
            "unknown queries": producer["unknown"]["queries"],
            "unknown documents": producer["unknown"]["documents"],
        }
    return values


def _collection(collection: Collection, arguments: Mapping[str, Any]) -> Printed:
    return _table(
        {
            "collection": collection.id,
            "queries": len(collection.queries),
            "judgments": collection.qrels.judgments,
            **_record(collection),
            "fingerprint": collection.fingerprint,
        }
    )


def _collected(collection: Collection, arguments: Mapping[str, Any]) -> Printed:
    from irdistill.collections.collecting.collect_report import summary_lines
    from irdistill.collections.collecting.collected_folder import MANIFEST
    from irdistill.collections.slices import split_folder
    from irdistill.storage.files import read_json_object

    folder = split_folder(collection.id)[0]
    path = Path(folder) / MANIFEST
    manifest = read_json_object(path)
    values = {"collection": folder, "documents": len(collection.corpus)}
    if collection.corpus.passages is not None:
        values["passages"] = len(collection.corpus.passages.corpus)
    if collection.queries:
        values |= {"queries": manifest["queries"], "judgments": _sums(manifest["judgments"])}
    values |= summary_lines(manifest)
    printed = _table(values | {"manifest": path, "fingerprint": collection.fingerprint})
    return Printed(printed.text, manifest | {"fingerprint": collection.fingerprint})


def _sums(judgments: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {split}" for split, count in judgments.items()) or "0"


def _record(collection: Collection) -> dict[str, Any]:
    """What the record of a derived collection says of conversations, counts and diversity."""
    from irdistill.storage.files import read_json

    path = Path(collection.id.partition("#")[0]) / "derived.json"
    made_by = read_json(path)["made_by"] if path.is_file() else {}
    kept = {key: made_by[key] for key in ("conversations", "sizes") if key in made_by}
    if made_by.get("verb") == "filter":
        diversity = made_by.get("diversity") or {}
        kept |= made_by.get("counts") or {}
        kept |= {name: round(value, 4) for name, value in diversity.items()}
    return kept


def _model(result: Any, arguments: Mapping[str, Any]) -> Printed:
    model = str(Path(arguments["out"]) / "model") if "out" in arguments else str(result)
    report = getattr(result, "keep_report", None)
    if report is None:
        return Printed(f"model  {model}", {"model": model})
    return Printed(f"{report}\n\nmodel  {model}", {"model": model, "keep": report.to_json()})


def _hits(hits: Any, arguments: Mapping[str, Any]) -> Printed:
    return Printed(hits_text(hits), hits_json(arguments["query"], hits))


def hits_text(hits: Sequence[SearchHit]) -> str:
    """Documents with their scores and the beginning of their texts."""
    lines = []
    for hit in hits:
        passage = "" if hit.passage is None else f", passage {hit.passage}"
        title = "" if hit.text.startswith(hit.title) else hit.title  # passages begin with it
        words = " ".join(f"{title} {hit.text}".split())
        more = "…" if len(words) > 200 else ""
        lines.append(f"{hit.rank:>3}. {hit.doc_id}{passage}  ({hit.score:.4f})")
        lines += [f"     {words[:200]}{more}"] if words else []
    return "\n".join(lines) or "No document shares a word with the query."


def hits_json(query: str, hits: Sequence[SearchHit]) -> dict[str, Any]:
    """A query and its documents as JSON."""
    return {"query": query, "hits": [asdict(hit) for hit in hits]}


@contextmanager
def json_lines(json_file: Path | None) -> Iterator[Callable[[str], object]]:
    """What writes lines of JSON where ``--json`` says: at once for ``-``, else all at the end."""
    import click

    from irdistill.console.terminal import printable_json
    from irdistill.storage.files import make_folder
    from irdistill.storage.ownership import replace_safely

    if json_file is None:
        yield lambda line: None
    elif str(json_file) == "-":
        stream = click.get_current_context().meta[STANDARD_OUTPUT]
        yield lambda line: echo(printable_json(line), file=stream)
    else:
        make_folder(json_file.parent)
        with (
            replace_safely(json_file) as temporary,
            open(temporary, "w", encoding="utf-8", newline="\n") as lines,
        ):
            yield lambda line: lines.write(f"{line}\n")


def _costs(costs: Any, arguments: Mapping[str, Any]) -> Printed:
    from irdistill.evaluation.costs import costs_table, index_tables

    lines = [costs_table(costs, {}).markdown()]
    lines += [table.markdown() for table in index_tables(costs)]
    lines += [
        f"{cost.system} reranks {cost.reranks} documents per query; retrieving them is not counted."
        for cost in costs
        if cost.reranks
    ]
    return Printed("\n".join(lines), {"efficiency": [cost.to_json() for cost in costs]})


def _benchmark(result: Any, arguments: Mapping[str, Any]) -> Printed:
    from irdistill.evaluation.reproduction import checks_table, compare_published

    checked = isinstance(result, list)
    checks = result if checked else compare_published(result)
    text = checks_table(checks).markdown() if checked else result.to_markdown()
    if checks and not checked:
        text += "\n\nPublished figures of the same system:\n\n" + checks_table(checks).markdown()
    json = {} if checked else result.to_json()
    return Printed(
        text,
        json | {"published": [check.to_json() for check in checks]},
        not checked or all(check.ok for check in checks),
    )


def _curve(rows: Any, arguments: Mapping[str, Any]) -> Printed:
    lines = [
        f"{row['threshold']:>9.3f}  {row['kept']:.3f}  {row['first']:.3f}  {row['mrr']:.3f}"
        for row in rows
    ]
    return Printed("\n".join(["threshold  kept    first   mrr", *lines]), {"rows": rows})


def _recipe(folder: Path, arguments: Mapping[str, Any]) -> Printed:
    from irdistill.storage.files import read_json

    report = (folder / "report.md").read_text(encoding="utf-8")
    return Printed(
        f"{report}\nReport: {folder / 'report.md'}; figures at full precision:"
        f" {folder / 'results.json'}",
        read_json(folder / "results.json"),
    )


def _specialised(result: Specialised, arguments: Mapping[str, Any]) -> Printed:
    text = f"{result.report}\nModel: {result.model}; recipe: {result.folder / 'recipe.yaml'}"
    return Printed(text, result.to_json())


def _verified(problems: Mapping[str, list[str]], arguments: Mapping[str, Any]) -> Printed:
    lines = [line for path, faults in problems.items() for line in faults or [f"{path}: well"]]
    return Printed("\n".join(lines), {"problems": problems}, not any(problems.values()))


def _package(bundle: Any, arguments: Mapping[str, Any]) -> Printed:
    facts = dict(bundle.contents)
    values = {
        "package": str(bundle.path),
        "format": facts["format"],
        "model": f"{facts['model']} ({facts['kind']})",
        "passages" if facts["passages"] else "documents": facts["rows"],
        "megabytes": bundle.nbytes / 1e6,
    }
    if facts["left_out"]:
        values["left out (no tokens)"] = facts["left_out"]
    if facts["format"] == "bundle":
        values["search"] = f'irdistill search {bundle.path} "a question of your own"'
    else:
        values["load it"] = f"see {bundle.path / 'README.md'}"
    return _table(values | {"fingerprint": bundle.fingerprint})


def _export(exported: Any, arguments: Mapping[str, Any]) -> Printed:
    left_out = f"; {exported.left_out} rows left out" if exported.left_out else ""
    file = str(arguments["out"])
    json = {"file": file, **exported._asdict()}
    return Printed(f"{exported.rows} rows in {file}{left_out}", json)


_PRINTERS: dict[str, Callable[[Any, Mapping[str, Any]], Printed]] = {
    **dict.fromkeys(("retrieve", "score", "fuse", "mask", "runs import", "runs merge"), _run),
    "collect": _collected,
    **dict.fromkeys(("rewrite", "split", "generate", "filter"), _collection),
    **dict.fromkeys(
        ("train", "pretrain", "align", "terms", "static", "compress", "merge", "retokenize"), _model
    ),
    "run": _recipe,
    "specialise": _specialised,
    **dict.fromkeys(("runs stats", "runs diff"), lambda values, _: _table(values)),
    **dict.fromkeys(
        ("cards list", "cards show", "cards copy", "doctor"), lambda printed, _: printed
    ),
    "search": _hits,
    "explain": lambda why, _: Printed(why.to_markdown(), why.to_json()),
    "view": lambda result, _: Printed("", {}),
    "package": _package,
    "estimate": lambda cost, _: Printed(_table(cost.lines()).text, cost.to_json()),
    "audit": lambda audit, _: Printed(audit.to_markdown(), audit.to_json()),
    "evaluate": lambda table, _: Printed(table.to_markdown(), {"rows": table.to_rows()}),
    "compare": lambda table, _: Printed(table.to_markdown(), table.to_json()),
    "rank-students": lambda table, _: Printed(table.to_markdown(), table.to_json()),
    "diversity": lambda table, _: Printed(table.to_markdown(), table.to_json()),
    "choose": lambda choice, _: Printed(_table(choice["settings"]).text, choice),
    "measure": _costs,
    "report": lambda text, _: Printed(text or "", {"text": text}),
    "benchmark": _benchmark,
    "critic-curve": _curve,
    "export": lambda check, words: _table({"model": str(words["out"]), **asdict(check)}),
    "judgments export": lambda exported, words: _table(
        {"qrels": str(words["out"]), **exported._asdict()}
    ),
    "judgments agreement": lambda table, _: Printed(table.to_markdown(), table.to_json()),
    "runs verify": _verified,
    "runs export": _export,
}
