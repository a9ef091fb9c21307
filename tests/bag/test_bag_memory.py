"""The benchmark of a long bag on a short one: its figures are consistent; no time is asserted."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import bag_memory


@pytest.mark.slow
def test_memory_does_not_grow_with_the_bag(tmp_path: Path) -> None:
    short, longer = (bag_memory.measure(count, 1, tmp_path) for count in (4, 40))
    assert (short["frames"], longer["frames"]) == (4, 40)
    assert 0 < longer["read_share"] < 0.5
    assert 50 < short["peak_rss_mb"] < longer["peak_rss_mb"] + 50
    assert longer["peak_rss_mb"] < short["peak_rss_mb"] + 100
    assert longer["peak_rss_mb"] < 1500
    assert not list(tmp_path.iterdir())
