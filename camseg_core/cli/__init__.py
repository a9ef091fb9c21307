"""The commands of `camseg`: each file declares its options in `add(parser)`, which sets `run`.

What only training needs (torch, yaml, rich, ...) is imported inside `run`, so that commands work
on a vehicle without it.
"""

import os

from camseg_core.cli.console import command_line

# commands report what is wrong with pictures and videos themselves, in one line
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


def start() -> None:
    """Run `camseg`; also Ctrl-C while it is loaded ends it with one line."""
    with command_line("camseg"):
        from camseg_core.cli.main import main

        main()
