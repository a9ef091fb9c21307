"""The soak benchmark, briefly: masks belong to sent frames, once and in order; no time limits."""

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest
import soak
from frame_ledger import FrameLedger

CAMERAS = 2


@pytest.mark.slow
def test_a_short_soak_loses_track_of_nothing() -> None:
    """In a short run memory still grows, and so may grow by more than in the long run."""
    options = [
        "--minutes",
        "0.5",
        "--cameras",
        str(CAMERAS),
        "--growth-limit",
        "0.1",
        "--latency-tolerance",
        "inf",
        "--json",
    ]
    run = subprocess.run(
        [sys.executable, soak.__file__, *options], capture_output=True, text=True, timeout=200
    )
    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert {found[name] for name in ("exceptions", "duplicates", "out_of_order", "unmatched")} == {
        0
    }, found
    assert found["rss_growth"] < 0.1, found
    assert len(found["cameras"]) == CAMERAS
    assert all(counts["answered"] > 0 for counts in found["cameras"].values()), found


def soaked(
    latency_ms: float = 50,
    last_latency_ms: float = 50,
    last_mb: float = 400,
    counts: Mapping[str, int] | None = None,
    tracebacks: int = 0,
) -> soak.Soaked:
    """Return two minutes of answers, one a second; memory and latency change after half."""
    ledger = FrameLedger("camera")
    for second in range(120):
        ledger.send(second, 1000 + second)
        ledger.answer(
            second, "camera", 1000 + second + (latency_ms if second < 60 else last_latency_ms) / 1e3
        )
    memory = [(float(second), 400 if second < 60 else last_mb) for second in range(120)]
    return soak.Soaked(
        1000.0, 120.0, {"": ledger}, memory, {"/segmentation": counts or {}}, tracebacks
    )


def failures(found: Mapping[str, Any]) -> list[str]:
    return [
        line.split()[0]
        for line in soak.failures(found, soak.Limits(growth=0.02, latency_change=0.1))
    ]


def test_a_steady_run_holds_every_limit() -> None:
    found = soak.figures(soaked(counts={"frames received": 120}))
    assert (found["rss_growth"], found["latency_first_ms"], found["latency_last_ms"]) == (0, 50, 50)
    assert found["node"] == {"/segmentation": {"frames received": 120}}
    assert failures(found) == []


def test_growing_memory_fails() -> None:
    found = soak.figures(soaked(last_mb=408))
    assert found["rss_growth"] == pytest.approx(0.02)
    assert failures(found) == ["rss_growth"]


@pytest.mark.parametrize("last_ms", [40, 60])
def test_a_changed_latency_fails(last_ms: float) -> None:
    assert failures(soak.figures(soaked(last_latency_ms=last_ms))) == ["latency_change"]


def test_tracebacks_and_failed_inference_are_exceptions() -> None:
    found = soak.figures(
        soaked(
            counts={
                "rejected: inference failed": 1,
                "rejected: inference hung": 1,
                "rejected: size": 5,
            },
            tracebacks=1,
        )
    )
    assert found["exceptions"] == 3
    assert failures(found) == ["exceptions"]


def test_wrong_answers_and_a_silent_camera_fail() -> None:
    run = soaked()
    run.ledgers[""].answer(119, "camera", 2000)
    run.ledgers[""].answer(1_000_000, "camera", 2000)
    silent = soak.Soaked(
        run.began,
        run.seconds,
        {**run.ledgers, "right": FrameLedger("right")},
        run.memory,
        run.counts,
        0,
    )
    assert failures(soak.figures(silent)) == ["duplicates", "unmatched", "right"]


def test_a_run_that_stops_being_answered_is_refused() -> None:
    run = soaked()
    longer = soak.Soaked(run.began, 200.0, run.ledgers, run.memory, run.counts, 0)
    with pytest.raises(soak.CamSegError, match="no mask came in 4 of 10 stretches of 20 s"):
        soak.figures(longer)
