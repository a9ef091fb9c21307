"""MkDocs hook: adds documents outside docs/ to the site and makes links to files work in it."""

import re
from pathlib import Path
from posixpath import dirname, join, normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]

PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "docker/README.md": "docker.md",
    "camseg_core/weights/camseg-lite/MODEL_CARD.md": "model-card.md",
}
"""Documents outside docs/, and their names in the site."""

LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)[^)\s#]+")
"""The target of a relative Markdown link or image, without its anchor."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the documents, and every other file that a page links to."""
    for path, uri in PAGES.items():
        content = (ROOT / path).read_text(encoding="utf-8")
        files.append(File.generated(config, uri, content=content))
    linked = {
        _repository_path(file.src_uri, target)
        for file in files.documentation_pages()
        for target in LINK.findall(file.content_string)
    }
    for path in sorted(linked):
        uri = _site_uri(path)
        if files.get_file_from_path(uri) is None and (ROOT / path).is_file():
            files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make the links of a page relative to its place in the site."""
    folder = dirname(page.file.src_uri) or "."

    def in_site(link: re.Match[str]) -> str:
        return relpath(_site_uri(_repository_path(page.file.src_uri, link[0])), folder)

    return LINK.sub(in_site, markdown)


def _repository_path(uri: str, target: str) -> str:
    """The path, from the repository's root, of what the page `uri` links to as `target`."""
    sources = {page: path for path, page in PAGES.items()}
    return normpath(join(dirname(sources.get(uri, f"docs/{uri}")), target))


def _site_uri(path: str) -> str:
    """Where a file of the repository is in the site."""
    return PAGES.get(path) or (path[5:] if path.startswith("docs/") else f"files/{path}")
