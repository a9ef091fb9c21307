"""Starts the node: `ros2 launch camseg_ros segment.launch.py image:=/camera/image_raw`."""

import os
import signal
from collections.abc import Collection
from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from camseg_core.errors import ConfigError
from camseg_ros.middleware import environment
from camseg_ros.ros_arguments import NotUnderstood, read_file

ARGUMENTS = {
    "image": (
        "",
        "The camera's image topic; one that ends with /compressed has compressed images; empty: "
        "image_topic of the parameter file.",
    ),
    "image_transport": (
        "",
        "raw or compressed; empty: from the parameter file, unless image says it.",
    ),
    "model": (
        "",
        "Name of a bundled model, or path of a checkpoint folder; empty: from the parameter file.",
    ),
    "provider": (
        "",
        "auto, cpu, openvino, cuda, tensorrt, or several to try in turn, as in tensorrt,cuda,cpu; "
        "empty: from the parameter file.",
    ),
    "precision": ("", "auto, fp32, bf16, fp16 or int8; empty: from the parameter file."),
    "params_file": (
        str(Path(__file__).resolve().parents[1] / "config" / "segment.param.yaml"),
        "Parameter file; arguments of the launch command override it.",
    ),
    "cameras": (
        "",
        "Names of the cameras, as in left,right; empty: from the parameter file.",
    ),
    "node_name": ("segmentation", "Name of the node."),
    "namespace": ("", "Namespace of the node and its topics."),
    "use_sim_time": (
        "",
        "true: take the time from /clock, for a simulation or a bag; empty: from the parameter "
        "file.",
    ),
    "log_level": ("", "debug, info, warn, error or fatal; empty: info."),
    "autostart": (
        "",
        "true or false: configure and activate the node at start; empty: from the parameter file.",
    ),
    "fastdds_profile": (
        "true",
        "true: set the Fast DDS profile for large images, unless the environment sets one.",
    ),
}

ON_FAILURE = ("shutdown", "respawn", "ignore")

NOT_NAMES = ("y", "Y", "n", "N")
"""Names that become true or false on their way to the node, which launch writes without quotes."""

TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}

RESPAWN_DELAY_S = 2.0


def value(context: LaunchContext, name: str) -> str:
    """Return the value of a launch argument, or its default."""
    return str(LaunchConfiguration(name).perform(context)).strip()


def flag(context: LaunchContext, name: str) -> bool:
    """Return a launch argument that is true or false, in any case.

    Raises:
        RuntimeError: it is neither.
    """
    text = value(context, name)
    if text.lower() not in TRUTH:
        raise RuntimeError(f"launch argument '{name}' must be true or false, got {text!r}")
    return TRUTH[text.lower()]


def overrides(context: LaunchContext) -> dict[str, str | bool | list[str]]:
    """Return the parameters given as arguments; defaults do not override the parameter file.

    Raises:
        RuntimeError: an argument that must be true or false is neither, or a camera has a name that
            cannot be passed on.
    """
    names = {name: name for name in ("model", "provider", "precision", "image_transport")}
    given: dict[str, str | bool | list[str]] = {
        parameter: value(context, argument)
        for parameter, argument in {**names, "image_topic": "image"}.items()
    }
    given["model"] = os.path.expanduser(str(given["model"]))
    given["cameras"] = [
        name.strip() for name in value(context, "cameras").split(",") if name.strip()
    ]
    if taken := [name for name in given["cameras"] if name in NOT_NAMES]:
        raise RuntimeError(
            f"launch argument 'cameras' must not have the name {taken[0]}, which ROS reads as true "
            "or false: use a longer one"
        )
    if str(given["image_topic"]).endswith("/compressed") and not given["image_transport"]:
        given["image_transport"] = "compressed"
    given = {name: each for name, each in given.items() if each}
    for name in ("autostart", "use_sim_time"):
        if value(context, name):
            given[name] = flag(context, name)
    return given


def end_launch(event: ProcessExited, context: LaunchContext) -> None:
    """Pass on the node's failure: `ros2 launch` itself ignores the exit codes of its processes.

    Raises:
        RuntimeError: the node failed. It makes `launch` stop the other processes and exit non-zero.
    """
    if not event.returncode or context.is_shutdown:
        return
    if event.returncode > 0:
        how = f"exited with code {event.returncode}; see its last line"
    else:
        name = signal.Signals(-event.returncode).name
        how = f"was killed by {name}; after SIGKILL look for 'out of memory' in dmesg"
    raise RuntimeError(f"{event.process_name} {how}")


def parameter_file(context: LaunchContext, given: Collection[str]) -> str:
    """Return the path of the parameter file, which the node can read.

    Args:
        context: of the launch.
        given: names of the parameters on the launch line.

    Raises:
        RuntimeError: the file does not exist or is no ROS parameter file, or sets the topics of
            named cameras, which `image` would not reach.
    """
    path = Path(value(context, "params_file")).expanduser()
    try:
        entries = read_file(path)
    except NotUnderstood:  # the node asks rcl
        return str(path)
    except ConfigError as error:
        raise RuntimeError(f"launch argument 'params_file': {error}") from error
    own = sorted(
        name for values in entries.values() for name in values if name.endswith(".image_topic")
    )
    if own and "image_topic" in given:
        raise RuntimeError(
            f"launch argument 'image' does not reach cameras with their own topic; {path} has "
            f"{own[0]}: leave image:= out, or change the file"
        )
    return str(path)


def start_node(context: LaunchContext) -> list[Node]:
    """Return the node with the arguments applied.

    Raises:
        RuntimeError: an argument has an invalid value.
    """
    on_failure, log_level = value(context, "on_failure"), value(context, "log_level")
    given = overrides(context)
    return [
        Node(
            package="camseg_ros",
            executable="segmentation_node",
            # Both name and namespace are given, so that `launch_ros` passes the overrides for this
            # name: for every node (/**), they would lose to a file with an entry for the node.
            name=value(context, "node_name"),
            namespace=value(context, "namespace"),
            parameters=[parameter_file(context, given), given],
            ros_arguments=["--log-level", log_level] if log_level else None,
            # only for this node: other processes of the launch keep their own transports
            additional_env=environment(os.environ, profile=flag(context, "fastdds_profile")),
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
    text = (
        "When the node's process ends with an error: shutdown ends the whole launch with a "
        "non-zero exit code, respawn restarts the node, ignore does nothing. An engine that fails "
        "for good ends the process only with the parameter exit_on_failure."
    )
    choices = list(ON_FAILURE)
    arguments.append(
        DeclareLaunchArgument(
            "on_failure", default_value=choices[0], choices=choices, description=text
        )
    )
    return LaunchDescription([*arguments, OpaqueFunction(function=start_node)])
