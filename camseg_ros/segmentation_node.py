"""The ROS 2 node: camera images in, semantic masks out. A managed node; its work is done by the modules it imports."""

from __future__ import annotations  # rclpy's classes are generic only from Jazzy on

import sys

from rcl_interfaces.msg import SetParametersResult
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool

from camseg_core.errors import CamSegError, ConfigError, ModelError
from camseg_ros import parameters
from camseg_ros.diagnostics import HealthReport
from camseg_ros.pipeline import Pipeline
from camseg_ros.process import Monitor, ThrottledLog, run

NODE_NAME = "segmentation"
STOP_TIMEOUT_S = 0.5
"""What is in work may take so long to end; the process has to be gone within a second of being told to."""

SUCCESS, FAILURE, ERROR = (
    TransitionCallbackReturn.SUCCESS,
    TransitionCallbackReturn.FAILURE,
    TransitionCallbackReturn.ERROR,
)


class SegmentationNode(LifecycleNode):
    """Configuring loads and warms up the model, activating takes images, deactivating stops that, cleaning up lets go of the model.

    Where the engine fails for good, the node goes through error processing to unconfigured, from where a supervisor may configure it again.

    Attributes:
        fatal: set when the process has to end.
    """

    def __init__(self) -> None:
        """Declare the parameters, and begin to report.

        Raises:
            ConfigError: a parameter given by the user has the wrong type or is out of range.
        """
        try:
            super().__init__(NODE_NAME, automatically_declare_parameters_from_overrides=True)
        except ValueError as error:  # the one case known: an empty list has no type
            raise ConfigError(
                f"a parameter cannot be declared: {error}; write an empty list as [''], since ROS has none"
            ) from error
        self._settings, warnings = parameters.declare(self)
        for warning in warnings:
            self.get_logger().warning(warning)
        self.fatal: CamSegError | None = None
        self._failure, self._state, self._enabled = "", "unconfigured", True
        self._starting = False
        self._pipeline: Pipeline | None = None
        self._report = HealthReport(self, lambda: self._settings)
        self._log = ThrottledLog(self.get_logger())
        self.create_service(SetBool, "~/enable", self._enable)
        self.add_on_set_parameters_callback(self._change_parameters)
        self._monitor = Monitor(
            lambda: self._settings.diagnostics_period, self._beat, self._tell_of_monitor
        )
        self._monitor.start()

    def autostart(self) -> None:
        """Configure and activate, if the parameter says so.

        Raises:
            CamSegError: what kept the node from being configured.
        """
        if not self._settings.autostart:
            self.get_logger().info(
                "unconfigured: waiting for a lifecycle manager, since autostart is false"
            )
            return
        # a failure ends the process, which tells it
        self._starting = True
        if self.trigger_configure() != SUCCESS or self.trigger_activate() != SUCCESS:
            raise ModelError(self._failure)
        self._starting = False

    def shut_down(self) -> bool:
        """End whatever runs; False if something is still in work and has to be left behind, which will publish nothing more."""
        self._monitor.stop(STOP_TIMEOUT_S)
        pipeline = self._pipeline
        if pipeline is not None and not pipeline.stop(STOP_TIMEOUT_S):
            pipeline.silence(STOP_TIMEOUT_S)
            return False
        return True

    def finalize(self) -> None:
        """End the life cycle, unless a lifecycle manager did that already."""
        if self._state != "finalized":
            self.trigger_shutdown()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model, warm it up, and make the topics."""
        self._state, self._failure = "configuring", ""
        try:
            self._pipeline = Pipeline(self, lambda: self._settings, self._give_up)
        except Exception as error:  # rclpy would say nothing of it
            return self._refuse("configured", error, "unconfigured")
        self._pipeline.paused = not self._enabled
        self._state = "inactive"
        return SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Take images."""
        pipeline, self._failure = self._pipeline, ""
        assert pipeline is not None
        try:
            pipeline.start()
        except Exception as error:
            pipeline.stop(STOP_TIMEOUT_S)
            return self._refuse("activated", error, "inactive")
        self._state = "active"
        model = pipeline.segmenter
        if model.fallback:
            self.get_logger().warning(f"the model runs on {model.provider}: {model.fallback}")
        topics = ", ".join(camera.topic for camera in pipeline.cameras.values())
        runs = f"model {model.name} on {model.provider} in {model.precision}"
        self.get_logger().info(
            f"ready: {runs}, images from {topics}, converted by {pipeline.converter.name}"
        )
        return SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Take no more images, and let the device rest."""
        assert self._pipeline is not None
        self._pipeline.stop(STOP_TIMEOUT_S)
        self._state = "inactive"
        return ERROR if self._failure else SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of the model and the topics."""
        self._release()
        self._failure = ""
        return SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After the engine failed for good: let go of everything, and be ready to be configured again."""
        self._release()
        return SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """From whatever state, for good."""
        self._release()
        self._state = "finalized"
        return SUCCESS

    def _refuse(self, what: str, error: Exception, state: str) -> TransitionCallbackReturn:
        """The node stays in `state`; tell why."""
        self._failure = (
            str(error) if isinstance(error, CamSegError) else f"{type(error).__name__}: {error}"
        )
        self._state = state
        if not self._starting:
            self.get_logger().error(f"cannot be {what}: {self._failure}")
        return FAILURE

    def _release(self) -> None:
        pipeline, self._pipeline, self._state = self._pipeline, None, "unconfigured"
        if pipeline is not None:
            pipeline.stop(STOP_TIMEOUT_S)
            pipeline.destroy()

    def _give_up(self, text: str) -> None:
        """The engine failed for good (called in the inference thread): the life cycle is the executor's to change."""
        self._failure = text
        self.get_logger().error(text)
        if self.executor is not None:
            self.executor.create_task(self._fail)

    def _fail(self) -> None:
        if self._settings.exit_on_failure:
            self.fatal = ModelError(self._failure)
        elif self._state == "active":
            self.trigger_deactivate()

    def _beat(self) -> None:
        """Watch and report (in the monitor's thread)."""
        pipeline = self._pipeline
        if pipeline is not None and pipeline.worker is not None:
            pipeline.worker.check()
        self._report.publish(self._state, pipeline, self._failure)

    def _tell_of_monitor(self, error: Exception) -> None:
        self._log.warn("monitor", f"diagnostics failed: {type(error).__name__}: {error}")

    def _enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._enabled = request.data
        if self._pipeline is not None:
            self._pipeline.paused = not request.data
        response.success = True
        response.message = f"{'enabled' if request.data else 'paused'}; the node is {self._state}"
        return response

    def _change_parameters(self, wanted: list[Parameter]) -> SetParametersResult:  # type: ignore[type-arg]
        pipeline = self._pipeline
        suits = pipeline.check if pipeline is not None else lambda _: None
        self._settings, answer = parameters.change(
            self._settings, wanted, pipeline is not None, suits
        )
        if pipeline is not None and answer.successful:
            pipeline.settings_changed()
        return answer


def main() -> int:
    """Run the node until SIGINT or SIGTERM. Exit code 0, or 1 with one line on stderr that says what was wrong."""
    return run(SegmentationNode)


if __name__ == "__main__":
    sys.exit(main())
