"""The real node with `RedEngine` as its network; frames of certain colours are commands to it.

A test starts it in place of the node, see `SUBSTITUTE` in `ros_harness`. Middleware, worker,
watchdog and publishing are the node's own.

    substitute_node.py [options, see `main`] --ros-args ...
"""

from __future__ import annotations  # rclpy's classes are generic only from Jazzy on

import argparse
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import numpy.typing as npt
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.publisher import Publisher
from red_engine import SCALED_DOWN, RedEngine, red_segmenter

from camseg_core.errors import ModelError
from camseg_core.runtime import Segmenter

Colour = tuple[int, ...]

RAISE, HANG, SLOW = (0, 201, 0), (0, 202, 0), (0, 203, 0)
"""Colours of frames that make inference raise, hang, or take `SLOW_S`.

Resizing keeps the colour of a uniform frame in every mode.
"""

SLOW_S = 0.3
RAISED = "the engine was ordered to raise"
REFUSED = "Failed to publish: cannot publish data"


def order(colour: Colour) -> npt.NDArray[np.uint8]:
    """Return a frame that is a command, RGB `(48, 64, 3)`."""
    return np.full((48, 64, 3), colour, np.uint8)


class OrderedEngine(RedEngine):
    """Obeys commands; prints `order raise`, `order hang` or `order slow` when it starts one."""

    def __init__(self, threshold: float, hangs_while: Path | None) -> None:
        super().__init__(threshold)
        self._hangs_while = hangs_while

    def run(self, graph: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        for picture in inputs["image"]:
            colour = tuple(int(value) for value in picture[0, 0])
            if colour in (RAISE, HANG, SLOW):
                self._follow(colour)
        found = super().run(graph, inputs)
        self.seen.clear()  # a long test must not keep every frame
        return found

    def _follow(self, colour: Colour) -> None:
        names: dict[Colour, str] = {RAISE: "raise", HANG: "hang", SLOW: "slow"}
        sys.stdout.write(f"order {names[colour]}\n")
        sys.stdout.flush()
        if colour == RAISE:
            raise RuntimeError(RAISED)
        if colour == SLOW:
            time.sleep(SLOW_S)
        elif self._hangs_while is None:
            threading.Event().wait()
        else:
            while self._hangs_while.exists():
                time.sleep(0.01)


def main() -> int:
    """Run the node; the arguments before `--ros-args` are this script's."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--threshold", type=float, default=128, help="of RedEngine")
    parser.add_argument("--max-upscale", type=float, default=1, help="of the model")
    parser.add_argument("--hangs-while", type=Path, help="hang while this file exists")
    parser.add_argument("--loading-fails-while", type=Path, help="fail to load while it exists")
    parser.add_argument("--publishing-fails-for", help="refuse messages with this frame_id")
    parser.add_argument("--publishing-fails-of", help="refuse messages of this type")
    own = sys.argv[1 : sys.argv.index("--ros-args")]
    options = parser.parse_args(own)
    del sys.argv[1 : len(own) + 1]

    def load(*_: object, **__: object) -> Segmenter:
        if options.loading_fails_while is not None and options.loading_fails_while.exists():
            raise ModelError(f"loading was ordered to fail by {options.loading_fails_while.name}")
        engine = OrderedEngine(options.threshold, options.hangs_while)
        return red_segmenter(engine, replace(SCALED_DOWN, max_upscale=options.max_upscale))

    Segmenter.from_pretrained = load  # type: ignore[method-assign]
    if options.publishing_fails_for or options.publishing_fails_of:
        refuse_to_publish(options.publishing_fails_for, options.publishing_fails_of)
    from camseg_ros.segmentation_node import main as run_node

    return run_node()


def refuse_to_publish(frame_id: str | None, kind: str | None) -> None:
    """Make publishing fail like a saturated reliable writer, for this frame_id or type."""
    publish = Publisher.publish

    def refuse(self: Publisher[Any], message: Any) -> None:
        found = getattr(getattr(message, "header", None), "frame_id", "")
        if found == frame_id or type(message).__name__ == kind:
            raise rclpy_implementation.RCLError(REFUSED)
        publish(self, message)

    Publisher.publish = refuse  # type: ignore[assignment,method-assign]


if __name__ == "__main__":
    sys.exit(main())
