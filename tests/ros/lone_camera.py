"""A camera as a process, which a test can start with any environment, and kill.

    lone_camera.py --name left_camera --reliability best_effort

Publishes 640x480 frames on /image ten times a second, stamped by number, until it ends.
"""

import argparse
import itertools
import time

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image


def main() -> None:
    """Publish until the process ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    parser.add_argument("--reliability", choices=("best_effort", "reliable"), default="best_effort")
    options = parser.parse_args()
    rclpy.init(args=[])
    node = rclpy.create_node(options.name)
    publisher = node.create_publisher(
        Image,
        "/image",
        QoSProfile(depth=5, reliability=ReliabilityPolicy[options.reliability.upper()]),
    )
    frame = Image(height=480, width=640, encoding="rgb8", step=1920)
    frame.header.frame_id = options.name
    frame.data.frombytes(np.zeros(480 * 1920, np.uint8))
    for number in itertools.count(1):
        frame.header.stamp = Time(sec=number)
        publisher.publish(frame)
        time.sleep(0.1)


if __name__ == "__main__":
    main()
