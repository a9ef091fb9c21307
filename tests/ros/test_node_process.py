"""How the process starts, refuses to start, changes its parameters and ends."""

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from rcl_interfaces.srv import DescribeParameters
from ros_harness import (
    SUBSTITUTE,
    TIMEOUT,
    Driver,
    StartBench,
    StartNode,
    picture,
    pixels_of,
    rgb_image,
)

from camseg_core.masks import overlay
from camseg_core.weights import checkpoint_folder


def refusal(start_node: StartNode, *arguments: str) -> str:
    """The one line that the node prints before it ends with exit code 1."""
    node = start_node("--ros-args", *arguments)
    assert node.process.wait(TIMEOUT) == 1, node.output
    # other processes of this machine may have left shared memory, which is reported
    (line,) = (line for line in node.stderr.splitlines() if "/dev/shm" not in line)
    assert line.startswith("segmentation_node: ")
    return line


def test_a_missing_model_folder_ends_with_one_line(start_node: StartNode, tmp_path: Path) -> None:
    assert str(tmp_path / "none") in refusal(start_node, "-p", f"model:={tmp_path / 'none'}")


def cut_onnx(folder: Path) -> None:
    for path in folder.glob("onnx/*/*.onnx"):
        path.write_bytes(path.read_bytes()[:1000])


def no_onnx(folder: Path) -> None:
    shutil.rmtree(folder / "onnx")


def rubbish_config(folder: Path) -> None:
    (folder / "config.json").write_text("{rubbish")


def no_labels(folder: Path) -> None:
    (folder / "labels.json").unlink()


@pytest.mark.parametrize("damage", [cut_onnx, no_onnx, rubbish_config, no_labels])
def test_a_damaged_model_folder_ends_with_one_line(
    start_node: StartNode, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    folder = Path(shutil.copytree(checkpoint_folder("camseg-lite"), tmp_path / "model"))
    damage(folder)
    assert str(folder) in refusal(start_node, "-p", f"model:={folder}")


def test_a_provider_that_is_not_there_ends_with_one_line(start_node: StartNode) -> None:
    assert "tensorrt" in refusal(start_node, "-p", "provider:=tensorrt")


def test_a_fallback_to_the_next_provider_is_reported_and_the_node_serves(
    start_node: StartNode, driver
) -> None:
    node = start_node("--ros-args", "-p", "provider:=cuda,cpu")
    ready = "ready: model camseg-lite on ONNX Runtime"
    driver.wait(
        lambda: node.process.poll() is not None or ready in node.stderr, "the node to be ready"
    )
    node.assert_alive()
    assert (
        node.stderr.count(
            "the model runs on cpu: provider 'cuda' needs ONNX Runtime's CUDAExecutionProvider"
        )
        == 1
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("threads:=many", ["'threads'", "an integer from 0 to 64", "'many' (a string)"]),
        ("threads:=99", ["'threads'", "an integer from 0 to 64", "got 99"]),
        ("provider:=cuda,npu", ["'provider'", "auto, cpu, openvino, ", "'cuda,npu'"]),
        ("precision:=fp8", ["'precision'", "auto, fp32, bf16, fp16, int8", "'fp8'"]),
        ("overlay_opacity:=strong", ["'overlay_opacity'", "a number from 0.0 to 1.0", "'strong'"]),
        ("sampler:=euler", ["'sampler'", "one_step, ddim, dpm_solver, ancestral", "'euler'"]),
        ("model:=[1, 2]", ["'model'", "a string", "a list"]),
    ],
)
def test_a_wrong_parameter_on_the_command_line_ends_with_one_line(
    start_node: StartNode, given: str, words: list[str]
) -> None:
    line = refusal(start_node, "-p", given)
    assert all(word in line for word in words), line


def test_a_wrong_parameter_in_the_file_ends_with_one_line(
    start_node: StartNode, tmp_path: Path
) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("/**:\n  ros__parameters:\n    steps: 2.5\n")
    assert "parameter 'steps' must be an integer from 1 to 1000, got 2.5 (a number)" in refusal(
        start_node, "--params-file", str(path)
    )


@pytest.mark.parametrize("content", ["/**: [rubbish", None])
def test_a_parameter_file_that_cannot_be_read_ends_with_one_line(
    start_node: StartNode, tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "file.yaml"
    if content is not None:
        path.write_text(content)
    assert str(path) in refusal(start_node, "--params-file", str(path))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["-r", "__ns:=/front/"], "no / at the end, got '/front/'; write /front"),
        (["-r", "__ns:=front"], "the namespace must be / or like /robot/front"),
        (["-r", "__node:=front/camera"], "got 'front/camera'; write front_camera"),
        (["-r", "image:=/camera/"], "cannot start ROS: "),
        (["-p", "image_topic:=/camera/"], "must be a valid topic name, got '/camera/'"),
        (["-p", "class_groups:=[]"], "write an empty list as ['']"),
    ],
)
def test_a_name_or_list_that_ros_refuses_ends_with_one_line(
    start_node: StartNode, arguments: list[str], text: str
) -> None:
    line = refusal(start_node, *arguments)
    assert text in line
    assert "/src/" not in line, "rcl's source is named"


def test_an_unknown_argument_ends_with_one_line(start_node: StartNode) -> None:
    assert "unknown argument '--model'" in refusal(start_node, "--", "--model", "x")


def test_the_shipped_file_is_accepted_and_an_unknown_name_is_reported(
    start_node: StartNode, driver, tmp_path: Path
) -> None:
    from camseg_ros.middleware import share_file

    own = tmp_path / "own.yaml"
    own.write_text(
        "/**:\n  ros__parameters:\n    overlay_opacit: 0.3\n    overlay_opacity: 1\n"
        "    use_sim_time: false\n"
    )
    node = start_node(
        "--ros-args",
        "--params-file",
        str(share_file("config/segment.param.yaml")),
        "--params-file",
        str(own),
    )
    driver.wait(
        lambda: node.process.poll() is not None or "ready: model camseg-lite on " in node.stderr,
        "the node to be ready",
    )
    node.assert_alive()
    assert (
        "unknown parameter 'overlay_opacit' is ignored; did you mean 'overlay_opacity'?"
        in node.stderr
    )
    assert node.stderr.count("unknown parameter") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_node_cleanly_in_the_middle_of_work(
    start_bench: StartBench, number: signal.Signals
) -> None:
    bench = start_bench()
    bench.ask(rgb_image(picture(64, 48)))
    for burst in range(5):
        bench.publisher.publish(rgb_image(picture(640, 480), burst))
    bench.node.stop(number)


@pytest.mark.parametrize("parameter", ["autostart:=true", "autostart:=false"])
def test_signals_again_and_again_end_the_node_as_one_does(
    start_node: StartNode, driver, parameter: str
) -> None:
    node = start_node("--ros-args", "-p", parameter)
    driver.wait(
        lambda: (
            "ready:" in node.output
            or "waiting for" in node.output
            or node.process.poll() is not None
        ),
        "the node to begin",
    )
    # Ctrl-C sends one to the node, and `ros2 launch` another, at any moment of the node's end
    driver.wait(
        lambda: node.process.send_signal(signal.SIGINT) or node.process.poll() is not None,
        "the end",
    )
    assert node.process.returncode == 0, node.output
    assert "Traceback" not in node.output


def test_a_signal_while_the_model_loads_ends_the_node_cleanly(
    start_node: StartNode, driver
) -> None:
    node = start_node()
    driver.wait(
        lambda: (
            driver.node.count_publishers("/segmentation/mask") or node.process.poll() is not None
        ),
        "the node to begin",
    )
    node.stop(signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_frame_size_is_compiled_ends_the_node_cleanly(
    start_bench: StartBench, number: signal.Signals
) -> None:
    pytest.importorskip("openvino")
    bench = start_bench("provider:=openvino", "engine_cache:=''")
    bench.ask(rgb_image(picture(64, 48)))
    bench.diagnostics.clear()
    bench.publisher.publish(rgb_image(picture(96, 32)))
    bench.driver.wait(
        lambda: any(
            status.message.startswith("compiling ")
            for report in bench.diagnostics
            for status in report.status
        ),
        "a report of the compilation",
    )
    bench.node.stop(number)


def test_the_opacity_changes_at_run_time_and_the_model_does_not(start_bench: StartBench) -> None:
    bench = start_bench(topics=("mask", "overlay"))
    rgb = picture(64, 48)
    for opacity in (0.0, 1.0, 0.25):
        assert bench.set_parameter("overlay_opacity", opacity) == (True, "")
        (mask,) = bench.ask(rgb_image(rgb))
        expected = overlay(rgb, pixels_of(mask), opacity)
        assert (pixels_of(bench.answers["overlay"][-1]) == expected).all()
    done, reason = bench.set_parameter("model", "/other")
    assert not done
    assert reason.startswith(
        "parameter 'model' cannot change while the node is configured: "
        "it is part of the loaded model; set it"
    )
    for name, value in (("overlay_opacity", 1.5), ("overlay_opacity", "strong"), ("threads", 3)):
        done, reason = bench.set_parameter(name, value)
        assert not done
        assert reason
    assert len(bench.ask(rgb_image(rgb))) == 1


def test_parameters_describe_themselves(start_bench: StartBench) -> None:
    bench = start_bench()
    (threads,) = bench.call(
        DescribeParameters, "describe_parameters", DescribeParameters.Request(names=["threads"])
    ).descriptors
    assert threads.description == "CPU threads of the model; 0: all cores."
    assert (threads.integer_range[0].from_value, threads.integer_range[0].to_value) == (0, 64)
    assert threads.additional_constraints.startswith(
        "an integer from 0 to 64; fixed while the node is configured: "
    )


def test_a_parameter_file_and_a_remapping_without_effect_are_reported(
    start_node: StartNode, driver: Driver, tmp_path: Path
) -> None:
    path = tmp_path / "file.yaml"
    path.write_text("segmentation_node: {ros__parameters: {steps: 4}}")
    given = ["--params-file", str(path), "-r", "image:=/a", "-p", "image_topic:=/b"]
    node = start_node("--ros-args", *given, "-p", "autostart:=false")
    for text in (
        "it has no entry for this node, /segmentation, only for segmentation_node",
        "the remapping image:=/a has no effect: the image topics are /b",
    ):
        driver.wait(lambda text=text: text in node.stderr, text, lambda: node.output)


def test_a_node_that_starts_again_beside_a_running_camera_gets_its_images(
    start_bench: StartBench,
) -> None:
    """The ports in shared memory that a camera writes to must outlive the node, or be closed."""
    for _ in range(5):
        bench = start_bench(program=SUBSTITUTE)
        bench.ask(rgb_image(picture(64, 48)))
        bench.node.stop(signal.SIGTERM)
