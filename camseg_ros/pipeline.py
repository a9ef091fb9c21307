"""From the cameras' messages to their masks: what the node has while it is configured."""

from __future__ import annotations  # rclpy's classes are generic only from Jazzy on

import threading
import time
from collections.abc import Callable
from functools import partial

from rclpy.node import Node

from camseg_core.runtime import Segmenter
from camseg_core.runtime.stream import Stream
from camseg_ros.camera import Camera, ImageMessage, ReadFrame
from camseg_ros.frame_slots import Frame, FrameSlots
from camseg_ros.image_conversion import choose_converter
from camseg_ros.inference_worker import Failure, InferenceWorker, Recovery, Turn
from camseg_ros.label_topics import DebugTopics, LabelTopics
from camseg_ros.model_loading import class_table, load_segmenter, sampling
from camseg_ros.parameters import Parameters
from camseg_ros.process import ThrottledLog
from camseg_ros.statistics import PAUSED, REPLACED, STOPPED, TOO_OLD


class Pipeline:
    """The model, the cameras, and the thread that brings them together.

    Args:
        node: whose topics they are.
        settings: gives the parameters' values at the moment.
        on_give_up: told, in the inference thread, why the model is given up for good.

    Attributes:
        cameras: by name.
        converter: of image encodings.
        paused: frames are counted and dropped.
        worker: the inference thread; None until the first `start`.

    Raises:
        ModelError: the checkpoint folder is missing or damaged, or has no graphs in the precision asked for.
        ConfigError: a parameter does not suit the model, or nothing can convert images.
    """

    def __init__(
        self, node: Node, settings: Callable[[], Parameters], on_give_up: Callable[[str], None]
    ) -> None:
        given = settings()
        self._node, self._settings, self._on_give_up = node, settings, on_give_up
        self._log = ThrottledLog(node.get_logger())
        self._segmenter, self._left_behind = load_segmenter(given), False
        self._table = class_table(self._segmenter, given)
        self.converter = choose_converter()
        self.paused = False
        self.cameras: dict[str, Camera] = {}
        try:
            for name in given.camera_names:
                self.cameras[name] = Camera(node, name, given, self._log)
        except Exception:  # a topic's name is none, or has another type in this process
            for camera in self.cameras.values():
                camera.destroy()
            raise
        self.worker: InferenceWorker[ImageMessage, Segmenter] | None = None
        self._slots: FrameSlots[ImageMessage] = FrameSlots(
            self.cameras, lambda frame: self._drop(frame, REPLACED)
        )
        self._streams: dict[str, Stream] = {}
        self._publishing = threading.Lock()
        self._debug, self._labels = DebugTopics(node), LabelTopics(node)
        self._labels.publish(self._segmenter.name, self._table.labels)

    @property
    def segmenter(self) -> Segmenter:
        """The model that serves, or the last that did."""
        return (self.worker and self.worker.model) or self._segmenter

    def start(self) -> None:
        """Take images and answer them."""
        if self._left_behind:  # a thread that still works with it must not meet another
            self._segmenter, self._left_behind = load_segmenter(self._settings()), False
        self._streams = {}
        self.worker = InferenceWorker(
            self._slots,
            self._segmenter,
            load=lambda: load_segmenter(self._settings()),
            handle=self._answer,
            on_failure=self._fail,
            on_give_up=self._on_give_up,
            most=self._settings().max_batch,
            recovery=self._recovery,
        )
        self.worker.start()
        for camera in self.cameras.values():
            camera.subscribe(partial(self._store, camera))

    def stop(self, timeout: float) -> bool:
        """Take no more images and leave those that wait; False if frames are still in work after `timeout` seconds."""
        for camera in self.cameras.values():
            camera.unsubscribe()
        ended = self.worker is None or self.worker.stop(timeout)
        self._segmenter, self._left_behind = self.segmenter, not ended
        for frame in self._slots.clear():
            self._drop(frame, STOPPED)
        return ended

    def destroy(self) -> None:
        """Take its topics out of the middleware."""
        for camera in self.cameras.values():
            camera.destroy()
        self._debug.destroy()
        self._labels.destroy()

    def silence(self, timeout: float) -> bool:
        """Let what is being published go out whole, and nothing after it; False if it does not end within `timeout` seconds."""
        return self._publishing.acquire(timeout=timeout)

    def check(self, wanted: Parameters) -> None:
        """Find out whether these values suit the model.

        Raises:
            ConfigError: they do not.
        """
        self.segmenter.check_sampling(sampling(wanted))
        class_table(self.segmenter, wanted)

    def settings_changed(self) -> None:
        """Go by the new values from the next frame on."""
        table = class_table(self.segmenter, self._settings())
        if table.labels != self._table.labels:
            self._labels.publish(self.segmenter.name, table.labels)
        self._table = table

    def _recovery(self) -> Recovery:
        given = self._settings()
        return Recovery(given.inference_timeout, given.max_rebuilds, given.rebuild_backoff)

    def _store(self, camera: Camera, message: ImageMessage) -> None:
        """The subscription's callback: keeps the message and returns, so that the freshest one is always at hand."""
        camera.statistics.frame_received()
        frame = Frame(camera.name, message)
        if self.paused:
            self._drop(frame, PAUSED)
        else:
            self._slots.put(frame)

    def _answer(
        self, segmenter: Segmenter, frames: list[Frame[ImageMessage]], turn: Turn
    ) -> Segmenter | None:
        """Turn messages into masks and publish them (in the inference thread); the model to go on with, None if it was not used."""
        settings = self._settings()
        read = [each for frame in frames if (each := self._read(frame, settings)) is not None]
        if not read:
            return None
        wanted = sampling(settings)
        if segmenter.sampling != wanted:
            segmenter = segmenter.with_sampling(wanted)
        results = segmenter.segment_batch(
            [each.rgb for each in read],
            fits=[settings.camera(each.camera.name).fit for each in read],
            streams=[self._stream(each.camera.name, settings) for each in read],
            times=[each.time for each in read],
        )
        segmented = time.monotonic()
        for each, result in zip(read, results, strict=True):
            with self._publishing:
                if turn.over.is_set():
                    break
                mask_out = each.camera.publish(each, result, self._table, settings, segmented)
            if mask_out is not None:
                self._debug.publish((mask_out - each.began) * 1e3, each.stamp)
        return segmenter

    def _read(self, frame: Frame[ImageMessage], settings: Parameters) -> ReadFrame | None:
        """The frame's picture; None, and the reason counted, if it is too old or no picture."""
        camera = self.cameras[frame.camera]
        limit = settings.camera(camera.name).max_age_ms
        if limit and camera.age_ms(frame) > limit:
            self._drop(frame, TOO_OLD)
            return None
        return camera.read(frame, self.converter)

    def _stream(self, camera: str, settings: Parameters) -> Stream | None:
        """What is remembered of a camera's last frame; None if nothing is to be carried over."""
        carry, gap = settings.temporal_carry, settings.temporal_max_gap
        if not carry:
            return None
        stream = self._streams.get(camera)
        if stream is None or (stream.carry, stream.max_gap_s) != (carry, gap):
            stream = self._streams[camera] = Stream(carry, gap)
        return stream

    def _drop(self, frame: Frame[ImageMessage], reason: str) -> None:
        self.cameras[frame.camera].statistics.frame_dropped(reason)

    def _fail(self, kind: Failure, text: str, frames: list[Frame[ImageMessage]]) -> None:
        """The model failed: tell it, and count the frames that stay without an answer."""
        self._streams = {}  # a thread that hangs may still hold the old ones
        self._log.warn(kind, f"{kind}: {text}")
        for frame in frames:
            self.cameras[frame.camera].statistics.frame_rejected(
                kind, f"{self.cameras[frame.camera].topic}: {kind}: {text}"
            )
