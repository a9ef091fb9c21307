"""Shared by the core tests."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the tests' helper modules, such as `reference`


@pytest.fixture(scope="session")
def traced_tiny_lite() -> list[object]:
    """Trace `tiny_lite`'s four graphs and the whole network with two DDIM steps, once: slow."""
    from lite import tiny_lite

    from camseg_core.diffusion.sampling import Fused
    from camseg_core.export.graphs import trace_all

    return [*trace_all(tiny_lite(), [Fused("ddim", 2)])]
