"""`camseg bag replay` with the real node over real DDS."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest
from processes import kill
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from camseg_core.data.frame_source import SourceFrame, synthetic_frames
from camseg_core.errors import CamSegError, ConfigError, DataError
from camseg_ros.bag import replay as replaying
from camseg_ros.bag import replay_command, session
from camseg_ros.bag.make import write_bag
from camseg_ros.bag.node_process import (
    NodeDied,
    NodeProcess,
    free_domain,
    ros_environment,
    segmentation_command,
)
from camseg_ros.bag.player import Playback, ScheduledImage
from camseg_ros.bag.read import read_input
from camseg_ros.bag.session import Measurement, schedule
from camseg_ros.bag.topics import COMPRESSED

pytestmark = pytest.mark.slow

FRAMES = 10
SECOND = 1_000_000_000

FAST = ("--param", "diagnostics_period:=0.1")
"""A measurement waits for the node's diagnostics before and after."""

COMMAND = (
    "import argparse; from camseg_ros.bag import replay_command; "
    "parser = argparse.ArgumentParser(); "
    "replay_command.add(parser); options = parser.parse_args(); replay_command.run(options)"
)


@pytest.fixture(autouse=True)
def _process_as_before() -> Iterator[None]:
    """Restore the variables and the signal handler that the command sets."""
    variables, handler = dict(os.environ), signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)
    os.environ.clear()
    os.environ.update(variables)


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the synthetic drive at half its size."""
    path = tmp_path_factory.mktemp("bags") / "drive"
    small = (
        SourceFrame(f.stamp_ns, np.ascontiguousarray(f.image[::2, ::2]), f.name)
        for f in synthetic_frames(FRAMES)
    )
    write_bag(small, path)
    return path


def parsed(*arguments: str | Path) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    replay_command.add(parser)
    return parser.parse_args([str(each) for each in arguments])


def replay(*arguments: str | Path) -> None:
    replay_command.run(parsed(*arguments))


def replayed(tmp_path: Path, *arguments: str | Path) -> dict[str, Any]:
    """Replay successfully; return the JSON."""
    path = tmp_path / "result.json"
    replay(*arguments, *FAST, "--json", path)
    return json.loads(path.read_text())


def check_sums(measured: dict[str, Any]) -> None:
    frames = measured["frames"]
    assert frames["answered"] + frames["lost"] == frames["sent"]
    assert sum(measured["drops"].values()) == frames["lost"]


def test_a_bag_at_a_fixed_rate(
    bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = replayed(tmp_path, bag, "--rate", "4", "--seconds", "3", "--param", "threads:=1")
    check_sums(result)
    assert result["frames"]["sent"] == 12, "the bag was repeated"
    assert result["frames"]["answered"] >= 6
    assert not result["frames"]["strays"]
    assert result["rate"]["asked_hz"] == pytest.approx(4.0)
    latency = result["latency_ms"]
    assert latency["min"] <= latency["p50"] <= latency["p95"] <= latency["p99"] <= latency["max"]
    assert 0 <= latency["jitter"] <= latency["max"]
    assert result["cpu_percent"] > 0
    assert result["rss_mb"]["peak"] >= result["rss_mb"]["mean"] > 50
    assert {"Processor", "System"} <= result["machine"].keys()
    assert {"Python", "numpy", "rosbags"} <= result["versions"].keys()
    assert (result["parameters"]["threads"], result["parameters"]["image_reliability"]) == (
        1,
        "best_effort",
    ), "as shipped except --param"
    given = result["input"]
    assert (given["paths"], given["frames"], given["size"], given["topic"]) == (
        [str(bag)],
        FRAMES,
        [240, 180],
        "/camera/image_raw",
    )
    assert (result["trials"], result["max_rate"], result["scenario"], result["interrupted"]) == (
        [],
        None,
        None,
        False,
    )
    assert "12 sent" in capsys.readouterr().out


def test_more_than_the_node_can_do_is_dropped_by_reason(bag: Path, tmp_path: Path) -> None:
    result = replayed(
        tmp_path,
        bag,
        "--rate",
        "60",
        "--seconds",
        "1",
        "--param",
        "samples:=8",
        "--param",
        "threads:=1",
    )
    check_sums(result)
    assert result["frames"]["lost"] > 0
    assert result["drops"]["dropped: replaced by a fresher one"] > 0
    assert result["input"]["sha256"] == read_input(bag).sha256, "the same images have the same hash"


def test_a_single_image(tmp_path: Path) -> None:
    write_bag([SourceFrame(SECOND, np.zeros((30, 40, 3), np.uint8), "")], tmp_path / "bag")
    result = replayed(tmp_path, tmp_path / "bag")
    check_sums(result)
    assert result["frames"]["answered"] == 1
    assert (result["rate"]["asked_hz"], result["latency_ms"]["jitter"]) == (None, 0.0)


def test_a_compressed_bag_with_its_own_stamps_at_its_own_rate(tmp_path: Path) -> None:
    store = get_typestore(Stores.ROS2_KILTED)
    header, time, image = (
        store.types[n] for n in ("std_msgs/msg/Header", "builtin_interfaces/msg/Time", COMPRESSED)
    )
    jpeg = np.asarray(cv2.imencode(".jpg", np.full((90, 120, 3), 77, np.uint8))[1]).reshape(-1)
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connection = writer.add_connection("/cam/compressed", COMPRESSED, typestore=store)
        for i in range(6):
            message = image(
                header(time(100 + i, 5), "front"), "jpeg", jpeg if i != 3 else jpeg[:20]
            )
            writer.write(
                connection, 100 * SECOND + i * SECOND // 4, store.serialize_cdr(message, COMPRESSED)
            )
    result = replayed(
        tmp_path,
        tmp_path / "bag",
        "--no-restamp",
        "--warm-up",
        "0",
        "--param",
        "frame_id:=other",
        "--timeout",
        "60",
    )
    check_sums(result)
    assert result["frames"]["sent"] == 6
    assert result["drops"]["rejected: corrupt"] == 1
    assert result["frames"]["answered"] >= 3
    assert result["rate"]["asked_hz"] == pytest.approx(4.0)
    assert result["parameters"]["image_transport"] == "compressed"


def test_a_node_that_runs_already(
    bag: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    domain = free_domain()
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path))
    parameters = {"output_reliability": "best_effort", "diagnostics_period": "0.1"}
    command = segmentation_command("/front/image", False, parameters)
    command += ["-r", "segmentation/mask:=/front/mask", "-r", "__ns:=/car"]
    with NodeProcess(
        command, ros_environment(domain, tmp_path, os.environ), tmp_path / "out.log"
    ) as node:
        topics = (
            "--image-topic",
            "/front/image",
            "--mask-topic",
            "/front/mask",
            "--mask-reliability",
            "best_effort",
        )
        path, options = tmp_path / "result.json", ("--rate", "4", "--warm-up", "0", "--json")
        replay(bag, "--running", *topics, "--pid", str(node.pid), *options, path)
        node.check()
    result = json.loads(path.read_text())
    check_sums(result)
    assert result["frames"]["sent"] == FRAMES
    assert result["frames"]["answered"] >= FRAMES // 2
    assert result["parameters"]["output_reliability"] == "best_effort"
    assert result["rss_mb"]["peak"] > 50


def test_the_highest_rate(bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = replayed(
        tmp_path,
        bag,
        "--find-max-rate",
        "--max-rate",
        "8",
        "--trial-seconds",
        "1",
        "--seconds",
        "2",
        "--param",
        "threads:=1",
    )
    found, trials = result["max_rate"], result["trials"]
    assert trials[0]["rate"]["requested_hz"] == 8.0, "no higher than allowed"
    assert found["rate_hz"] <= max(
        trial["rate"]["requested_hz"] for trial in trials if trial["verdict"] == "passed"
    )
    assert found["confirmed"] == (
        result["frames"]["answered"] >= 0.95 * result["frames"]["sent"] and result["rate"]["kept"]
    )
    assert result["rate"]["requested_hz"] == found["rate_hz"], "measured there"
    for trial in (*trials, result):
        check_sums(trial)
    for trial in trials:
        assert (trial["verdict"] == "dropped") == (
            trial["frames"]["answered"] < 0.95 * trial["frames"]["sent"]
        )
    assert "highest rate" in capsys.readouterr().out


class FakeSession:
    """A session whose node keeps up to 37 Hz for 5 s, and up to 34 Hz for longer."""

    parameters: Mapping[str, Any] | None = None

    unfinished: Measurement | None = None

    def __init__(self) -> None:
        self.measured: list[tuple[float, float]] = []

    def warm_up(self, rate_hz: float, seconds: float) -> None:
        assert not self.measured

    def measure(self, rate_hz: float, seconds: float) -> Measurement:
        self.measured.append((rate_hz, seconds))
        answered = 100 if rate_hz <= (37 if seconds <= 5 else 34) else 50
        return Measurement(
            rate_hz,
            Playback(100, 0, [0.01] * answered, rate_hz, rate_hz),
            {"dropped: late": 100 - answered},
            None,
        )


def test_the_highest_rate_has_to_hold_for_longer(
    bag: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeSession()
    monkeypatch.setattr(replaying, "_session", lambda *_: nullcontext(fake))
    options = parsed(bag, "--find-max-rate")
    *_, result = replaying.measure(options, lambda _: None)
    assert result.max_rate is not None
    assert result.max_rate.rate_hz is not None
    assert result.measurement is not None
    assert result.measurement.rate_hz == result.max_rate.rate_hz
    assert 34 / replaying.STEP_DOWN <= result.max_rate.rate_hz <= 34
    assert [seconds for _, seconds in fake.measured].count(20.0) == 2
    assert [trial.rate_hz for trial in (*result.trials, result.measurement)] == [
        rate for rate, _ in fake.measured
    ], "all are listed"
    assert result.max_rate.limited_by == "the node"


def test_a_limit_that_only_longer_measurements_show_is_named(
    bag: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replaying, "_session", lambda *_: nullcontext(FakeSession()))
    *_, result = replaying.measure(
        parsed(bag, "--find-max-rate", "--max-rate", "36"), lambda _: None
    )
    assert result.max_rate is not None
    assert result.max_rate.limited_by == "the node"


def test_what_was_measured_before_the_node_died_is_reported(
    bag: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Dying(FakeSession):
        def measure(self, rate_hz: float, seconds: float) -> Measurement:
            if len(self.measured) == 2:
                raise NodeDied("the node ended (killed by SIGKILL)", "Killed\n")
            return super().measure(rate_hz, seconds)

    monkeypatch.setattr(replaying, "_session", lambda *_: nullcontext(Dying()))
    with pytest.raises(SystemExit) as ended:
        replay(bag, "--find-max-rate", "--json", tmp_path / "found.json")
    assert ended.value.code == 1
    line = "the node ended (killed by SIGKILL); its last line: Killed"
    assert line in capsys.readouterr().out
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["error"], len(found["trials"]), found["max_rate"]) == (line, 2, None)


@pytest.mark.parametrize("option", ["--json", "--page"])
def test_a_result_replaces_nothing_that_is_read(bag: Path, tmp_path: Path, option: str) -> None:
    recording = next(bag.glob("*.mcap"))
    before = recording.read_bytes()
    with pytest.raises(ConfigError, match=f"{option} .* must not replace what the command reads"):
        replay(bag, option, recording)
    assert recording.read_bytes() == before
    with pytest.raises(ConfigError, match="--page .* must not replace"):
        replay(bag, "--json", tmp_path / "one", "--page", tmp_path / "one")


@pytest.mark.parametrize(
    ("limits", "code"),
    [("max_p95_ms: 600000\nmax_drops: 12\nmin_miou: 1.0\n", 0), ("max_p95_ms: 0.001\n", 1)],
)
def test_a_scenario_decides(
    bag: Path, tmp_path: Path, limits: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text(f"start_s: 0.2\nend_s: 0.8\n{limits}")
    arguments = (
        bag,
        *FAST,
        "--rate",
        "4",
        "--warm-up",
        "0",
        "--scenario",
        scenario,
        "--json",
        tmp_path / "result.json",
    )
    if code:
        with pytest.raises(SystemExit) as ended:
            replay(*arguments)
        assert ended.value.code == 1
    else:
        replay(*arguments)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["frames"]["sent"] == result["input"]["frames"] == 6
    assert result["scenario"]["passed"] == (code == 0)
    assert ("max_p95_ms" in capsys.readouterr().out) == (code == 1)


def start(tmp_path: Path, *arguments: str | Path) -> tuple["subprocess.Popen[str]", psutil.Process]:
    """Start the command; return it and its node once it measures."""
    command = [sys.executable, "-c", COMMAND, *map(str, arguments), *FAST, "--warm-up", "0"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if line.startswith("measuring"):
                (node,) = psutil.Process(process.pid).children()
                return process, node
        raise AssertionError("it never measured")
    except BaseException:
        kill(process)
        raise


def finish(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=120)
    finally:
        kill(process)
    return process.returncode, out, err


def test_an_interrupted_measurement_counts(
    bag: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def three(*arguments: Any) -> Iterator[ScheduledImage]:
        yield from islice(schedule(*arguments), 3)
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "schedule", three)
    with pytest.raises(SystemExit) as ended:
        replay(bag, *FAST, "--rate", "4", "--warm-up", "0", "--json")
    assert ended.value.code == 130
    out = capsys.readouterr().out
    assert "interrupted: this is what was measured so far" in out
    result = json.loads(out.splitlines()[-1])
    check_sums(result)
    assert (result["frames"]["sent"], result["interrupted"]) == (3, True)


def test_ctrl_c_ends_the_command_and_the_node(bag: Path, tmp_path: Path) -> None:
    process, node = start(
        tmp_path, bag, "--rate", "5", "--seconds", "600", "--log", tmp_path / "log", "--json"
    )
    process.send_signal(signal.SIGINT)
    code, out, _ = finish(process)
    assert code == 130
    result = json.loads(out.splitlines()[-1])
    assert result["interrupted"]
    assert not node.is_running()


def test_a_node_that_dies_is_reported_with_what_was_measured(bag: Path, tmp_path: Path) -> None:
    process, node = start(
        tmp_path, bag, "--rate", "5", "--seconds", "600", "--log", tmp_path / "log", "--json"
    )
    time.sleep(3)  # images are sent
    node.kill()
    code, out, _ = finish(process)
    assert code == 1
    assert "the node ended (killed by SIGKILL); see its output in " in out
    assert "this is what was measured before" in out
    result = json.loads(out.splitlines()[-1])
    assert result["frames"]["sent"] > 0
    assert (result["max_rate"], result["drops"]) == (None, None)


def test_a_node_that_does_not_start_says_why(
    bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        replay(bag, "--param", "provider:=tensorrt", "--log", tmp_path)
    assert ended.value.code == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("camseg: error: the node ended (exit status 1); see its output in ")
    assert "its last line: segmentation_node: provider 'tensorrt' needs" in last


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--param", "steps:=many"], "parameter 'steps' must be an integer"),
        (["--param", "model:=/nowhere"], "no model '/nowhere'"),
        (["--image-topic", "/no topic"], "a topic must have a valid name, got '/no topic'"),
        (["--mask-topic", "/1st"], "a topic must have a valid name, got '/1st'"),
    ],
)
def test_what_the_node_would_refuse_is_refused_before_the_bag_is_read(
    tmp_path: Path, arguments: list[str], text: str
) -> None:
    with pytest.raises(CamSegError, match=text) as caught:
        replay(tmp_path / "no bag", *arguments)
    assert "\n" not in str(caught.value)


def test_a_missing_node_is_reported_in_one_line(
    bag: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", str(free_domain()))
    with pytest.raises(SystemExit) as ended:
        replay(bag, "--running", "--start-timeout", "0.5")
    assert ended.value.code == 1
    assert "no subscriber of /camera/image_raw" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--running", "--param", "threads:=1"], "are for a node that this command starts"),
        (["--pid", "1"], "needs --running"),
        (["--running", "--pid", "4194305"], "there is no process 4194305"),
        (["--find-max-rate", "--rate", "3"], "searches the rate itself"),
        (["--find-max-rate", "--no-restamp"], "so its stamps repeat"),
        (["--max-rate", "3"], "limits the search of --find-max-rate"),
        (["--trial-seconds", "3"], "is for the trials of --find-max-rate"),
        (["--running", "--log", "log"], "is for a node that this command starts"),
        (["--param", "a:=1", "--param", "a:=2"], "once, got a:=1, a:=2"),
        (["--params-file", "/nowhere.yaml"], "the parameter file /nowhere.yaml does not exist"),
        (["--no-restamp", "--seconds", "3"], "so its stamps repeat"),
        (["--rate", "1e9"], "--rate must be at most 1000 Hz"),
        (["--param", "nosuch:=2"], "--param must name a parameter of the node: unknown parameter"),
        (["--json", "/proc/x.json"], "--json /proc/x.json: its folder /proc must be a folder that"),
    ],
)
def test_contradicting_options(bag: Path, arguments: list[str], text: str) -> None:
    with pytest.raises(ConfigError, match=text) as caught:
        replay(bag, *arguments)
    assert "\n" not in str(caught.value)


def test_bags_that_cannot_be_replayed(tmp_path: Path) -> None:
    image = np.zeros((4, 6, 3), np.uint8)
    write_bag((SourceFrame(SECOND, image, "") for _ in range(2)), tmp_path / "same")
    write_bag([SourceFrame(SECOND, image, "")], tmp_path / "single")
    with Writer(tmp_path / "empty", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        writer.add_connection(
            "/t", "std_msgs/msg/Header", typestore=get_typestore(Stores.ROS2_KILTED)
        )
    expected = {
        (
            "same",
            "--no-restamp",
        ): "image 1 of .*same has the stamp and frame_id of an earlier one; leave out --no-restamp",
        ("same",): "so their rate is unknown; give a rate",
        ("single", "--seconds", "3"): "so their rate is unknown; give a rate",
        ("empty",): "no image topic in the bag",
        ("none",): "does not exist",
    }
    for (name, *arguments), text in expected.items():
        with pytest.raises(DataError, match=text) as caught:
            replay(tmp_path / name, *arguments)
        assert "\n" not in str(caught.value)
        assert isinstance(caught.value, CamSegError)
