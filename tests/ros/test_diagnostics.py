"""The level and the sentence for every state of a stream."""

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus

from camseg_ros.diagnostics import ERROR_SHOWN_S, SILENT_AFTER_S, diagnostic_array, health, status
from camseg_ros.statistics import StreamStatistics


class Stream(StreamStatistics):
    """Statistics on a clock that the test sets."""

    def __init__(self) -> None:
        self.now = 50.0
        super().__init__(lambda: self.now)

    def health(self, publishers: int = 1) -> tuple[bytes, str]:
        return health(self.snapshot(), "/camera/image", publishers)


def test_silence_is_a_warning_that_says_what_to_check() -> None:
    stream = Stream()
    stream.now += 7
    level, text = stream.health(publishers=0)
    assert level == DiagnosticStatus.WARN
    assert text == "no images on /camera/image for 7 s: nothing publishes there; check the topic name"
    level, text = stream.health(publishers=2)
    assert level == DiagnosticStatus.WARN
    assert "although 2 publish there" in text
    assert "fastdds.xml" in text


def test_serving_and_then_silent() -> None:
    stream = Stream()
    stream.frame_received()
    stream.frame_published(5.0, {}, (4, 4))
    assert stream.health() == (DiagnosticStatus.OK, "serving")
    stream.now += SILENT_AFTER_S + 1
    assert stream.health() == (DiagnosticStatus.WARN, "no images on /camera/image for 4 s (1 publish there)")


def test_an_error_is_a_warning_while_other_frames_are_answered_and_else_an_error() -> None:
    stream = Stream()
    stream.frame_received()
    stream.frame_rejected("step", "the step is wrong")
    assert stream.health() == (DiagnosticStatus.ERROR, "the step is wrong")
    stream.now += 1
    stream.frame_received()
    stream.frame_published(5.0, {}, (4, 4))
    assert stream.health() == (DiagnosticStatus.WARN, "the step is wrong")
    stream.now += ERROR_SHOWN_S
    stream.frame_received()
    stream.frame_published(5.0, {}, (4, 4))
    assert stream.health() == (DiagnosticStatus.OK, "serving")


def test_the_message_has_every_number() -> None:
    stream = Stream()
    for number in range(3):
        stream.now += 0.5
        stream.frame_received()
        stream.frame_published(10.0 + number, {"wait": 1.25}, (480, 360))
    stream.frame_rejected("truncated", "cut short")
    stream.frame_dropped()
    facts = {"model": "camseg-lite", "input topic": "/image"}
    message = diagnostic_array([status("/segmentation", stream.snapshot(), facts, 1)], Time(sec=9))
    assert message.header.stamp.sec == 9
    (entry,) = message.status
    assert entry.name == "/segmentation"
    assert entry.level == DiagnosticStatus.WARN
    assert {value.key: value.value for value in entry.values} == {
        "model": "camseg-lite",
        "input topic": "/image",
        "frames received": "3",
        "frames published": "3",
        "frames dropped": "1",
        "frames rejected": "1",
        "rejected: truncated": "1",
        "publish failures": "0",
        "rate in (Hz)": "2.0",
        "rate out (Hz)": "2.0",
        "latency p50 (ms)": "11.0",
        "latency p95 (ms)": "12.0",
        "stage wait (ms)": "1.2",
        "image size": "480x360",
        "age of last input (s)": "0.0",
        "last error": "cut short",
        "publishers on the input topic": "1",
    }
