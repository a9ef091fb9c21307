"""Inference that raises, hangs or is interrupted, and missing models, over the real middleware."""

import shutil
import signal
from functools import partial
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import State, Transition, TransitionEvent
from lifecycle_msgs.srv import ChangeState, GetState
from ros_harness import (
    SUBSTITUTE,
    TIMEOUT,
    Bench,
    StartBench,
    assert_served,
    good_frame,
    header,
    picture,
    pixels_of,
    rgb_image,
)
from sensor_msgs.msg import Image
from std_msgs.msg import Float64, String
from std_srvs.srv import SetBool
from substitute_node import HANG, RAISE, RAISED, REFUSED, SLOW, SLOW_S, order

from camseg_core.weights import checkpoint_folder
from camseg_ros.messages import LATCHED
from camseg_ros.outputs import image_message
from camseg_ros.statistics import DROPPED_PREFIX, STOPPED

REPORTS = "diagnostics_period:=0.1"
ERROR = DiagnosticStatus.ERROR


def give(bench: Bench, colour: tuple[int, int, int], number: int = 500) -> None:
    """Publish a command frame, and wait until the engine obeys it."""
    before = bench.node.output.count("order ")
    bench.publisher.publish(rgb_image(order(colour), number))
    bench.driver.wait(
        lambda: bench.node.output.count("order ") > before,
        "the engine to follow the order",
        lambda: bench.node.output,
    )


def model_message(bench: Bench, text: str) -> DiagnosticStatus:
    """Return the next status of the model that contains `text`."""
    found: list[DiagnosticStatus] = []

    def look() -> bool:
        for report in bench.diagnostics:
            found.extend(
                each
                for each in report.status
                if each.name.endswith(": model") and text in each.message
            )
        bench.diagnostics.clear()
        return bool(found)

    bench.diagnostics.clear()
    bench.driver.wait(look, f"the model's status to say {text!r}", lambda: bench.node.output)
    return found[0]


def state(bench: Bench) -> str:
    """Return the lifecycle state, as a supervisor requests it."""
    return bench.call(GetState, "get_state", GetState.Request()).current_state.label


def change(bench: Bench, transition: int) -> bool:
    """Request a transition; return whether it succeeded."""
    return bench.call(
        ChangeState, "change_state", ChangeState.Request(transition=Transition(id=transition))
    ).success


@pytest.mark.smoke
def test_inference_that_raises_is_reported_and_costs_one_rebuild(start_bench: StartBench) -> None:
    bench = start_bench(REPORTS, program=SUBSTITUTE)
    for number in (1, 2):
        give(bench, RAISE)
        status, values = bench.status(
            lambda values, n=number: values.get("rejected: inference failed") == str(n),
            "the failure",
        )
        assert status.level == ERROR
        assert (
            values["last error"]
            == status.message
            == f"/image: inference failed: RuntimeError: {RAISED}"
        )
        _, model = bench.status(
            lambda values, n=number: values["engine rebuilds"] == str(n),
            "the rebuild",
            part="model",
        )
        assert model["state"] == "active"
        assert_served(bench, number)
    assert f"inference failed: RuntimeError: {RAISED}" in bench.node.stderr
    assert len(bench.answers["mask"]) == 2


def test_an_engine_that_cannot_be_built_again_at_once_is_tried_until_it_can(
    start_bench: StartBench, tmp_path: Path
) -> None:
    gone = tmp_path / "gone"
    program = (*SUBSTITUTE, "--loading-fails-while", str(gone))
    bench = start_bench(REPORTS, "max_rebuilds:=20", "rebuild_backoff:=0.1", program=program)
    gone.touch()
    give(bench, RAISE)
    status = model_message(
        bench, "the model cannot be reloaded: loading was ordered to fail by gone"
    )
    assert status.level == ERROR
    assert status.message.startswith("rebuilding the engine: ")
    gone.unlink()
    assert_served(bench, 1)
    assert model_message(bench, "active").level == DiagnosticStatus.OK


def exhaust(bench: Bench) -> None:
    """Make the engine raise until the node gives it up."""
    for _ in range(3):
        give(bench, RAISE)


def test_an_engine_that_keeps_failing_is_given_up_and_a_supervisor_can_configure_again(
    start_bench: StartBench,
) -> None:
    bench = start_bench(REPORTS, "max_rebuilds:=2", "rebuild_backoff:=0.0", program=SUBSTITUTE)
    events = bench.driver.listen(TransitionEvent, "/segmentation/transition_event")
    bench.driver.wait(
        lambda: bench.driver.node.count_publishers("/segmentation/transition_event"),
        "the events' publisher",
    )
    assert state(bench) == "active"
    exhaust(bench)
    text = f"gave up after 2 consecutive rebuilds: RuntimeError: {RAISED}"
    status = model_message(bench, text)
    assert status.level == ERROR
    bench.driver.wait(
        lambda: events and events[-1].goal_state.label == "unconfigured",
        "the node to become unconfigured",
    )
    passed = [event.goal_state.label for event in events]
    assert "errorprocessing" in passed
    assert state(bench) == "unconfigured"
    bench.status(
        lambda values: values["state"] == "unconfigured", "the state in the report", part="model"
    )
    assert model_message(bench, text).level == ERROR, "it stays an error until somebody acts"
    assert any("[ERROR]" in line and text in line for line in bench.node.stderr.splitlines())
    assert change(bench, Transition.TRANSITION_CONFIGURE)
    assert change(bench, Transition.TRANSITION_ACTIVATE)
    bench.connect(good_frame)
    assert_served(bench, 1)
    assert model_message(bench, "active").level == DiagnosticStatus.OK


def test_failures_with_answers_between_them_are_not_in_a_row(start_bench: StartBench) -> None:
    bench = start_bench("max_rebuilds:=1", program=SUBSTITUTE)
    for number in range(4):
        give(bench, RAISE)
        assert_served(bench, number)


def test_with_exit_on_failure_the_process_ends_with_one_and_says_why(
    start_bench: StartBench,
) -> None:
    bench = start_bench(
        "exit_on_failure:=true", "max_rebuilds:=2", "rebuild_backoff:=0.0", program=SUBSTITUTE
    )
    exhaust(bench)
    assert bench.node.process.wait(TIMEOUT) == 1, bench.node.output
    last = bench.node.stderr.splitlines()[-1]
    assert (
        last == f"segmentation_node: gave up after 2 consecutive rebuilds: RuntimeError: {RAISED}"
    )
    assert "Traceback" not in bench.node.output


def test_inference_that_hangs_is_given_up_and_what_it_brings_later_is_not_published(
    start_bench: StartBench, tmp_path: Path
) -> None:
    hanging = tmp_path / "hanging"
    hanging.touch()
    program = (*SUBSTITUTE, "--hangs-while", str(hanging))
    bench = start_bench(REPORTS, "inference_timeout:=0.5", program=program)
    give(bench, HANG, 500)
    status, _ = bench.status(
        lambda values: values.get("rejected: inference hung") == "1", "the hung frame in the counts"
    )
    assert status.level == ERROR
    assert status.message == "/image: inference hung: inference did not return for 0.5 s"
    bench.status(lambda values: values["engine rebuilds"] == "1", "the rebuild", part="model")
    assert "inference hung: inference did not return for 0.5 s" in bench.node.stderr
    assert_served(bench, 1)
    hanging.unlink()  # the thread left behind comes back
    for number in range(2, 10):
        assert_served(bench, number)
    assert header(500) not in [mask.header for mask in bench.answers["mask"]]
    _, values = bench.status(
        lambda values: values["frames published"] == "10", "the counts", part="camera"
    )
    assert values["frames received"] == "11"


def test_a_supervisor_may_deactivate_and_activate_while_inference_hangs(
    start_bench: StartBench, tmp_path: Path
) -> None:
    hanging = tmp_path / "hanging"
    hanging.touch()
    bench = start_bench(
        "inference_timeout:=600.0", program=(*SUBSTITUTE, "--hangs-while", str(hanging))
    )
    off, on = Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_ACTIVATE
    # the shorter way last: it keeps the publishers that the thread left behind could still use
    for steps in (
        (off, Transition.TRANSITION_CLEANUP, Transition.TRANSITION_CONFIGURE, on),
        (off, on),
    ):
        give(bench, HANG, 500)
        assert all(change(bench, step) for step in steps)
        bench.connect(good_frame)
        assert_served(bench, len(steps))
    hanging.unlink()
    for number in range(10, 15):
        assert_served(bench, number)
    assert header(500) not in [mask.header for mask in bench.answers["mask"]]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("timeout", ["0.5", "600.0"])
def test_a_signal_ends_the_node_while_inference_hangs(
    start_bench: StartBench, timeout: str, number: signal.Signals
) -> None:
    bench = start_bench(REPORTS, f"inference_timeout:={timeout}", program=SUBSTITUTE)
    give(bench, HANG)
    if timeout == "0.5":
        bench.status(
            lambda values: values.get("rejected: inference hung") == "1",
            "the hung frame in the counts",
        )
        assert_served(bench, 1)
    bench.node.stop(number)
    if timeout != "0.5":
        assert "abandoning unfinished work" in bench.node.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_mid_inference_leaves_nothing_half_published(
    start_bench: StartBench, number: signal.Signals
) -> None:
    bench = start_bench(topics=("mask", "confidence", "color", "overlay"), program=SUBSTITUTE)
    assert_served(bench, 1)
    give(bench, SLOW)
    bench.node.stop(number)
    bench.driver.serve(0.5)  # for what may have been under way
    # the frame may end before the stop takes effect
    assert {len(answers) for answers in bench.answers.values()} in ({1}, {2}), "all images or none"


def test_a_publish_that_raises_is_counted_and_not_fatal(start_bench: StartBench) -> None:
    program = (*SUBSTITUTE, "--publishing-fails-for", "unlucky")
    bench = start_bench(REPORTS, program=program)
    for number in (1, 2):
        bench.publisher.publish(image_message(picture(64, 48), "rgb8", header(number, "unlucky")))
        status, values = bench.status(
            lambda values, n=number: values["publish failures"] == str(n), "the failure"
        )
        assert (
            values["last error"] == f"cannot publish on /segmentation/mask: {REFUSED}; "
            "a reliable subscriber may be too slow"
        )
        assert status.message == values["last error"]
        assert values["frames rejected"] == "0"
        assert_served(bench, number)
    _, model = bench.status(lambda values: True, "a report", part="model")
    assert (model["state"], model["engine rebuilds"]) == ("active", "0")
    assert "cannot publish on /segmentation/mask" in bench.node.stderr


@pytest.mark.parametrize(
    ("kind", "topic"),
    [("Float64", "/segmentation/debug/processing_time_ms"), ("String", "/segmentation/labels")],
)
def test_a_debug_topic_or_labels_that_cannot_be_published_cost_no_mask(
    start_bench: StartBench, kind: str, topic: str
) -> None:
    bench = start_bench(REPORTS, program=(*SUBSTITUTE, "--publishing-fails-of", kind))
    debug = "/segmentation/debug/processing_time_ms"
    bench.driver.wait(partial(bench.driver.node.count_publishers, debug), "the debug topics")
    bench.driver.listen(Float64, debug)
    failure = f"cannot publish on {topic}: {REFUSED}"
    for number in range(10, 200):  # until the node has seen the listener
        assert_served(bench, number)
        if failure in bench.node.stderr:
            break
    assert failure in bench.node.stderr
    if kind == "String":
        assert bench.set_parameter("class_groups", ["drivable:100 = road"])[0]
    bench.ask(rgb_image(picture(64, 48), 2))
    _, model = bench.status(lambda values: True, "a report", part="model")
    assert (model["state"], model["engine rebuilds"]) == ("active", "0")
    _, values = bench.status(lambda values: True, "a report")
    assert values["frames rejected"] == "0"
    assert (int(values["publish failures"]) > 0) == (kind == "Float64")


def test_hung_inference_is_noticed_between_two_reports(start_bench: StartBench) -> None:
    bench = start_bench("inference_timeout:=0.5", "diagnostics_period:=60.0", program=SUBSTITUTE)
    give(bench, HANG)
    bench.driver.wait(
        lambda: "inference hung: inference did not return for 0.5 s" in bench.node.stderr,
        "the watchdog",
    )
    assert_served(bench, 1)
    assert bench.diagnostics == []


def test_a_model_left_behind_is_not_taken_back_while_it_cannot_be_loaded(
    start_bench: StartBench, tmp_path: Path
) -> None:
    hanging, gone = tmp_path / "hanging", tmp_path / "gone"
    hanging.touch()
    program = (*SUBSTITUTE, "--hangs-while", str(hanging), "--loading-fails-while", str(gone))
    limits = ("inference_timeout:=0.5", "max_rebuilds:=20", "rebuild_backoff:=100.0")
    bench = start_bench(REPORTS, *limits, program=program)
    gone.touch()
    give(bench, HANG)
    model_message(bench, "the model cannot be reloaded")
    assert change(bench, Transition.TRANSITION_DEACTIVATE)
    assert not change(bench, Transition.TRANSITION_ACTIVATE)
    assert "cannot be activated: loading was ordered to fail" in bench.node.stderr
    gone.unlink()
    assert change(bench, Transition.TRANSITION_ACTIVATE)
    bench.connect(good_frame)
    assert_served(bench, 1)
    hanging.unlink()
    assert_served(bench, 2)


def assert_all_counted(values: dict[str, str]) -> None:
    received, *ended = (
        int(values[f"frames {name}"]) for name in ("received", "published", "dropped", "rejected")
    )
    assert received == sum(ended), values


def test_every_frame_is_counted_once(start_bench: StartBench) -> None:
    bench = start_bench(REPORTS, "inference_timeout:=600.0", program=SUBSTITUTE)
    off, on = Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_ACTIVATE
    for number in (1, 2):
        give(bench, HANG)
        assert change(bench, off)
        bench.status(lambda values: values["state"] == "inactive", "the state", part="model")
        _, values = bench.status(lambda values: True, "the counts")
        assert_all_counted(values)
        assert values[f"{DROPPED_PREFIX}{STOPPED}"] == str(number)
        assert change(bench, on)
        bench.connect(good_frame)


def test_the_frames_of_a_batch_fail_each_for_its_own_reason(start_bench: StartBench) -> None:
    names = ("left", "right")
    bench = start_bench(REPORTS, "cameras:=['left', 'right']", program=SUBSTITUTE, connected=False)
    publishers = [bench.driver.node.create_publisher(Image, f"/{c}/image", 5) for c in names]
    bench.driver.wait(
        lambda: all(each.get_subscription_count() for each in publishers), "the subscriptions"
    )
    bad = rgb_image(picture(64, 48))
    bad.encoding = "nonsense"
    for _ in range(3):
        before = bench.node.output.count("order slow")
        publishers[0].publish(rgb_image(order(SLOW)))  # the next two wait, and go as one batch
        bench.driver.wait(
            lambda n=before: bench.node.output.count("order slow") > n, "the slow frame"
        )
        publishers[0].publish(bad)
        publishers[1].publish(rgb_image(order(RAISE)))
        bench.driver.serve(1.5 * SLOW_S)
    for name, reason in zip(names, ("encoding", "inference failed"), strict=True):
        _, values = bench.status(
            lambda values, r=reason: values.get(f"rejected: {r}") == "3", "the counts", part=name
        )
        assert values["frames rejected"] == "3"
        assert_all_counted(values)


def test_no_mask_with_the_old_ids_follows_the_new_labels(start_bench: StartBench) -> None:
    bench = start_bench(program=(*SUBSTITUTE, "--threshold", "128"))
    labels = bench.driver.listen(String, "/segmentation/labels", LATCHED)
    bench.driver.wait(lambda: labels, "the first labels")
    assert bench.set_parameter("class_groups", [""])[0]  # the next call is answered faster
    before = len(bench.answers["mask"])
    give(bench, SLOW, 7)
    assert bench.set_parameter("class_groups", ["drivable:100 = road"])[0]
    bench.driver.wait(lambda: len(labels) == 2, "the labels of the group")
    bench.driver.wait(lambda: len(bench.answers["mask"]) > before, "the slow frame's mask")
    assert set(pixels_of(bench.answers["mask"][-1]).ravel().tolist()) == {100}


def test_enable_pauses_and_resumes(start_bench: StartBench) -> None:
    bench = start_bench(REPORTS, program=SUBSTITUTE)
    for number in (1, 2):
        answer = bench.call(SetBool, "enable", SetBool.Request(data=False))
        assert (answer.success, answer.message) == (True, "paused; the node is active")
        bench.publisher.publish(rgb_image(picture(64, 48), 500))
        status, _ = bench.status(
            lambda values, n=number: values.get("dropped: paused") == str(n),
            "the paused frame in the counts",
        )
        assert (status.level, status.message) == (DiagnosticStatus.OK, "paused by ~/enable")
        answer = bench.call(SetBool, "enable", SetBool.Request(data=True))
        assert (answer.success, answer.message) == (True, "enabled; the node is active")
        assert_served(bench, number)
    assert [mask.header for mask in bench.answers["mask"]] == [header(1), header(2)]


def test_a_model_replaced_by_rubbish_goes_on_and_cannot_be_configured_until_it_is_back(
    start_bench: StartBench, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(checkpoint_folder("camseg-lite"), tmp_path / "model"))
    bench = start_bench(REPORTS, f"model:={folder}")
    (expected,) = bench.ask(rgb_image(picture(64, 48), 1))

    def assert_same(number: int) -> None:
        (mask,) = bench.ask(rgb_image(picture(64, 48), number))
        assert mask.header == header(number)
        assert pixels_of(mask).tolist() == pixels_of(expected).tolist()

    kept = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for path in kept:
        path.write_bytes(b"rubbish" * 100)
    assert_same(2)
    assert change(bench, Transition.TRANSITION_DEACTIVATE)
    assert change(bench, Transition.TRANSITION_ACTIVATE), "what is loaded is not loaded again"
    bench.connect(good_frame)
    assert_same(3)
    assert change(bench, Transition.TRANSITION_DEACTIVATE)
    assert change(bench, Transition.TRANSITION_CLEANUP)
    for _ in range(2):
        assert not change(bench, Transition.TRANSITION_CONFIGURE)
        status = model_message(bench, str(folder))
        assert status.level == ERROR
        assert f"cannot be configured: {status.message}" in bench.node.stderr
        assert state(bench) == "unconfigured"
    for path, content in kept.items():
        path.write_bytes(content)
    assert change(bench, Transition.TRANSITION_CONFIGURE)
    assert (
        bench.call(GetState, "get_state", GetState.Request()).current_state.id
        == State.PRIMARY_STATE_INACTIVE
    )
    assert change(bench, Transition.TRANSITION_ACTIVATE)
    bench.connect(good_frame)
    assert_same(4)
    assert model_message(bench, "active").level == DiagnosticStatus.OK


def test_the_end_of_the_process_does_not_wait_for_inference_that_hung(
    start_bench: StartBench,
) -> None:
    bench = start_bench(REPORTS, "inference_timeout:=0.5", program=SUBSTITUTE)
    give(bench, HANG)
    bench.status(lambda values: values["engine rebuilds"] == "1", "the rebuild", part="model")
    bench.node.stop(signal.SIGTERM)
    assert bench.node.stderr.splitlines()[-1] == "segmentation_node: abandoning unfinished work"


def test_a_model_folder_that_was_replaced_is_not_loaded_under_the_labels_of_before(
    start_bench: StartBench, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(checkpoint_folder("camseg-lite"), tmp_path / "model"))
    bench = start_bench(f"model:={folder}", "threads:=1")
    labels = folder / "labels.json"
    labels.write_text(labels.read_text().replace('"road"', '"water"'))
    accepted, reason = bench.set_parameter("sampler", "ddim")
    assert not accepted
    assert f"{folder} must hold the model that is in use, but labels.json changed" in reason
    assert bench.set_parameter("overlay_opacity", 0.25)[0]
    shutil.rmtree(folder)
    assert not bench.set_parameter("sampler", "ddim")[0]
    assert bench.set_parameter("overlay_opacity", 0.5)[0]  # an answer, and a mask
    bench.ask(rgb_image(picture(64, 48)))
