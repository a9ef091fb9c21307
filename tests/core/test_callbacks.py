"""Callbacks that report a training, and the request to stop it."""

import gc
import io
import json
import logging
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from camseg_core.errors import DataError
from camseg_core.labels import CAMVID_11_TRAIN_IDS, cityscapes_labels
from camseg_core.long_runs import StopRequest
from camseg_core.training.callbacks import (
    Display,
    JsonLines,
    Pictures,
    TensorBoard,
)
from camseg_core.training.frames import validation_picture
from camseg_core.training.settings import LoopConfig
from camseg_core.training.trainer import Callback, Run
from camseg_core.training.trainer import train as training

LABELS = cityscapes_labels(CAMVID_11_TRAIN_IDS)


class Seconds:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def train(watch: Callback, clock: Seconds, steps: range, total: int = 100) -> None:
    """Take steps of 2 s and 6 samples, whose loss is their number; step 20 is validated in 60 s."""
    watch.on_train_begin(steps.start, total, 6)
    for step in steps:
        clock.now += 2
        watch.on_step_end(step + 1, {"loss": float(step + 1), "latents": 0.5}, 1e-3 * (step + 1))
        if step + 1 == 20:
            clock.now += 60
            watch.on_validation_end(20, {"mIoU": 0.25}, np.full((4, 12, 3), (250, 0, 0), np.uint8))


def plain() -> Console:
    return Console(file=io.StringIO(), force_terminal=False)


def test_without_a_terminal_there_is_a_line_every_ten_steps(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Seconds()
    with caplog.at_level(logging.INFO):
        display = Display(console=plain(), clock=clock)
        train(display, clock, range(0, 30))
        display.on_train_end(30, "SIGTERM")
    assert [record.message for record in caplog.records] == [
        "step 10/100 loss 5.5000 latents 0.5000  3.0 samples/s, 3 min left",
        "step 20/100 loss 15.5000 latents 0.5000  3.0 samples/s, 3 min left",
        "step 20/100 validation: mIoU 0.2500",
        # the pace excludes validations, the time left includes them
        "step 30/100 loss 25.5000 latents 0.5000  3.0 samples/s, 5 min left",
        "step 30/100 ended: SIGTERM",
    ]


def test_the_time_left_of_a_resumed_run_follows_from_its_own_steps_and_is_in_hours_if_long(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Seconds()
    with caplog.at_level(logging.INFO):
        train(Display(console=plain(), clock=clock), clock, range(30, 40), total=30_040)
    assert caplog.messages == [
        "step 40/30040 loss 35.5000 latents 0.5000  3.0 samples/s, 16.7 h left"
    ]


def test_on_a_terminal_there_is_a_bar_and_log_lines_only_for_validations(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, out = Seconds(), io.StringIO()
    display = Display("transformer", Console(file=out, force_terminal=True, width=160), clock=clock)
    with caplog.at_level(logging.INFO):
        train(display, clock, range(0, 30))
        display.on_train_end(30, "done")
    shown = out.getvalue()
    for text in (
        "transformer",
        "30/100",
        "3.0 samples/s",
        "mIoU 0.2500",
        "loss 16.6880",
    ):  # smoothed over about the last 20 steps
        assert text in shown
    assert shown.rstrip().endswith("\x1b[?25h")  # the cursor is back
    assert caplog.messages == [
        "transformer step 20/100 validation: mIoU 0.2500",
        "transformer step 30/100 ended: done",
    ]


def test_a_run_that_ends_by_an_error_gives_the_cursor_back() -> None:
    clock, out = Seconds(), io.StringIO()
    display = Display("transformer", Console(file=out, force_terminal=True, width=160), clock=clock)
    train(display, clock, range(0, 3))
    assert "\x1b[?25l" in out.getvalue()
    assert "\x1b[?25h" not in out.getvalue()
    del display
    gc.collect()
    assert "\x1b[?25h" in out.getvalue()


def lines(run: Path) -> list[dict[str, object]]:
    return [
        json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def test_the_log_file_has_means_and_validations(tmp_path: Path) -> None:
    clock = Seconds()
    log = JsonLines(tmp_path / "run", clock=clock)
    train(log, clock, range(0, 23))
    log.on_train_end(23, "SIGTERM")
    assert lines(tmp_path / "run") == [
        {
            "step": 10,
            "training": {"loss": 5.5, "latents": 0.5},
            "learning_rate": 0.01,
            "samples_per_s": 3.0,
        },
        {
            "step": 20,
            "training": {"loss": 15.5, "latents": 0.5},
            "learning_rate": 0.02,
            "samples_per_s": 3.0,
        },
        {"step": 20, "validation": {"mIoU": 0.25}},
        {
            "step": 23,
            "training": {"loss": 22.0, "latents": 0.5},
            "learning_rate": 0.023,
            "samples_per_s": 3.0,
        },  # what was left over
    ]


def test_nan_and_infinity_are_null_in_the_log_file(tmp_path: Path) -> None:
    log = JsonLines(tmp_path)
    log.on_train_begin(0, 10, 1)
    log.on_validation_end(0, {"mIoU": float("nan"), "accuracy": float("inf")}, None)
    assert lines(tmp_path) == [{"step": 0, "validation": {"mIoU": None, "accuracy": None}}]


def test_a_resumed_log_file_goes_on_from_the_resumed_step(tmp_path: Path) -> None:
    clock = Seconds()
    train(JsonLines(tmp_path, clock=clock), clock, range(0, 40))
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 5')  # killed while it wrote
    train(JsonLines(tmp_path, clock=clock), clock, range(20, 40))
    assert [line["step"] for line in lines(tmp_path)] == [10, 20, 20, 30, 40]
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


def test_tensorboard_has_curves_and_pictures_that_do_not_double_when_resumed(
    tmp_path: Path,
) -> None:
    clock = Seconds()
    for steps in (range(0, 40), range(20, 30)):
        board = TensorBoard(tmp_path, clock=clock)
        train(board, clock, steps)
        board.on_train_end(steps.stop, "done")
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    curve = [(event.step, event.value) for event in events.Scalars("training/loss")]
    assert curve == [
        (10, 5.5),
        (20, 15.5),
        (30, 25.5),
    ]  # what the first run did after step 20 is gone
    assert [event.step for event in events.Scalars("validation/mIoU")] == [20]
    assert events.Scalars("pace/learning rate")[0].value == pytest.approx(0.01)
    assert events.Scalars("pace/samples per s")[0].value == pytest.approx(3.0)
    (image,) = events.Images("validation: image, truth, prediction")
    picture = cv2.imdecode(np.frombuffer(image.encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (4, 12, 3)
    assert picture[0, 0].tolist() == [0, 0, 250]  # OpenCV reads BGR


def test_pictures_are_files_named_by_their_step(tmp_path: Path) -> None:
    pictures = Pictures(tmp_path)
    pictures.on_validation_end(300, {}, np.full((16, 48, 3), (250, 0, 0), np.uint8))
    pictures.on_validation_end(600, {}, None)
    (path,) = (tmp_path / "pictures").iterdir()
    assert path.name == "step-000300.jpg"
    blue, green, red = cv2.imread(str(path))[0, 0].tolist()
    assert red > 240
    assert max(blue, green) < 10
    (tmp_path / "pictures" / "step-000900.jpg").mkdir()
    with pytest.raises(DataError, match=r"cannot write .*step-000900\.jpg"):
        pictures.on_validation_end(900, {}, np.zeros((16, 48, 3), np.uint8))


def test_every_callback_of_a_run_hears_every_hook(tmp_path: Path) -> None:
    module, picture = torch.nn.Linear(2, 1), np.zeros((4, 12, 3), np.uint8)
    logs = [JsonLines(tmp_path / name) for name in ("a", "b")]
    run = Run(tmp_path / "run", (*logs, Pictures(tmp_path)))
    config = LoopConfig(steps=25, lr=1e-3, precision="fp32", validate_every=20)

    def loss(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        return module(torch.ones(1, 2)).square().sum(), {}

    training(module, loss, config, run, batch=1, validate=lambda _: ({"mIoU": 0.25}, picture))
    assert [line["step"] for line in lines(tmp_path / "a")] == [10, 20, 20, 25, 25]
    steps = [[line["step"] for line in lines(tmp_path / name)] for name in ("a", "b")]
    assert steps[0] == steps[1]
    assert (tmp_path / "pictures" / "step-000020.jpg").is_file()


def test_a_validation_picture_has_a_row_per_image_with_truth_and_prediction_in_colours() -> None:
    images = torch.zeros((2, 3, 4, 5), dtype=torch.uint8)
    images[1, 2] = 99
    truths = torch.zeros((2, 4, 5), dtype=torch.uint8)
    predictions = torch.full_like(truths, 3)
    truths[0] = 255
    picture = validation_picture([*images], [*truths], [*predictions], LABELS)
    assert picture.shape == (8, 15, 3)
    assert picture.dtype == np.uint8
    corners = picture[[0, 4]][:, [0, 5, 10]].tolist()  # of the six parts
    sky, road = list(LABELS[0].color), list(LABELS[3].color)
    assert corners == [[[0, 0, 0], [0, 0, 0], road], [[0, 0, 99], sky, road]]


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Python's own handlers, also where the tests run in the background with SIGINT ignored."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_to_stop_and_the_handlers_come_back(
    tmp_path: Path, number: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), StopRequest(tmp_path) as stop:
        assert stop.requested is None
        signal.raise_signal(number)
        assert stop.requested is not None
        assert stop.requested.startswith(number.name)
    assert len(caplog.messages) == 1  # logged once, however often it is read
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.usefixtures("interruptible")
def test_a_second_interrupt_acts_at_once(tmp_path: Path) -> None:
    with StopRequest(tmp_path) as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.usefixtures("interruptible")
def test_an_ignored_signal_stays_ignored(tmp_path: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with StopRequest(tmp_path) as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.requested is None
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


@pytest.mark.usefixtures("interruptible")
def test_a_file_named_stop_asks_to_stop_but_not_one_from_before(tmp_path: Path) -> None:
    (tmp_path / "stop").touch()
    with StopRequest(tmp_path) as stop:
        assert stop.requested is None
        (tmp_path / "stop").touch()
        assert stop.requested == f"the file {tmp_path / 'stop'}"
        (tmp_path / "stop").unlink()
        assert stop.requested  # the first request stays
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.usefixtures("interruptible")
def test_outside_the_main_thread_only_the_file_works(tmp_path: Path) -> None:
    found: list[str | None] = []

    def run() -> None:
        with StopRequest(tmp_path) as stop:
            found.append(stop.requested)
            (tmp_path / "stop").touch()
            found.append(stop.requested)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [None, f"the file {tmp_path / 'stop'}"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
