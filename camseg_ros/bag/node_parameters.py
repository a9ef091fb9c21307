"""Asks a node for all its parameters, by its own services. Needs rclpy."""

from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.parameter import parameter_value_to_python
from rclpy.parameter_client import AsyncParameterClient

Wait = Callable[[Callable[[], bool]], bool]
"""Handles messages until a condition holds, for a limited time; says whether it does."""


def node_parameters(node: Node, topic: str, wait: Wait) -> dict[str, Any] | None:
    """The parameters of the node that publishes `topic`, by name; None where it does not answer.

    Args:
        node: asks.
        topic: what the other one publishes.
        wait: as `Wait` says; it has the node's callbacks run.
    """
    publishers = node.get_publishers_info_by_topic(topic)
    if not publishers:
        return None
    name = f"{publishers[0].node_namespace.rstrip('/')}/{publishers[0].node_name}"
    client = AsyncParameterClient(node, name)
    if not wait(client.services_are_ready):
        return None
    listed = client.list_parameters()
    if not wait(listed.done):
        return None
    names = sorted(_result(listed).result.names)
    values = client.get_parameters(names)
    if not wait(values.done):
        return None
    return {name: _plain(parameter_value_to_python(value)) for name, value in zip(names, _result(values).values, strict=True)}


def _result(future: Any) -> Any:
    return future.result()


def _plain(value: Any) -> Any:
    """Arrays as lists, for JSON."""
    return value.tolist() if hasattr(value, "tolist") else value
