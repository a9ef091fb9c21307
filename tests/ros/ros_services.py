"""Requests of a lifecycle manager and a tuning tool to the running node."""

from typing import Any

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.parameter import Parameter
from ros_harness import Bench

TRANSITIONS = {
    "configure": Transition.TRANSITION_CONFIGURE,
    "activate": Transition.TRANSITION_ACTIVATE,
    "deactivate": Transition.TRANSITION_DEACTIVATE,
    "cleanup": Transition.TRANSITION_CLEANUP,
}


def state(bench: Bench) -> str:
    """Return the node's lifecycle state."""
    return str(bench.call(GetState, "get_state", GetState.Request()).current_state.label)


def change_state(bench: Bench, *transitions: str) -> list[bool]:
    """Request the transitions in turn; return whether each succeeded."""
    requests = [
        ChangeState.Request(transition=Transition(id=TRANSITIONS[name])) for name in transitions
    ]
    return [bool(bench.call(ChangeState, "change_state", request).success) for request in requests]


def set_parameters(bench: Bench, values: dict[str, Any]) -> str:
    """Set all values or none; return the reason if they were rejected, else an empty string."""
    messages = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
    answer = bench.call(
        SetParametersAtomically,
        "set_parameters_atomically",
        SetParametersAtomically.Request(parameters=messages),
    )
    assert answer.result.successful != bool(answer.result.reason)
    return str(answer.result.reason)
