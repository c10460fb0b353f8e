"""The campaigns in small: a few trials of the kinds that are quick to make, and a few kills of
quick verbs.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.campaigns import flips, kills


@pytest.mark.parametrize(
    "kind",
    [
        "corpus",
        "compiled",
        "run",
        "resumed-run",
        "merged-run",
        "representations",
        "bm25",
        "checkpoint",
        "dense",
        "hnsw",
        "sparse",
        "late",
        "token-states",
        "binary",
        "document-vectors",
        "passages",
        "bundle",
    ],
)
def test_damage_is_repaired_or_refused(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "irdistill.storage.checksums.WHOLE_BYTES", flips.checksums.WHOLE_BYTES
    )  # put back at the end
    report = flips.run_kind(kind, 6, 7, tmp_path)
    assert report["notes"] == [] and sum(report["counts"].values()) == 6


def test_the_campaign_notices_silent_damage(tmp_path: Path) -> None:
    (tmp_path / "artifact").mkdir()
    (tmp_path / "artifact" / "data").write_bytes(bytes(100))
    outcomes = {
        flips.trial(
            tmp_path / "artifact",
            lambda place: (place / "data").read_bytes().hex(),
            "00" * 100,
            random.Random(seed),
            tmp_path / "scratch",
        )[0]
        for seed in range(20)
    }
    assert outcomes == {"silent", "traceback"}  # a removed file is no sentence


def test_killed_verbs_end_with_the_same_bytes() -> None:
    report, faults = kills.campaign(["fuse", "runs merge"], rounds=1, minutes=2, seed=3)
    assert faults == [] and set(report) == {"fuse", "runs merge"}
