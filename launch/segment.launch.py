"""Starts the segmentation node: `ros2 launch camseg_ros segment.launch.py image:=/camera/image_raw`."""

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
        "The camera's topic; with image_transport compressed, without the ending /compressed.",
    ),
    "model": (
        "",
        "Name of a bundled model, or a checkpoint folder; empty: what the parameter file says.",
    ),
    "provider": (
        "",
        "cpu, cuda or tensorrt, or several to try in turn, as tensorrt,cuda,cpu; empty: what the parameter file says.",
    ),
    "precision": ("", "fp32, fp16 or int8; empty: what the parameter file says."),
    "params_file": (
        str(Path(__file__).resolve().parents[1] / "config" / "segment.param.yaml"),
        "Parameter file; what is given on the launch line wins over it.",
    ),
    "cameras": (
        "",
        "Names of the cameras with commas between, as left,right; empty: what the parameter file says.",
    ),
    "namespace": ("", "Namespace of the node and its topics."),
}


CHOICES = {
    "autostart": (
        "",
        ["", "true", "false"],
        "Configure and activate the node by itself; empty: what the parameter file says.",
    ),
    "on_failure": (
        "shutdown",
        ["shutdown", "respawn", "ignore"],
        "When the node ends with an error: end the whole launch with an exit code other than 0, start the node again, or leave it.",
    ),
    "fastdds_profile": (
        "true",
        ["true", "false"],
        "Set the Fast DDS profile that lets large images through, unless the environment already sets one.",
    ),
}

RESPAWN_DELAY_S = 2.0


def value(context: LaunchContext, name: str) -> str:
    """What the launch line says for an argument, or its default."""
    return str(LaunchConfiguration(name).perform(context))


def overrides(context: LaunchContext) -> dict[str, str | bool | list[str]]:
    """The parameters given on the launch line; what was left at its default stays out of the parameter file's way."""
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
    """Hand the node's failure on: `ros2 launch` by itself ends with 0 whatever the exit codes of its processes were.

    Raises:
        RuntimeError: the node failed; it makes `launch` end the other processes, and itself with an exit code other than 0.
    """
    if event.returncode and not context.is_shutdown:
        raise RuntimeError(
            f"{event.process_name} ended with exit code {event.returncode}; its last line says why"
        )


def start_node(context: LaunchContext) -> list[Node]:
    """The node, as the launch line asks for it."""
    on_failure = value(context, "on_failure")
    return [
        Node(
            package="camseg_ros",
            executable="segmentation_node",
            namespace=value(context, "namespace"),
            parameters=[value(context, "params_file"), overrides(context)],
            remappings=[("image", value(context, "image"))],
            # Only for this node: the other processes of a vehicle keep their own transports.
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
    """The launch description."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in ARGUMENTS.items()
    ]
    arguments += [
        DeclareLaunchArgument(name, default_value=default, choices=choices, description=text)
        for name, (default, choices, text) in CHOICES.items()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=start_node)])
