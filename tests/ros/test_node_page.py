"""What `docs/node.md` says of messages and commands is true."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ros_harness import StartNode

from camseg_ros.statistics import REPLACED, TOO_OLD

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "node.md"
SOURCES = (*ROOT.glob("camseg_ros/*.py"), *ROOT.glob("launch/*.py"), ROOT / "camseg_core/masks.py")

pytestmark = pytest.mark.skipif(
    not PAGE.is_file(), reason="an installed package comes without docs/"
)


def texts(source: Path) -> Iterator[str]:
    """The strings of a program; values within them are "…"."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
            yield "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def messages() -> list[str]:
    page = PAGE.read_text(encoding="utf-8").partition("## Troubleshooting")[2]
    return re.findall(r"^\| `([^`]+)` \|", page.partition("\n## ")[0], re.MULTILINE)


def test_every_message_of_the_troubleshooting_tables_is_one_of_the_nodes() -> None:
    found = [text for source in SOURCES for text in texts(source)]
    assert len(messages()) > 35
    # messages are put together from several strings
    between = re.compile(f"…|[;:,'()] ?|{TOO_OLD}|{REPLACED}")
    for message in messages():
        for part in between.split(message):
            assert any(part.strip() in text for text in found), (message, part)


@pytest.mark.parametrize(
    "words",
    ["cannot connect", "images lost: too old", "but silent", "no effect", "masks mix", "/dev/shm"],
)
def test_the_tables_are_found_by_the_words_of_a_message(words: str) -> None:
    assert any(words in message for message in messages())


def test_the_program_that_shows_diagnostics_does_so(start_node: StartNode) -> None:
    section = PAGE.read_text(encoding="utf-8").partition("### See the diagnostics")[2]
    program = section.partition("```python\n")[2].partition("```")[0]
    start_node("--ros-args", "-p", "autostart:=false", "-p", "diagnostics_period:=0.2")
    shown = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert shown.stdout is not None
        line = next(shown.stdout)
        assert line.split("  ") == ["OK", "/segmentation: model", "unconfigured\n"]
        assert next(shown.stdout) == "    state: unconfigured\n"
    finally:
        shown.kill()
        shown.wait()
