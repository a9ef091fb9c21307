"""Starts the node: `ros2 launch camseg_ros segment.launch.py image:=/camera/image_raw`."""

import os
from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from camseg_ros.middleware import environment

ARGUMENTS = {
    "image": (
        "image",
        "The camera's image topic, without /compressed.",
    ),
    "model": (
        "",
        "Name of a bundled model, or path of a checkpoint folder; empty: from the parameter file.",
    ),
    "provider": (
        "",
        "cpu, cuda, tensorrt, or several to try in turn, as in tensorrt,cuda,cpu; empty: from the "
        "parameter file.",
    ),
    "precision": ("", "fp32, fp16 or int8; empty: from the parameter file."),
    "params_file": (
        str(Path(__file__).resolve().parents[1] / "config" / "segment.param.yaml"),
        "Parameter file; arguments of the launch command override it.",
    ),
    "cameras": (
        "",
        "Names of the cameras, as in left,right; empty: from the parameter file.",
    ),
    "namespace": ("", "Namespace of the node and its topics."),
}


CHOICES = {
    "autostart": (
        "",
        ["", "true", "false"],
        "Configure and activate the node at start; empty: from the parameter file.",
    ),
    "on_failure": (
        "shutdown",
        ["shutdown", "respawn", "ignore"],
        "When the node fails: shutdown ends the whole launch with a non-zero exit code, respawn "
        "restarts the node, ignore does nothing.",
    ),
    "fastdds_profile": (
        "true",
        ["true", "false"],
        "Set the Fast DDS profile for large images, unless the environment sets one.",
    ),
}

RESPAWN_DELAY_S = 2.0


def value(context: LaunchContext, name: str) -> str:
    """Return the value of a launch argument, or its default."""
    return str(LaunchConfiguration(name).perform(context))


def overrides(context: LaunchContext) -> dict[str, str | bool | list[str]]:
    """Return the parameters given as arguments; defaults do not override the parameter file."""
    given: dict[str, str | bool | list[str]] = {
        name: value(context, name) for name in ("model", "provider", "precision")
    }
    given["cameras"] = [
        name.strip() for name in value(context, "cameras").split(",") if name.strip()
    ]
    given = {name: each for name, each in given.items() if each}
    if value(context, "autostart"):
        given["autostart"] = value(context, "autostart") == "true"
    return given


def end_launch(event: ProcessExited, context: LaunchContext) -> None:
    """Pass on the node's failure: `ros2 launch` itself ignores the exit codes of its processes.

    Raises:
        RuntimeError: the node failed. It makes `launch` stop the other processes and exit non-zero.
    """
    if event.returncode and not context.is_shutdown:
        raise RuntimeError(
            f"{event.process_name} exited with code {event.returncode}; see its last line"
        )


def start_node(context: LaunchContext) -> list[Node]:
    """Return the node with the arguments applied."""
    on_failure = value(context, "on_failure")
    return [
        Node(
            package="camseg_ros",
            executable="segmentation_node",
            namespace=value(context, "namespace"),
            parameters=[value(context, "params_file"), overrides(context)],
            remappings=[("image", value(context, "image"))],
            # only for this node: other processes of the launch keep their own transports
            additional_env=environment(
                os.environ, profile=value(context, "fastdds_profile") == "true"
            ),
            output="screen",
            respawn=on_failure == "respawn",
            respawn_delay=RESPAWN_DELAY_S,
            on_exit=end_launch if on_failure == "shutdown" else None,
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Return the launch description."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in ARGUMENTS.items()
    ]
    arguments += [
        DeclareLaunchArgument(name, default_value=default, choices=choices, description=text)
        for name, (default, choices, text) in CHOICES.items()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=start_node)])
