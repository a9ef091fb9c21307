"""Latency and memory of the segmentation node: frames go in one at a time over DDS, and the masks that come back are timed.

    python benchmarks/node_latency.py --json

The node runs as its own process with the shipped Fast DDS profile. The latency is that of a user of the node: from before
`publish` of an rgb8 image to the mask in the subscriber's callback.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from camseg_ros.image_messages import image_message
from camseg_ros.middleware import environment

TIMEOUT_S = 60.0


class Driver:
    """Publishes frames and waits for their masks."""

    def __init__(self) -> None:
        self.node = Node("node_latency")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._publisher = self.node.create_publisher(Image, "image", qos_profile_sensor_data)
        self.node.create_subscription(Image, "segmentation/mask", self._store, 10)
        self._number = 0
        self._answered: dict[int, float] = {}

    def _store(self, mask: Image) -> None:
        self._answered[mask.header.stamp.sec] = time.perf_counter()

    def ask(self, pixels: np.ndarray, timeout: float) -> float | None:
        """Milliseconds from a frame to its mask; None if there was no answer in time."""
        number = self._number = self._number + 1  # in the stamp, to tell the answers apart
        message = image_message(pixels, "rgb8", Header(stamp=Time(sec=number), frame_id="benchmark"))
        start = time.perf_counter()
        self._publisher.publish(message)
        while number not in self._answered:
            left = start + timeout - time.perf_counter()
            if left <= 0:
                return None
            self._executor.spin_once(timeout_sec=left)
        return (self._answered[number] - start) * 1e3


def measure(driver: Driver, size: tuple[int, int], frames: int, warm_up: int) -> dict[str, float | int | str]:
    """One row of the table for frames of `size` (width, height)."""
    width, height = size
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    answers = [driver.ask(pixels, TIMEOUT_S) for _ in range(warm_up + frames)][warm_up:]
    times = sorted(answer for answer in answers if answer is not None)
    row: dict[str, float | int | str] = {"size": f"{width}x{height}", "frames": frames, "answered": len(times)}
    if times:
        row |= {"p50_ms": round(statistics.median(times), 1), "p95_ms": round(times[round(0.95 * (len(times) - 1))], 1)}
    return row


def resident_megabytes(process_id: int) -> float:
    """The process's resident memory in MB (10^6 bytes)."""
    pages = int(Path(f"/proc/{process_id}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=50, help="frames of each size (default 50)")
    parser.add_argument("--warm-up", type=int, default=5, help="frames of each size that are not counted (default 5)")
    parser.add_argument("--size", action="append", metavar="WxH", help="frame size, may be repeated (default 480x360 and 640x480)")
    parser.add_argument("--model", default="camseg-lite", help="model name or checkpoint folder (default camseg-lite)")
    parser.add_argument("--threads", type=int, default=0, help="the node's parameter threads (default 0 = all cores)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON in the last line")
    return parser.parse_args()


def main() -> int:
    """Run the benchmark; exit code 1 if a frame was not answered."""
    arguments = parse_arguments()
    sizes = [tuple(map(int, size.split("x"))) for size in arguments.size or ["480x360", "640x480"]]
    os.environ.setdefault("ROS_DOMAIN_ID", str(os.getpid() % 101 + 1))
    os.environ.setdefault("ROS_LOG_DIR", tempfile.mkdtemp(prefix="node_latency_"))
    os.environ.update(environment(os.environ))
    parameters = [f"model:={arguments.model}", f"threads:={arguments.threads}"]
    options = [option for parameter in parameters for option in ("-p", parameter)]
    command = [sys.executable, "-m", "camseg_ros.segmentation_node", "--ros-args", "--log-level", "warn", *options]
    node = subprocess.Popen(command)
    try:
        rclpy.init(args=[])
        driver = Driver()
        deadline = time.monotonic() + TIMEOUT_S
        first = np.zeros((48, 64, 3), np.uint8)
        while driver.ask(first, 1.0) is None:  # discovery takes its time
            if node.poll() is not None or time.monotonic() > deadline:
                sys.stderr.write("the node does not answer\n")
                return 1
        rows = [measure(driver, (width, height), arguments.frames, arguments.warm_up) for width, height in sizes]
        memory = resident_megabytes(node.pid)
    finally:
        node.terminate()
        node.wait(TIMEOUT_S)
        rclpy.try_shutdown()
    show(rows, memory, arguments.json)
    return 0 if all(row["answered"] == row["frames"] for row in rows) else 1


def show(rows: list[dict[str, float | int | str]], memory: float, as_json: bool) -> None:
    """Print the table, the node's memory, and with `as_json` the same as JSON in the last line."""
    print(f"{'size':>10} {'answered':>10} {'p50 ms':>8} {'p95 ms':>8}")
    for row in rows:
        answered = f"{row['answered']}/{row['frames']}"
        print(f"{row['size']:>10} {answered:>10} {row.get('p50_ms', '-'):>8} {row.get('p95_ms', '-'):>8}")
    print(f"node memory: {memory} MB resident; {os.cpu_count()} cores")
    if as_json:
        print(json.dumps({"sizes": rows, "rss_mb": memory, "cores": os.cpu_count()}))


if __name__ == "__main__":
    sys.exit(main())
