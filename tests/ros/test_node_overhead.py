"""The overhead benchmark's arithmetic, and which settings it measures. No time is asserted."""

import argparse

import node_overhead
import pytest
from node_under_test import Launch

STAGES = {
    "preprocess": 2.0,
    "image_encoder": 10.0,
    "decoder": 8.0,
    "wait": 0.5,
    "read": 0.1,
    "publish": 1.4,
    "pictures": 50.0,
}
DIAGNOSTICS = {
    "model": "camseg-lite",
    **{f"stage {name} (ms)": str(ms) for name, ms in STAGES.items()},
}


def test_overhead_is_what_the_segmenter_does_not_take() -> None:
    found = node_overhead.overhead([24.0, 25.0, 40.0], DIAGNOSTICS)
    assert (found["end_to_end_ms"], found["segmenter_ms"], found["overhead_ms"]) == (
        25.0,
        20.0,
        5.0,
    )
    assert (
        found["outside_ms"] == 3.0
    )  # neither waiting, reading nor publishing; pictures come after the mask


def test_reliable_images_are_measured_only_where_best_effort_ones_are_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def answer(launch: Launch, *rest: object) -> node_overhead.Row:
        return {"frames": 50, "answered": 50 if launch.profile or launch.reliable else 3}

    monkeypatch.setattr(node_overhead, "with_node", answer)
    arguments = argparse.Namespace(model="camseg-lite", threads=0, frames=50, warm_up=5)
    shipped = node_overhead.rows_of((64, 48), True, True, arguments)
    plain = node_overhead.rows_of((64, 48), False, True, arguments)
    assert [(row["reliable"], row["answered"]) for row in shipped] == [(False, 50)]
    assert [(row["reliable"], row["answered"]) for row in plain] == [(False, 3), (True, 50)]
    assert (
        node_overhead.table(plain)
        .splitlines()[2]
        .startswith("| 64x48 | no | yes | best effort | 3 of 50 | – |")
    )


def test_a_frame_lost_with_all_that_ships_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        node_overhead, "with_node", lambda launch, *rest: {"frames": 50, "answered": 49}
    )
    arguments = argparse.Namespace(
        model="camseg-lite",
        threads=0,
        frames=50,
        warm_up=5,
        size=[(640, 480)],
        command="",
        commit="",
    )
    outcome = node_overhead.measure(arguments)
    assert outcome.figures["overhead_ms"] == {"640x480": None}
    assert outcome.failures == ["640x480: 49 of 50 answered"]
