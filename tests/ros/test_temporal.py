"""Temporal smoothing through the node: earlier frames steady later ones, until a gap."""

import numpy as np
from ros_harness import StartBench, header, pixels_of
from sensor_msgs.msg import Image

from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_core.runtime import Segmenter, Stream
from camseg_ros.outputs import image_message

DRIVE = SyntheticDrive(frames=4, height=120, width=160, fps=10)
FRAMES = [DRIVE[index].image for index in range(4)]


def frame(index: int, seconds: float) -> Image:
    message = image_message(FRAMES[index], "rgb8", header(0))
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(round(seconds * 1e9), 10**9)
    return message


def test_frames_are_steadied_by_those_before_and_a_gap_begins_afresh(
    start_bench: StartBench,
) -> None:
    bench = start_bench("temporal_carry:=0.7", "temporal_max_gap:=0.5")
    times = [5000.0, 5000.1, 5000.2, 5009.0]
    masks = [
        pixels_of(mask) for mask in bench.ask(*(frame(index, at) for index, at in enumerate(times)))
    ]
    segmenter, stream = Segmenter.from_pretrained(streams=True), Stream(0.7, 0.5)
    expected = [
        segmenter.segment_batch([rgb], streams=[stream], times=[at])[0].mask
        for rgb, at in zip(FRAMES, times, strict=True)
    ]
    alone = [segmenter.segment(rgb).mask for rgb in FRAMES]
    for mask, steadied in zip(masks, expected, strict=True):
        assert np.array_equal(mask, steadied)
    assert np.array_equal(masks[3], alone[3])
    assert any(
        (mask != single).any() for mask, single in zip(masks[1:3], alone[1:3], strict=True)
    ), "nothing was carried over"


def test_stability_can_be_turned_off_while_the_node_runs(start_bench: StartBench) -> None:
    bench = start_bench("temporal_carry:=0.7")
    bench.ask(frame(0, 5000.0), frame(1, 5000.1))
    assert bench.set_parameter("temporal_carry", 0.0) == (True, "")
    (mask,) = bench.ask(frame(2, 5000.2))
    assert np.array_equal(pixels_of(mask), Segmenter.from_pretrained().segment(FRAMES[2]).mask)
