"""Starts the segmentation node: `ros2 launch camseg_ros segment.launch.py image:=/camera/image_raw`."""

import os
from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from camseg_ros.middleware import environment

ARGUMENTS = {
    "image": ("image", "The camera's topic; with image_transport compressed, without the ending /compressed."),
    "model": ("", "Name of a bundled model, or a checkpoint folder; empty: what the parameter file says."),
    "provider": ("", "cpu, cuda or tensorrt, or several to try in turn, as tensorrt,cuda,cpu; empty: what the parameter file says."),
    "precision": ("", "fp32, fp16 or int8; empty: what the parameter file says."),
    "params_file": (
        str(Path(__file__).resolve().parents[1] / "config" / "segment.param.yaml"),
        "Parameter file; what is given on the launch line wins over it.",
    ),
    "namespace": ("", "Namespace of the node and its topics."),
}


def overrides(context: LaunchContext) -> dict[str, str]:
    """The parameters given on the launch line; what was left at its default stays out of the parameter file's way."""
    given = {name: LaunchConfiguration(name).perform(context) for name in ("model", "provider", "precision")}
    return {name: value for name, value in given.items() if value}


def start_node(context: LaunchContext) -> list[Node]:
    """The node, as the launch line asks for it."""
    given = {name: LaunchConfiguration(name).perform(context) for name in ("image", "params_file", "namespace", "fastdds_profile")}
    return [
        Node(
            package="camseg_ros",
            executable="segmentation_node",
            namespace=given["namespace"],
            parameters=[given["params_file"], overrides(context)],
            remappings=[("image", given["image"])],
            # Only for this node: the other processes of a vehicle keep their own transports.
            additional_env=environment(os.environ, profile=given["fastdds_profile"] == "true"),
            output="screen",
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """The launch description."""
    arguments = [DeclareLaunchArgument(name, default_value=default, description=text) for name, (default, text) in ARGUMENTS.items()]
    profile = DeclareLaunchArgument(
        "fastdds_profile",
        default_value="true",
        choices=["true", "false"],
        description="Set the Fast DDS profile that lets large images through, unless the environment already sets one.",
    )
    return LaunchDescription([*arguments, profile, OpaqueFunction(function=start_node)])
