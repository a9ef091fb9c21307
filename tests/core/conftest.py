"""Shared by the core tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # the tests' helper modules, such as `reference`
