"""Record which functions of the project a frame passes, from subscription to published mask.

As a program, print them by file, in order of first use:

    python tests/ros/frame_path.py
"""

import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rclpy
from ros_harness import Driver, header, own_domain, picture, pixels_of, rgb_image
from sensor_msgs.msg import Image

from camseg_ros.parameters import Parameters
from camseg_ros.pipeline import Pipeline
from camseg_ros.worker import WorkerSession

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = tuple(f"{ROOT / name}{os.sep}" for name in ("camseg_core", "camseg_ros"))
INLINED = ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>")
"""Comprehensions are frames of their own only up to Python 3.11."""


def qualified_name(code: CodeType) -> str:
    """Return a function's name with its class; without it before Python 3.11."""
    return str(getattr(code, "co_qualname", code.co_name)).replace(".<locals>", "")


class Recorder:
    """Collects the project's functions that are called, return, or are on the stack meanwhile."""

    def __init__(self) -> None:
        self.functions: dict[CodeType, None] = {}
        self.recording = False

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        """The profile function of a thread."""
        if self.recording and event in ("call", "return"):
            stack: FrameType | None = frame
            found: list[CodeType] = []
            while stack is not None:
                code = stack.f_code
                if code.co_filename.startswith(PACKAGES) and code.co_name not in INLINED:
                    found.append(code)
                stack = stack.f_back
            self.functions.update(dict.fromkeys(reversed(found)))

    def by_file(self) -> dict[str, list[str]]:
        """The functions of each file, both in the order of first use."""
        files: dict[str, list[str]] = {}
        for code in self.functions:
            name = str(Path(code.co_filename).relative_to(ROOT))
            files.setdefault(name, []).append(qualified_name(code))
        return files


def answered(masks: list[Image], count: int, session: WorkerSession) -> bool:
    """Return whether so many masks have arrived and the worker waits again."""
    return len(masks) == count and session.busy_since is None


@contextmanager
def profiled(recorder: Recorder) -> Iterator[None]:
    """Run `recorder` in this thread and in those started meanwhile."""
    threading.setprofile(recorder)
    sys.setprofile(recorder)
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def frame_path(driver: Driver, fail: Callable[[str], None]) -> dict[str, list[str]]:
    """Send frames through the node's pipeline over DDS; return the functions of the last, by file.

    The pipeline is the node's own with its default parameters; a publisher sends the frames and a
    subscriber receives the masks. Recording ends when the inference thread waits again, shortly
    after the mask is published.

    Args:
        driver: its node owns the pipeline and plays the camera.
        fail: called if the pipeline gives up on the engine.
    """
    recorder = Recorder()
    pipeline = Pipeline(driver.node, Parameters(warm_up_sizes=("480x360",)), fail)
    masks: list[Any] = driver.listen(Image, "/segmentation/mask")
    publisher = driver.node.create_publisher(Image, "/image", 1)
    try:
        with profiled(recorder):
            pipeline.start()
            driver.wait(publisher.get_subscription_count, "the subscription")
            mask_publisher = pipeline.cameras[""].outputs.mask
            driver.wait(mask_publisher.get_subscription_count, "the listener")
            for number in range(3):
                image = rgb_image(picture(480, 360, number), number)
                recorder.recording = number == 2  # the first ones fill caches
                publisher.publish(image)
                worker = pipeline.worker
                assert worker is not None
                driver.wait(partial(answered, masks, number + 1, worker._session), "a mask")
                recorder.recording = False
            assert masks[-1].header == header(2)
            assert pixels_of(masks[-1]).shape == (360, 480)
    finally:
        pipeline.stop(60)
        pipeline.destroy()
    return recorder.by_file()


def main() -> None:
    """Print the functions of each file."""
    with own_domain() as domain, tempfile.TemporaryDirectory() as logs:
        os.environ |= {"ROS_DOMAIN_ID": str(domain), "ROS_LOG_DIR": logs}
        rclpy.init(args=[])
        driver = Driver()
        files = frame_path(driver, sys.exit)
        driver.close()
        rclpy.shutdown()
    count = sum(map(len, files.values()))
    sys.stdout.write(f"{count} functions in {len(files)} files\n")
    for name, functions in files.items():
        sys.stdout.write(f"{name}: {', '.join(functions)}\n")


if __name__ == "__main__":
    main()
