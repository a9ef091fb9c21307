"""The ROS 2 node: camera images in, semantic masks out. This is the life cycle."""

from __future__ import annotations  # rclpy's classes are generic only from Jazzy on

import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import SetParametersResult
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool

from camseg_core.errors import CamSegError, ConfigError, ModelError
from camseg_ros import parameter_updates, ros_arguments
from camseg_ros.diagnostics import HealthReport
from camseg_ros.pipeline import Pipeline, check_model
from camseg_ros.process import Monitor, rcl_text, run, warn_throttled
from camseg_ros.worker import inference_runs

NODE_NAME = "segmentation"
STOP_TIMEOUT_S = 0.5
"""Time for work in progress to end; the process must be gone within a second of a signal."""

LONGEST_BEAT_S = 0.5
"""Longest time between two looks of the watchdog, and until a new period applies."""

SUCCESS, FAILURE, ERROR = (
    TransitionCallbackReturn.SUCCESS,
    TransitionCallbackReturn.FAILURE,
    TransitionCallbackReturn.ERROR,
)


class SegmentationNode(LifecycleNode):
    """Configure loads and warms up the model; activate subscribes; deactivate unsubscribes; cleanup
    releases the model.

    If the engine fails for good, the node goes through error processing to unconfigured, where a
    supervisor may configure it again.

    Attributes:
        fatal: set when the process must end.
    """

    def __init__(self) -> None:
        """Declare the parameters and start reporting.

        Raises:
            ConfigError: a parameter has the wrong type or is out of range.
        """
        try:
            super().__init__(NODE_NAME, automatically_declare_parameters_from_overrides=True)
            self._parameters_now, warnings = parameter_updates.declare(self)
        except Exception as error:
            self._discard()
            raise _refusal(error) from error
        files = ros_arguments.unmatched(sys.argv, self.get_fully_qualified_name())
        remappings = parameter_updates.unused_remappings(self, self._parameters_now)
        for warning in (*files, *warnings, *remappings):
            self.get_logger().warning(warning)
        change = self._service_change_state
        change.callback = partial(self._answer_transition, change.callback)
        self.fatal: CamSegError | None = None
        self._failure, self._state, self._enabled = "", "unconfigured", True
        self._starting = False
        self._pipeline: Pipeline | None = None
        self._report = HealthReport(self)
        self.create_service(SetBool, "~/enable", self._enable)
        self.add_on_set_parameters_callback(self._change_parameters)
        self._reported = time.monotonic()
        self._monitor = Monitor(self._beat_period, self._beat, self._monitor_failed)
        self._monitor.start()

    def destroy_node(self) -> None:
        """Leave the middleware, which rclpy's own leaves to the end of the process.

        The state machine holds the participant: its shared memory would stay, and a camera that
        goes on would write to the ports of this process.
        """
        super().destroy_node()
        machine = getattr(self, "_state_machine", None)  # none if `__init__` has not ended
        if machine is not None:
            machine.destroy_when_not_in_use()

    def _discard(self) -> None:
        """Leave the middleware after a failed start; `Node.__init__` may not have ended."""
        with contextlib.suppress(Exception):
            self.destroy_node()
        with contextlib.suppress(Exception):
            self.handle.destroy_when_not_in_use()

    def _answer_transition(
        self,
        answer: Callable[[ChangeState.Request, ChangeState.Response], ChangeState.Response],
        request: ChangeState.Request,
        response: ChangeState.Response,
    ) -> ChangeState.Response:
        """Answer a request to change the state; before Kilted, rclpy leaves invalid ones open."""
        try:
            return answer(request, response)
        except Exception as error:  # RCLError, which has no public name
            asked = request.transition.label or request.transition.id
            text = f"cannot start transition {asked} from {self._state}: {rcl_text(error)}"
            self.get_logger().error(text)
            response.success = False
            return response

    def autostart(self) -> None:
        """Configure and activate, if the parameter `autostart` is true.

        Raises:
            CamSegError: the reason why configuring or activating failed.
        """
        if not self._parameters_now.autostart:
            text = "unconfigured: waiting for a lifecycle manager because autostart is false"
            self.get_logger().info(text)
            return
        self._starting = True  # the process reports a failure when it ends
        if self.trigger_configure() != SUCCESS or self.trigger_activate() != SUCCESS:
            raise ModelError(self._failure)
        self._starting = False

    def shut_down(self) -> bool:
        """Stop all work; False if unfinished work is abandoned, which then publishes nothing."""
        self._monitor.stop(STOP_TIMEOUT_S)
        pipeline = self._pipeline
        if pipeline is not None and not pipeline.stop(STOP_TIMEOUT_S):
            pipeline.silence(STOP_TIMEOUT_S)
            return False
        return not inference_runs()  # also a thread that was abandoned as hung, and came back

    def finalize(self) -> None:
        """End the life cycle, unless a lifecycle manager has done so."""
        if self._state != "finalized":
            self.trigger_shutdown()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model, warm it up, and create the topics."""
        self._state, self._failure = "configuring", ""
        try:
            self._pipeline = Pipeline(self, self._parameters_now, self._give_up)
        except Exception as error:  # rclpy would not report it
            return self._failed("cannot be configured", error, "unconfigured")
        self._pipeline.paused = not self._enabled
        self._state = "inactive"
        return SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the images."""
        pipeline, self._failure = self._pipeline, ""
        assert pipeline is not None
        try:
            pipeline.start()
        except Exception as error:
            pipeline.stop(STOP_TIMEOUT_S)
            return self._failed("cannot be activated", error, "inactive")
        self._state = "active"
        model = pipeline.segmenter
        if model.fallback:
            self.get_logger().warning(f"the model runs on {model.provider}: {model.fallback}")
        topics = ", ".join(camera.topic for camera in pipeline.cameras.values())
        runs = f"model {model.name} on {model.engine} in {model.precision}"
        if model.choice:
            runs += f" (provider {model.choice})"
        text = f"ready: {runs}, images from {topics}, converted by {pipeline.converter.name}"
        self.get_logger().info(text)
        return SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe; the device is idle."""
        assert self._pipeline is not None
        self._pipeline.stop(STOP_TIMEOUT_S)
        self._state = "inactive"
        return ERROR if self._failure else SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release the model and the topics."""
        self._release()
        self._failure = ""
        return SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything after a permanent failure; the node can be configured again."""
        self._release()
        return SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything, from any state, for good."""
        self._release()
        self._state = "finalized"
        return SUCCESS

    def _failed(self, what: str, error: Exception, state: str) -> TransitionCallbackReturn:
        """Stay in `state` and report `what` went wrong, and why."""
        known = isinstance(error, CamSegError)
        self._failure = str(error) if known else f"{type(error).__name__}: {error}"
        self._state = state
        if not self._starting:
            self.get_logger().error(f"{what}: {self._failure}")
        return FAILURE

    def _release(self) -> None:
        pipeline, self._pipeline, self._state = self._pipeline, None, "unconfigured"
        if pipeline is not None:
            pipeline.stop(STOP_TIMEOUT_S)
            pipeline.destroy()

    def _give_up(self, text: str) -> None:
        """React to a permanent engine failure, from the inference thread."""
        self._failure = text
        self.get_logger().error(text)
        if self.executor is not None:
            self.executor.create_task(self._leave_active)

    def _leave_active(self) -> None:
        if self._parameters_now.exit_on_failure:
            self.fatal = ModelError(self._failure)
        elif self._state == "active":
            self.trigger_deactivate()

    def _beat_period(self) -> float:
        """Return the time to the next beat: often enough for watchdog and diagnostics."""
        now, parameters = time.monotonic(), self._parameters_now
        due = self._reported + parameters.diagnostics_period - now
        return max(0.0, min(due, parameters.inference_timeout / 4, LONGEST_BEAT_S))

    def _beat(self) -> None:
        """Run the watchdog and publish diagnostics that are due, in the monitor's thread."""
        pipeline, now = self._pipeline, time.monotonic()
        if pipeline is not None and pipeline.worker is not None:
            pipeline.worker.check()
        if now - self._reported >= self._parameters_now.diagnostics_period:
            self._reported = now
            self._report.publish(self._state, self._parameters_now, pipeline, self._failure)

    def _monitor_failed(self, error: Exception) -> None:
        text = f"diagnostics failed: {type(error).__name__}: {error}"
        warn_throttled(self, "monitor", text)

    def _enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._enabled = request.data
        if self._pipeline is not None:
            self._pipeline.paused = not request.data
        response.success = True
        response.message = f"{'enabled' if request.data else 'paused'}; the node is {self._state}"
        return response

    def _change_parameters(
        self,
        wanted: list[Parameter],  # type: ignore[type-arg]
    ) -> SetParametersResult:
        pipeline, before = self._pipeline, parameter_updates.without_effect(self._parameters_now)
        check = pipeline.check if pipeline is not None else lambda _: None
        self._parameters_now, answer = parameter_updates.change(
            self._parameters_now, wanted, pipeline is not None, check
        )
        if pipeline is not None and answer.successful:
            pipeline.apply(self._parameters_now)
        for text in parameter_updates.without_effect(self._parameters_now):
            if text not in before:
                self.get_logger().warning(text)
        return answer


def _refusal(error: Exception) -> CamSegError:
    """Return the reason why rclpy did not create the node, on one line."""
    if isinstance(error, CamSegError):
        return error
    text = rcl_text(error)
    if isinstance(error, ValueError) and "type" in text:  # in practice an empty list
        remedy = "write an empty list as [''], since ROS cannot infer the type of []"
        return ConfigError(f"cannot declare a parameter: {text}; {remedy}")
    return ConfigError(f"cannot create the node: {text}")


def check(arguments: Sequence[str]) -> list[str]:
    """Refuse a command line before the node exists, if it is sure to fail.

    Returns:
        What the node will warn of: parameters that are unknown or have no effect.

    Raises:
        ConfigError: a name, a parameter file or a parameter is invalid, or does not fit the model.
        ModelError: the checkpoint folder is missing or damaged, or lacks the graphs.
    """
    try:
        given = ros_arguments.parse(arguments, NODE_NAME)
    except ros_arguments.NotUnderstood:
        return []  # the node itself will say
    parameters, warnings = parameter_updates.read(given.values)
    if parameters.autostart:
        check_model(parameters)
    return warnings


def main() -> int:
    """Run the node until a stop signal; returns 0, or 1 after one line on stderr."""
    return run(SegmentationNode, check)


if __name__ == "__main__":
    sys.exit(main())
