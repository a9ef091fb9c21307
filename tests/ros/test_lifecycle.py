"""The node in the hands of a lifecycle manager."""

import json
import shutil
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetAvailableTransitions
from ros_harness import (
    BEST_EFFORT,
    TIMEOUT,
    Bench,
    Driver,
    StartNode,
    good_frame,
    header,
    picture,
    rgb_image,
)
from ros_services import change_state, set_parameters, state
from sensor_msgs.msg import Image
from std_msgs.msg import String

from camseg_core.weights import checkpoint_folder
from camseg_ros.messages import LATCHED

MANAGED = (
    "--ros-args",
    "-p",
    "autostart:=false",
    "-p",
    "diagnostics_period:=0.2",
    "-p",
    "warm_up_sizes:=['64x48']",
)


@pytest.fixture
def bench(driver: Driver, start_node: StartNode) -> Bench:
    """A node that waits for a manager, with a driver that talks to it."""
    return Bench(driver, start_node(*MANAGED), ("mask",), Image, "/image", BEST_EFFORT)


def outputs(bench: Bench) -> int:
    return int(bench.driver.node.count_publishers("/segmentation/mask"))


def inputs(bench: Bench, topic: str = "/image") -> int:
    return int(bench.driver.node.count_subscribers(topic))


def renamed_model(folder: Path) -> Path:
    """A copy of the bundled model with another name."""
    shutil.copytree(checkpoint_folder("camseg-lite"), folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(
        json.dumps(config | {"name": "other-model"}), encoding="utf-8"
    )
    return folder


@pytest.mark.smoke
def test_a_whole_life(bench: Bench) -> None:
    driver = bench.driver
    assert state(bench) == "unconfigured"
    status, _ = bench.status(lambda values: True, "a report", part="model")
    assert (status.level, status.message) == (DiagnosticStatus.OK, "unconfigured")
    assert (outputs(bench), inputs(bench)) == (0, 0)

    assert change_state(bench, "configure") == [True]
    assert state(bench) == "inactive"
    driver.wait(lambda: outputs(bench), "the topics")
    assert inputs(bench) == 0, "images are not taken yet"
    status, _ = bench.status(lambda values: True, "the camera's report", message="inactive")
    assert status.level == DiagnosticStatus.OK

    assert change_state(bench, "activate") == [True]
    assert state(bench) == "active"
    bench.connect(good_frame)
    bench.ask(rgb_image(picture(64, 48), 1))

    assert change_state(bench, "deactivate") == [True]
    assert state(bench) == "inactive"
    driver.wait(lambda: not inputs(bench), "the subscription to go")
    assert outputs(bench) == 1
    bench.publisher.publish(rgb_image(picture(64, 48), 2))

    assert change_state(bench, "activate") == [True]
    bench.connect(good_frame)
    bench.ask(rgb_image(picture(64, 48), 3))
    assert [mask.header for mask in bench.answers["mask"]] == [header(1), header(3)], (
        "none of what came in between"
    )

    assert change_state(bench, "deactivate", "cleanup") == [True, True]
    assert state(bench) == "unconfigured"
    driver.wait(
        lambda: not outputs(bench) and not driver.node.count_publishers("/segmentation/labels"),
        "the topics to go",
    )

    assert change_state(bench, "configure", "activate") == [True, True]
    bench.connect(good_frame)
    bench.ask(rgb_image(picture(64, 48), 4))


@pytest.mark.parametrize(
    ("before", "transition"),
    [
        ((), Transition.TRANSITION_UNCONFIGURED_SHUTDOWN),
        (("configure",), Transition.TRANSITION_INACTIVE_SHUTDOWN),
        (("configure", "activate"), Transition.TRANSITION_ACTIVE_SHUTDOWN),
    ],
    ids=["unconfigured", "inactive", "active"],
)
def test_shutting_down_is_for_good_and_the_process_still_ends_cleanly(
    bench: Bench, before: tuple[str, ...], transition: int
) -> None:
    assert all(change_state(bench, *before))
    assert bench.call(
        ChangeState, "change_state", ChangeState.Request(transition=Transition(id=transition))
    ).success
    assert state(bench) == "finalized"
    bench.driver.wait(lambda: not outputs(bench) and not inputs(bench), "the topics to go")
    status, _ = bench.status(
        lambda values: values["state"] == "finalized", "a report", part="model"
    )
    assert (status.level, status.message) == (DiagnosticStatus.OK, "finalized")
    bench.node.stop()


def test_what_the_state_does_not_allow_is_refused_and_changes_nothing(bench: Bench) -> None:
    for transition in ("activate", "deactivate", "cleanup"):
        assert change_state(bench, transition) == [False]
        assert state(bench) == "unconfigured"
    request = GetAvailableTransitions.Request()
    found = bench.call(
        GetAvailableTransitions, "get_available_transitions", request
    ).available_transitions
    assert {"configure", "shutdown"} == {each.transition.label for each in found}
    assert change_state(bench, "configure", "configure") == [True, False]
    assert state(bench) == "inactive"


def test_what_belongs_to_model_and_topics_changes_between_two_configurations(
    bench: Bench, tmp_path: Path
) -> None:
    driver = bench.driver
    model = str(renamed_model(tmp_path / "model"))
    changes = {
        "model": model,
        "image_topic": "/other/image",
        "image_transport": "compressed",
        "run_length_mask": True,
    }
    assert change_state(bench, "configure") == [True]
    assert set_parameters(bench, changes).startswith(
        "parameter 'model' cannot change while the node is configured: "
    )
    assert change_state(bench, "cleanup") == [True]
    assert set_parameters(bench, changes) == ""
    assert "'cameras' cannot change while the node runs" in set_parameters(
        bench, {"cameras": ["left"]}
    )
    assert change_state(bench, "configure", "activate") == [True, True]
    driver.wait(
        lambda: inputs(bench, "/other/image/compressed"), "the subscription to the other topic"
    )
    assert inputs(bench) == 0
    driver.wait(
        lambda: driver.node.count_publishers("/segmentation/mask_rle"), "the run-length mask"
    )
    tables = driver.listen(String, "/segmentation/labels", LATCHED)
    driver.wait(lambda: tables, "the label table")
    assert json.loads(tables[-1].data)["model"] == "other-model"


@pytest.mark.parametrize(
    ("name", "bad", "good", "reason"),
    [
        ("model", "/none/there", "camseg-lite", "/none/there"),
        ("provider", "tensorrt", "cpu", "provider 'tensorrt'"),
        (
            "warm_up_sizes",
            ["big"],
            ["64x48"],
            "must hold sizes WIDTHxHEIGHT in pixels such as 640x480, got 'big'",
        ),
        ("enabled_classes", ["raod"], [""], "did you mean 'road'?"),
    ],
)
def test_a_failed_configuration_is_reported_and_can_be_corrected(
    bench: Bench, name: str, bad: object, good: object, reason: str
) -> None:
    driver = bench.driver
    assert set_parameters(bench, {name: bad}) == ""
    assert change_state(bench, "configure") == [False]
    assert state(bench) == "unconfigured"
    status, _ = bench.status(
        lambda values: values["state"] == "unconfigured",
        "a report",
        part="model",
        level=DiagnosticStatus.ERROR,
    )
    assert reason in status.message
    driver.wait(lambda: f"{status.message}\n" in bench.node.stderr, "the log")
    (line,) = (line for line in bench.node.stderr.splitlines() if "[ERROR]" in line)
    assert f"cannot be configured: {status.message}" in line
    driver.wait(lambda: not outputs(bench), "no topics to be left")
    assert set_parameters(bench, {name: good}) == ""
    assert change_state(bench, "configure", "activate") == [True, True]
    status, _ = bench.status(
        lambda values: values["state"] == "active", "a report", part="model", message="active"
    )
    assert status.level == DiagnosticStatus.OK
    bench.connect(good_frame)


def test_a_failed_activation_is_reported_and_can_be_corrected(bench: Bench) -> None:
    assert (
        set_parameters(bench, {"image_topic": "camera_info"}) == ""
    )  # one topic cannot have two types
    assert change_state(bench, "configure", "activate") == [True, False]
    assert state(bench) == "inactive"
    status, _ = bench.status(
        lambda values: True, "a report", part="model", level=DiagnosticStatus.ERROR
    )
    assert "/camera_info" in status.message
    bench.driver.wait(
        lambda: f"cannot be activated: {status.message}" in bench.node.stderr, "the log"
    )
    bench.driver.wait(lambda: not inputs(bench, "/camera_info"), "no subscription to be left")
    assert change_state(bench, "cleanup") == [True]
    status, _ = bench.status(lambda values: True, "a report", part="model", message="unconfigured")
    assert status.level == DiagnosticStatus.OK
    assert set_parameters(bench, {"image_topic": "image"}) == ""
    assert change_state(bench, "configure", "activate") == [True, True]
    bench.connect(good_frame)


def test_an_activation_that_fails_at_the_start_ends_the_process_with_one_line(
    start_node: StartNode,
) -> None:
    node = start_node("--ros-args", "-p", "image_topic:=camera_info")
    assert node.process.wait(TIMEOUT) == 1, node.output
    (line,) = (line for line in node.stderr.splitlines() if line.startswith("segmentation_node: "))
    assert "/camera_info" in line
    assert "Traceback" not in node.output


def test_a_manager_is_not_waited_for_by_default(driver: Driver, start_node: StartNode) -> None:
    bench = Bench(driver, start_node(), ("mask",), Image, "/image", BEST_EFFORT)
    status, _ = bench.status(
        lambda values: values["state"] == "active", "the node to be active by itself", part="model"
    )
    assert (status.level, status.message, state(bench)) == (DiagnosticStatus.OK, "active", "active")


def test_waiting_for_a_manager_is_reported_and_ends_cleanly(bench: Bench) -> None:
    bench.driver.wait(lambda: "waiting for a lifecycle manager" in bench.node.output, "the log")
    bench.node.stop()
