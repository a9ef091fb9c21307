"""The `camseg` commands in README and docs: all are parsed; those on files are run in order."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from odd_files import PICTURE, encoded
from recorded import Commands, camseg

from camseg_core.cli.main import command_parser, main
from camseg_ros.bag import evaluate_command, extract, make, mine, replay_command

__all__ = ["camseg"]

ROOT = Path(__file__).parents[2]
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
TUTORIALS = tuple(sorted((ROOT / "docs" / "tutorials").glob("*.md")))
"""Their commands build on each other: `test_tutorial.py` runs them."""

NAMES = {"<CamVid root>": "camvid", "<data>": "camvid", "<folder of the sets>": "sets"}
SETS = ("camvid", "cityscapes-small", "idd-lite")
RUN = ("segment", "data", "evaluate", "bag")

pytestmark = pytest.mark.skipif(
    not (ROOT / "docs").is_dir(), reason="an installed package comes without docs/"
)


def documented(path: Path) -> list[list[str]]:
    """Return the words of each command in the document, without those that leave something out."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    for name, word in NAMES.items():
        text = text.replace(name, word)
    text = re.sub(r"<[a-z ]+>", "FOLDER", text)
    lines = re.findall(r"^(?:    |\$ )camseg (.*)$", text, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines if "…" not in line]


@pytest.mark.parametrize("document", [*DOCUMENTS, *TUTORIALS], ids=lambda path: path.name)
def test_every_documented_command_is_parsed(
    document: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (evaluate_command, extract, make, mine, replay_command):
        monkeypatch.setattr(module, "run", lambda options: None)
    for words in documented(document):
        code: object = 0
        try:
            options = command_parser().parse_args(words)
            if words[0] == "bag":
                options.run(options)  # its own parser is behind it
        except SystemExit as ended:  # as of --list
            code = ended.code
        assert not code, (shlex.join(words), capsys.readouterr().err)


def limits() -> str:
    """Return the example of a scenario in docs/bags.md."""
    text = (ROOT / "docs/bags.md").read_text(encoding="utf-8")
    found = re.search(r"```yaml\n(start_s:.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.slow
def test_documented_commands_on_files_run_in_order(
    tmp_path: Path, camseg: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    ran = 0
    for document in DOCUMENTS:
        for words in documented(document):
            if words[0] not in RUN or {"replay", "mine", "--dataset"} & set(words):
                continue
            words = ["camvid" if word == "ROOT" else word for word in words]
            words = [f"bag {ran}" if word == "BAG" else word for word in words]
            code: object = 0
            try:
                main(words)
            except SystemExit as ended:
                code = ended.code or 0
            err = camseg.capture.readouterr().err
            ran += 1
            if "--scenario" in words:
                lines = [line for line in err.splitlines() if line.startswith("camseg: scenario: ")]
                assert lines
                assert all("is below the limit" in line for line in lines), err
                assert code == 1
            else:
                assert code == 0, (shlex.join(words), err)
    assert ran >= 10


def write_files(folder: Path) -> None:
    """Write what the commands name: pictures, CamVid's layout, a scenario, the configurations."""
    (folder / "limits.yaml").write_text(limits())
    (folder / "config").symlink_to(ROOT / "config")
    label, coarse = (encoded(".png", PICTURE[..., 0] % ids) for ids in (11, 7))
    for place, content in (
        ("photo.jpg", encoded(".jpg")),
        ("PATH/a.png", encoded(".png")),
        (
            "camvid/train/images/0001TP_0.png",
            encoded(".png", np.ascontiguousarray(PICTURE[:, ::-1])),
        ),
        ("camvid/val/images/0001TP_0.png", encoded(".png")),
        *((f"camvid/{split}/labels/0001TP_0.png", label) for split in ("train", "val")),
        *((f"sets/{name}/val/images/0001TP_0.png", encoded(".png")) for name in SETS),
        *((f"sets/{name}/val/labels/0001TP_0.png", coarse) for name in SETS),
    ):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(content)
