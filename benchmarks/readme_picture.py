"""Make the README's picture: a frame of the synthetic drive, its mask, and the overlay.

python benchmarks/readme_picture.py docs/images/drive.png
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_core.errors import CamSegError
from camseg_core.long_runs import writable_file
from camseg_core.masks import colorize, overlay
from camseg_core.runtime import Segmenter

FRAME = 12


def main() -> None:
    """Write the three side by side to the path on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("path", type=Path, help="the picture to write, a PNG")
    path: Path = parser.parse_args().path
    rgb = SyntheticDrive()[FRAME].image
    mask = Segmenter.from_pretrained().segment(rgb).mask
    row = np.concatenate([rgb, colorize(mask), overlay(rgb, mask, 0.5)], axis=1)
    _, encoded = cv2.imencode(".png", cv2.cvtColor(row, cv2.COLOR_RGB2BGR))
    try:
        writable_file(path, "path").write_bytes(encoded.tobytes())
    except CamSegError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
