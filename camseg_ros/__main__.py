"""`segmentation_node`, or `python -m camseg_ros`: explains itself, and that it needs ROS."""

import sys
import textwrap

USAGE = """\
usage: segmentation_node [--ros-args [-p NAME:=VALUE] [--params-file FILE] [-r FROM:=TO] ...]

ROS 2 lifecycle node: subscribes to camera images and publishes a semantic mask for each.

  -p model:=camseg-lite          a bundled model or a checkpoint folder
  --params-file FILE             parameters from a file, such as config/segment.param.yaml
  -r image:=/camera/image_raw    the camera's topic
  -r __ns:=/front                a namespace for the node and its topics

With ROS's tools: ros2 launch camseg_ros segment.launch.py image:=/camera/image_raw
Topics, services and diagnostics: docs/node.md
"""


def main() -> int:
    """Run the node, or print the help; returns the exit code."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        sys.stdout.write(USAGE + parameters())
        return 0
    try:
        import rclpy  # noqa: F401  # first, so that it is named rather than a package of messages

        from camseg_ros.segmentation_node import main as run
    except ImportError as error:
        from camseg_core.cli.console import how_to_install

        sys.stderr.write(f"segmentation_node: {how_to_install('the node', error, 'ros')}\n")
        return 1
    return run()


def parameters() -> str:
    """Return the parameters with their defaults; nothing without ROS, whose types they use."""
    try:
        from camseg_ros.parameters import SPECS
    except ImportError:
        return ""
    lines = ["", "Parameters (default):"]
    for spec in SPECS:
        default = spec.ros_default
        shown = f"{default}".lower() if isinstance(default, bool) else f"{default!r}"
        text = f"{spec.name} ({shown}): {spec.description}"
        lines.append(textwrap.fill(text, 100, initial_indent="  ", subsequent_indent="      "))
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())
