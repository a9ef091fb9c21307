"""The commands of `camseg`: each file declares its options in `add(parser)`, which sets `run`.

Packages that only training needs (torch, yaml, rich, ...) are imported inside `run`: commands
must work on a vehicle without them.
"""

import os

from camseg_core.cli.console import command_line

# commands report what is wrong with pictures and videos themselves, in one line
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


def start() -> None:
    """Run `camseg`; Ctrl-C while it still loads ends it with one line, too."""
    with command_line("camseg"):
        from camseg_core.cli.main import main

        main()
