"""The level and the sentence for every state of a stream, and the numbers behind it."""

import pytest
from diagnostic_msgs.msg import DiagnosticStatus

from camseg_ros.diagnostics import resident_megabytes, status
from camseg_ros.endpoints import Endpoints
from camseg_ros.parameters import Parameters
from camseg_ros.statistics import PAUSED, REPLACED, STOPPED, TOO_OLD, WINDOW_S, StreamStatistics
from camseg_ros.stream_health import (
    ERROR_SHOWN_S,
    Health,
    Limits,
    Overrun,
    camera_health,
    core_count,
    faster,
)

LIMITS = Limits(budget_ms=100.0, error_after=10.0, silent_after=3.0, advice="run faster")
NOBODY, CAMERA = Endpoints((), ()), Endpoints(("/camera_driver",), ())
MISMATCH = Endpoints((), ("/camera_driver publishes /image but offers durability volatile",))
OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


class Stream(StreamStatistics):
    """Statistics on a clock that the test sets."""

    def __init__(self) -> None:
        self.now = 50.0
        super().__init__(lambda: self.now)

    def answer(self, latency_ms: float = 5.0, noisy: bool = False) -> None:
        self.frame_received()
        self.frame_published(latency_ms, {}, (4, 4), noisy)

    def health(self, endpoints: Endpoints = CAMERA, overrun: float | None = None) -> Health:
        return camera_health(self.snapshot(), "/image", endpoints, LIMITS, overrun)


def test_noise_that_is_removed_from_most_images_is_a_warning() -> None:
    stream = Stream()
    for noisy in (False, False, True):
        stream.answer(noisy=noisy)
    assert stream.health() == (OK, "serving")
    assert stream.snapshot().values()["frames with strong noise (%)"] == "33"
    stream.answer(noisy=True)
    level, text = stream.health()
    assert level == WARN
    assert text.startswith("strong noise in 50 % of the last images, removed before the network")


def test_at_first_it_waits() -> None:
    stream = Stream()
    stream.now += LIMITS.silent_after
    assert (
        stream.health(NOBODY)
        == stream.health(CAMERA)
        == (OK, "waiting for the first image on /image")
    )


@pytest.mark.parametrize(
    ("endpoints", "texts"),
    [
        (NOBODY, ["no publisher; check the topic name"]),
        (CAMERA, ["matched with /camera_driver, but silent: ", "config/fastdds.xml"]),
        (MISMATCH, [MISMATCH.problems[0]]),
    ],
)
def test_silence_from_the_start_is_a_warning_that_says_what_to_check(
    endpoints: Endpoints, texts: list[str]
) -> None:
    stream = Stream()
    stream.now += 7
    level, text = stream.health(endpoints)
    assert level == WARN
    assert text.startswith("no images on /image for 7 s: ")
    assert all(each in text for each in texts)


def test_a_publisher_that_cannot_connect_is_reported_at_once() -> None:
    stream = Stream()
    assert stream.health(MISMATCH) == (WARN, f"no images on /image for 0 s: {MISMATCH.problems[0]}")
    stream.answer()
    assert stream.health(Endpoints(("/other",), MISMATCH.problems)) == (WARN, MISMATCH.problems[0])


def test_serving_and_then_silent() -> None:
    stream = Stream()
    stream.answer()
    assert stream.health() == (OK, "serving")
    stream.now += LIMITS.silent_after
    assert stream.health() == (OK, "serving")
    stream.now += 1
    silent = "no images on /image for 4 s: "
    level, text = stream.health()
    assert level == WARN
    assert text.startswith(
        f"{silent}matched with /camera_driver, but silent: either it has stopped sending, "
        "so check the camera, or "
    )
    assert "_DEFAULT_PROFILES_FILE" in text
    assert stream.health(NOBODY) == (
        WARN,
        f"{silent}no publisher; check the topic name and whether the camera runs",
    )


def test_after_a_pause_the_silence_counts_from_the_new_subscription() -> None:
    stream = Stream()
    stream.answer()
    stream.now += 100
    stream.begin()
    assert stream.health() == (OK, "serving")
    stream.now += LIMITS.silent_after + 1
    level, text = stream.health()
    assert (level, text.split(":")[0]) == (WARN, "no images on /image for 4 s")


def test_an_error_is_a_warning_while_other_frames_are_answered_and_else_an_error() -> None:
    stream = Stream()
    stream.frame_received()
    stream.frame_rejected("step", "the step is wrong")
    assert stream.health() == (ERROR, "the step is wrong")
    stream.now += 1
    stream.answer()
    assert stream.health() == (WARN, "the step is wrong")
    stream.now += ERROR_SHOWN_S
    stream.answer()
    assert stream.health() == (OK, "serving")


def test_too_long_a_latency_is_a_warning_and_in_time_an_error() -> None:
    stream = Stream()
    stream.answer(latency_ms=123.0)
    for overrun, level in ((0.0, WARN), (9.9, WARN), (10.0, ERROR)):
        assert stream.health(overrun=overrun)[0] == level
    text = stream.health(overrun=4.0)[1]
    assert text.startswith(
        "p95 latency 123 ms is above the budget of 100 ms for 4 s; run faster, or "
    )


@pytest.mark.parametrize(
    ("lost", "answered", "level"),
    [(4, 0, OK), (5, 0, ERROR), (9, 1, ERROR), (8, 2, WARN), (6, 5, WARN), (5, 5, OK)],
)
def test_a_stream_that_loses_most_frames_for_one_reason_says_so(
    lost: int, answered: int, level: bytes
) -> None:
    stream = Stream()
    for _ in range(answered):
        stream.answer()
    for _ in range(lost):
        stream.frame_received()
        stream.frame_dropped(TOO_OLD, "their clock is wrong")
    total = lost + answered
    text = f"{lost} of the last {total} images lost: too old; their clock is wrong"
    assert stream.health() == (level, "serving" if level == OK else text)
    stream.now += 2.9
    assert stream.health()[0] == level
    stream.begin()
    stream.answer()
    assert stream.health() == (OK, "serving"), "a new subscription starts anew"


def test_a_slow_camera_is_judged_by_its_last_frames_and_a_loss_ends() -> None:
    stream = Stream()
    for _ in range(5):
        stream.now += 0.8 * WINDOW_S
        stream.frame_received()
        stream.frame_dropped(TOO_OLD, "why")
    assert stream.health()[0] == ERROR
    for _ in range(4):
        stream.now += 0.8 * WINDOW_S
        stream.answer()
    assert stream.health() == (OK, "serving")


def test_frames_lost_for_several_reasons_or_on_purpose_are_no_loss_for_one_reason() -> None:
    stream = Stream()
    for _ in range(3):
        for reason in (TOO_OLD, REPLACED, PAUSED, STOPPED):
            stream.frame_dropped(reason, "why")
        stream.answer()
    assert stream.health() == (OK, "serving")


def test_frames_that_are_replaced_name_both_rates_and_what_makes_it_faster() -> None:
    stream = Stream()
    for number in range(40):
        stream.now += 0.1
        stream.frame_received()
        if number % 4:
            stream.frame_dropped(REPLACED)
        else:
            stream.frame_published(5.0, {}, (4, 4))
    rates = "10.0 images/s arrive, 2.5 are answered"
    text = f"30 of the last 40 images lost: {REPLACED}; {rates}; lower the camera's rate, or run"
    level, found = stream.health()
    assert (level, found.startswith(text)) == (WARN, True), found


def test_frames_that_wait_for_an_engine_are_not_blamed_on_the_camera() -> None:
    stream = Stream()
    for _ in range(10):
        stream.frame_received()
        stream.frame_dropped(REPLACED)
    level, found = stream.health()
    assert level == ERROR
    assert found.endswith(
        "none is answered: see the entry of the model, which is busy or being rebuilt"
    )


def test_the_worst_of_several_problems_is_reported() -> None:
    stream = Stream()
    for _ in range(10):
        stream.frame_dropped(TOO_OLD, "why")
    stream.frame_rejected("step", "the step is wrong")
    stream.answer()
    assert stream.health(MISMATCH) == (WARN, "the step is wrong")
    for _ in range(90):
        stream.frame_dropped(TOO_OLD, "why")
    assert stream.health(MISMATCH)[0] == ERROR
    stream.now += 9
    assert stream.health(MISMATCH, overrun=20.0)[0] == ERROR


def test_advice_follows_from_the_settings_in_use() -> None:
    assert faster(Parameters()) == "use a smaller model"
    assert "steps" not in faster(Parameters(steps=4)), "one_step does not use it"
    several = Parameters(
        sampler="ddim",
        steps=4,
        samples=2,
        threads=1,
        precision="fp32",
        provider="cpu",
        cameras=("left", "right"),
    )
    text = faster(several)
    for part in (
        "lower steps (now 4)",
        "lower samples (now 2)",
        "precision: auto (now fp32)",
        "set provider: auto (now cpu)",
    ):
        assert part in text
    assert "use fewer cameras (now 2)" in text
    assert ("raise threads (now 1, of " in text) == (core_count() > 1)


def test_an_overrun_counts_from_its_start_and_ends_below_the_budget() -> None:
    now = 7.0
    overrun = Overrun(lambda: now)
    assert overrun.seconds(None, 100.0) is None
    assert overrun.seconds(100.0, 100.0) is None
    assert overrun.seconds(100.1, 100.0) == 0.0
    now = 9.5
    assert overrun.seconds(150.0, 100.0) == 2.5
    assert overrun.seconds(150.0, 200.0) is None, "a greater budget ends it"
    assert overrun.seconds(250.0, 200.0) == 0.0
    now = 11.0
    assert overrun.seconds(None, 200.0) is None, "no frames any more end it"
    assert overrun.seconds(250.0, 200.0) == 0.0


def test_the_values_have_every_number() -> None:
    stream = Stream()
    for number in range(3):
        stream.now += 0.5
        stream.frame_received()
        stream.frame_published(10.0 + number, {"wait": 1.25}, (480, 360))
    stream.frame_rejected("truncated", "cut short")
    stream.frame_dropped(REPLACED)
    stream.frame_dropped(PAUSED)
    stream.frame_dropped(PAUSED)
    assert stream.snapshot().values() == {
        "frames received": "3",
        "frames published": "3",
        "frames dropped": "3",
        "dropped: paused": "2",
        "dropped: replaced by a fresher one": "1",
        "frames rejected": "1",
        "rejected: truncated": "1",
        "publish failures": "0",
        "rate in (Hz)": "2.0",
        "rate out (Hz)": "2.0",
        "latency p50 (ms)": "11.0",
        "latency p95 (ms)": "12.0",
        "stage wait (ms)": "1.2",
        "frames with strong noise (%)": "0",
        "image size": "480x360",
        "age of last input (s)": "0.0",
        "last error": "cut short",
    }


def test_what_has_not_happened_yet_is_reported_as_such() -> None:
    values = Stream().snapshot().values()
    assert {name for name, value in values.items() if value == "none yet"} == {
        "latency p50 (ms)",
        "latency p95 (ms)",
        "image size",
        "age of last input (s)",
    }
    assert values["last error"] == "none"


def test_an_entry_has_its_level_sentence_and_values() -> None:
    entry = status("/segmentation: left", "/left/image", (WARN, "look"), {"a": "1", "b": "2"})
    assert (entry.name, entry.hardware_id, entry.level, entry.message) == (
        "/segmentation: left",
        "/left/image",
        WARN,
        "look",
    )
    assert [(value.key, value.value) for value in entry.values] == [("a", "1"), ("b", "2")]
    assert resident_megabytes() > 1
