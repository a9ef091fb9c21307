"""What the benchmarks that write into a document share: its sections between markers, and the commit that the figures are of."""

import subprocess
from pathlib import Path

from camseg_core.errors import ConfigError


def write_section(document: Path, name: str, text: str) -> None:
    """Replace what stands between `<!-- name: begin -->` and `<!-- name: end -->` in the document.

    Raises:
        ConfigError: the document lacks these markers.
    """
    opening, closing = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    content = document.read_text(encoding="utf-8")
    before, begin, rest = content.partition(opening)
    _, end, after = rest.partition(closing)
    if not begin or not end:
        raise ConfigError(f"{document} has no section between {opening} and {closing}")
    document.write_text(f"{before}{opening}\n{text}\n{closing}{after}", encoding="utf-8")


def current_commit(*paths: str) -> str:
    """The checked-out commit, and whether anything under `paths` of the repository differs from it."""
    root = Path(__file__).parents[1]

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True, check=True).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + (" with changes" if git("status", "--porcelain", "--", *paths) else "")
