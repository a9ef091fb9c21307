"""What the documentation says of files, links, commands and versions is true."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

import camseg_core
from camseg_core.cli.main import main

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("docker/*.md"),
        *ROOT.glob("camseg_core/weights/*/*.md"),
    ]
)
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s]+)\)")
PATH = re.compile(r"`([\w./-]+(?:\.(?:py|yaml|yml|json|xml|md|cff|j2|html)|/))`")

pytestmark = pytest.mark.skipif(
    not (ROOT / "docs").is_dir(), reason="an installed package comes without docs/"
)


def names(document: Path) -> str:
    """The name of a document in test reports."""
    return str(document.relative_to(ROOT))


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(document: Path) -> Iterator[list[str]]:
    """The subcommands of each `camseg …` in code: `["bag", "evaluate"]`."""
    text = document.read_text(encoding="utf-8")
    code = re.findall(r"^(?:    |\| .*`)camseg (.+)$", text, re.MULTILINE)
    code += re.findall(r"`camseg ([^`]+)`", text)
    for line in code:
        words = re.match(r"[a-z][a-z-]*(?: [a-z][a-z-]*(?=[\s`]|$))?", line)
        if words:
            yield words[0].split()


@pytest.mark.parametrize("document", DOCUMENTS, ids=names)
def test_lines_of_documents_are_at_most_120_columns(document: Path) -> None:
    lines = document.read_text(encoding="utf-8").splitlines()
    long = [
        number
        for number, line in enumerate(lines, 1)
        if len(line) > 120 and not line.startswith("|")
    ]
    assert not long


@pytest.mark.parametrize("document", DOCUMENTS, ids=names)
def test_links_between_documents_and_files_resolve(document: Path) -> None:
    for target in LINK.findall(document.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        linked = document.parent / path if path else document
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked), target


def test_the_readme_stays_under_150_lines() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 150


@pytest.mark.parametrize(
    "document", [ROOT / "docs/architecture.md", ROOT / "CONTRIBUTING.md"], ids=names
)
def test_every_file_that_it_names_exists(document: Path) -> None:
    paths = PATH.findall(document.read_text(encoding="utf-8"))
    assert paths
    assert not [path for path in paths if "/" in path and not (ROOT / path).exists()]


def test_every_function_that_the_architecture_names_is_in_the_file_beside_it() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| .*\| (`[^|]*) \| `(camseg_[\w/]+\.py)` \|$", text, re.MULTILINE)
    assert len(rows) > 20
    for functions, path in rows:
        code = (ROOT / path).read_text(encoding="utf-8")
        for name in re.findall(r"`(?:\w*\.)?(\w+)`", functions):
            assert re.search(rf"\b(?:def|class) {name}\b", code), (name, path)


def test_every_camseg_command_in_the_documents_exists(capsys: pytest.CaptureFixture[str]) -> None:
    found = {tuple(command) for document in DOCUMENTS for command in commands(document)}
    assert ("bag", "evaluate") in found
    for command in sorted(found):
        with pytest.raises(SystemExit) as exit_:
            main([*command, "--help"])
        assert exit_.value.code == 0, (shlex.join(command), capsys.readouterr().err)


def test_every_version_is_the_packages() -> None:
    version = re.escape(camseg_core.__version__)
    for name, pattern in {
        "setup.py": rf'version="{version}"',
        "package.xml": rf"<version>{version}</version>",
        "CITATION.cff": rf"(?m)^version: {version}$",
        "CHANGELOG.md": rf"(?m)^## .*{version}",
    }.items():
        assert re.search(pattern, (ROOT / name).read_text(encoding="utf-8")), name
