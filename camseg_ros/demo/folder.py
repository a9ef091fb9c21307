"""The folder that the demo writes. A new run replaces the files of the last one, and never any other."""

from pathlib import Path

from camseg_core.errors import ConfigError

MARKER = ".camseg-demo"
MARKER_TEXT = "This folder is written by the camseg demo, which replaces its own files here.\n"

OURS = (
    "index.html",
    "summary.json",
    "overlay.mp4",
    "overlays/frame_*.png",
    "bag/metadata.yaml",
    "bag/bag.mcap",
    "log/*.log",
)
"""What the demo writes into its folder, as patterns."""


class DemoFolder:
    """Where everything that the demo leaves is found."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.page = path / "index.html"
        self.summary = path / "summary.json"
        self.video = path / "overlay.mp4"
        self.overlays = path / "overlays"
        self.bag = path / "bag"
        self.log = path / "log"

    def overlay(self, index: int) -> Path:
        """The overlay of one frame."""
        return self.overlays / f"frame_{index:05d}.png"

    def prepare(self, source: Path | None) -> None:
        """Make the folder, without what an earlier demo left in it.

        Args:
            source: what the demo is about to read, and so must not be removed.

        Raises:
            ConfigError: the folder holds something else than an earlier demo, cannot be written, or holds `source`.
        """
        path = self.path
        if path.exists() and not path.is_dir():
            raise ConfigError(f"{path} is a file; name a folder for the demo's output")
        if path.is_dir() and any(path.iterdir()) and not (path / MARKER).is_file():
            raise ConfigError(f"{path} holds files that are not the demo's; name another folder for its output, or an empty one")
        if source is not None and source.resolve().is_relative_to(path.resolve()):
            raise ConfigError(f"{source} lies in {path}, which this run replaces; copy it elsewhere, or name another folder for the output")
        try:
            path.mkdir(parents=True, exist_ok=True)
            (path / MARKER).write_text(MARKER_TEXT, encoding="utf-8")
            for pattern in OURS:
                for file in path.glob(pattern):
                    file.unlink()
            if self.bag.is_dir():
                self.bag.rmdir()
            self.overlays.mkdir(exist_ok=True)
            self.log.mkdir(exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot write to {path}: {error.strerror} ({error.filename}); name another folder for the output") from error
