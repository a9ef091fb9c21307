"""Make the README's picture: a frame of the synthetic drive, its mask, and the overlay.

python benchmarks/readme_picture.py docs/images/drive.png
"""

import sys
from pathlib import Path

import cv2
import numpy as np

from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_core.masks import colorize, overlay
from camseg_core.runtime import Segmenter

FRAME = 12


def main() -> None:
    """Write the three side by side to the path on the command line."""
    path = Path(sys.argv[1])
    rgb = SyntheticDrive()[FRAME].image
    mask = Segmenter.from_pretrained().segment(rgb).mask
    row = np.concatenate([rgb, colorize(mask), overlay(rgb, mask, 0.5)], axis=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(row, cv2.COLOR_RGB2BGR))


if __name__ == "__main__":
    main()
