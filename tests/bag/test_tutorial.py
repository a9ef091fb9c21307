"""The tutorial's commands run as they stand, on as few frames and steps as they allow."""

import json
import re
import shlex
from pathlib import Path

import pytest

from camseg_core.cli.main import main

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs" / "tutorials" / "own-camera.md"

LEAST = {"--frames": "3", "training.loop.steps": "1", "training.batch": "1"}
"""Values that take the place of the tutorial's larger ones, by option or setting."""

pytestmark = pytest.mark.skipif(
    not TUTORIAL.is_file(), reason="an installed package comes without docs/"
)


def commands() -> list[list[str]]:
    """The words of each `camseg` command, in order."""
    text = TUTORIAL.read_text(encoding="utf-8").replace("\\\n", " ")
    return [shlex.split(line) for line in re.findall(r"^\$ camseg (.*)$", text, re.MULTILINE)]


def shrunk(words: list[str]) -> list[str]:
    """The same command with the least values."""
    found = list(words)
    for place, word in enumerate(words[1:], start=1):
        setting, _, value = word.partition("=")
        if words[place - 1] in LEAST:
            found[place] = LEAST[words[place - 1]]
        elif words[place - 1] == "--set" and setting in LEAST:
            assert value
            found[place] = f"{setting}={LEAST[setting]}"
    return found


def test_the_loop_is_complete() -> None:
    assert [words[:2] if words[0] in ("bag", "data") else words[:1] for words in commands()] == [
        ["bag", "make"],
        ["bag", "make"],
        ["bag", "mine"],
        ["data", "check"],
        ["train"],
        ["compare"],
    ]


@pytest.mark.slow
def test_every_command_of_the_tutorial_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in map(shrunk, commands()):
        code: object = 0
        try:
            main(words)
        except SystemExit as ended:
            code = ended.code or 0
        out, err = capsys.readouterr()
        # one step may make the model worse, which the last command then says
        worse = words[0] == "compare" and "limit: max_drop" in err
        assert code == worse, (shlex.join(words), out, err)
    found = json.loads((tmp_path / "out" / "compare" / "comparison.json").read_text())
    assert [each["name"] for each in found["models"]] == ["camseg-lite", "mine"]
    (part,) = found["parts"]
    assert (part["title"], part["labelled"]) == ("other-drive", 3)
    assert (tmp_path / "runs" / "mine" / "comparison" / "comparison.html").is_file()
    assert (tmp_path / "runs" / "mine" / "checkpoint" / "onnx" / "fp32").is_dir()
    for page in ("to_label/index.html", "out/data/contact-sheet.png"):
        assert (tmp_path / page).is_file()
