"""From the cameras' messages to their masks: everything the node owns while it is configured."""

from __future__ import annotations  # rclpy's classes are generic only from Jazzy on

import re
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from itertools import product
from operator import attrgetter

from rclpy.node import Node

from camseg_core.config.model import load_config
from camseg_core.errors import ConfigError
from camseg_core.jpeg import simplejpeg
from camseg_core.labels import Label, read_labels
from camseg_core.masks import ClassTable
from camseg_core.runtime import Segmenter
from camseg_core.runtime.engine import KEPT_SIZES
from camseg_core.runtime.stream import Stream
from camseg_core.weights import checkpoint_folder
from camseg_ros.camera import Camera, ImageMessage, Picture
from camseg_ros.compressed_images import UNSEEN_DAMAGE
from camseg_ros.image_conversion import choose_converter
from camseg_ros.messages import LabelTopics
from camseg_ros.outputs import DebugTopics
from camseg_ros.parameters import Parameters
from camseg_ros.process import warn_throttled
from camseg_ros.statistics import PAUSED, REPLACED, STOPPED
from camseg_ros.worker import (
    Failure,
    Frame,
    FrameSlots,
    InferenceWorker,
    Recovery,
    WorkerSession,
)

_SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")


def check_model(parameters: Parameters) -> None:
    """Check the model without loading it.

    Raises:
        ModelError: the checkpoint folder is missing, or its configuration or labels are damaged.
        ConfigError: the sampling, a group or `enabled_classes` does not fit the model, or a warm-up
            size is malformed.
    """
    for size in parameters.warm_up_sizes:
        warm_up_size(size)
    folder = checkpoint_folder(parameters.model)
    parameters.sampling.check(load_config(folder / "config.json"))
    class_table(read_labels(folder / "labels.json"), parameters)


def load_segmenter(parameters: Parameters) -> Segmenter:
    """Load the model and warm it up for every expected image size and batch size.

    Raises:
        ModelError: the checkpoint folder is missing or damaged, or lacks graphs in the requested
            precision.
        ConfigError: the provider is not available, the sampling does not fit the model, or a size
            is malformed.
    """
    sizes = [warm_up_size(size) for size in parameters.warm_up_sizes]
    cameras = parameters.by_camera.values()
    fits = dict.fromkeys(each.fit for each in cameras)
    segmenter = Segmenter.from_pretrained(
        parameters.model,
        provider=parameters.provider,
        precision=parameters.precision,
        threads=parameters.threads,
        engine_cache=parameters.engine_cache or None,
        frame_size=sizes[0][::-1] if sizes else None,
        # with fewer, cameras of different sizes would drop and compile each other's in turns
        kept_sizes=max(KEPT_SIZES, len(cameras) + len(sizes) * len(fits)),
        **asdict(parameters.sampling),
    )
    together = min(len(cameras), parameters.max_batch) if segmenter.batches else 1
    for (width, height), fit in product(sizes, fits):
        for batch in range(1, together + 1):
            # OpenVINO compiles here, TensorRT builds engines, which takes minutes if not cached
            segmenter.warm_up(height, width, fit, batch)
    return segmenter


def warm_up_size(text: str) -> tuple[int, int]:
    """Parse `WIDTHxHEIGHT` into width and height.

    Raises:
        ConfigError: `text` has another form.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        form = "must hold sizes WIDTHxHEIGHT in pixels such as 640x480"
        raise ConfigError(f"parameter 'warm_up_sizes' {form}, got {text!r}")
    return int(match[1]), int(match[2])


def class_table(labels: Sequence[Label], parameters: Parameters) -> ClassTable:
    """Return the ids with which the model's classes are published.

    Raises:
        ConfigError: the model has no class of a group or of `enabled_classes`; see `ClassTable.of`.
    """
    return ClassTable.of(labels, parameters.class_groups, parameters.enabled_classes)


class Pipeline:
    """The model, the cameras, and the thread that connects them.

    Args:
        node: creates the topics.
        parameters: current values; `apply` replaces them.
        on_give_up: called in the inference thread with the reason when the node gives up on the
            engine.

    Attributes:
        cameras: by name.
        converter: converts image encodings.
        paused: if set, frames are counted and dropped.
        worker: the inference thread; None until the first `start`.

    Raises:
        ModelError: the checkpoint folder is missing or damaged, or lacks graphs in the requested
            precision.
        ConfigError: a parameter does not fit the model, or no image converter is installed.
    """

    def __init__(
        self, node: Node, parameters: Parameters, on_give_up: Callable[[str], None]
    ) -> None:
        self._node, self._parameters, self._on_give_up = node, parameters, on_give_up
        self._segmenter, self._left_behind = load_segmenter(parameters), False
        self._table = class_table(self._segmenter.labels, parameters)
        self._warn_of_skipped(self._table.skipped)
        self.converter = choose_converter()
        self.paused = False
        self.cameras: dict[str, Camera] = {}
        with ExitStack() as made:  # undone if a topic fails: this process has it with another type
            for name in parameters.camera_names:
                self.cameras[name] = Camera(node, name, parameters)
                made.callback(self.cameras[name].destroy)
            self._debug = DebugTopics(node)
            made.callback(self._debug.destroy)
            self._labels = LabelTopics(node)
            made.pop_all()
        self.worker: InferenceWorker[ImageMessage, Segmenter] | None = None
        self._slots: FrameSlots[ImageMessage] = FrameSlots(self.cameras)
        self._streams: dict[str, Stream] = {}
        self._publishing = threading.Lock()
        self._publish_labels()
        if not simplejpeg() and any(camera.compressed for camera in self.cameras.values()):
            node.get_logger().warning(UNSEEN_DAMAGE)

    @property
    def segmenter(self) -> Segmenter:
        """The model in use, or the last one that was."""
        return (self.worker and self.worker.model) or self._segmenter

    def start(self) -> None:
        """Subscribe to the images and answer them."""
        if self._left_behind:  # an abandoned thread may still use the old model
            self._segmenter, self._left_behind = self.reload(), False
        self._streams = {}
        self.worker = InferenceWorker(
            self._slots,
            self._segmenter,
            load=self.reload,
            handle=self._segment,
            on_failure=self._inference_failed,
            on_give_up=self._on_give_up,
            max_batch=self._parameters.max_batch,
            together=attrgetter("batches"),
            recovery=lambda: Recovery(
                self._parameters.inference_timeout,
                self._parameters.max_rebuilds,
                self._parameters.rebuild_backoff,
            ),
            compiling_s=lambda model, since: model.compilations.seconds_since(since),
        )
        self.worker.start()
        for camera in self.cameras.values():
            camera.subscribe(partial(self.receive, camera))

    def reload(self) -> Segmenter:
        """Load the model again.

        Raises:
            ModelError: it cannot be loaded, or is another one: its masks could mean other classes.
        """
        if (contents := self._segmenter.contents) is not None:
            contents.check(self._segmenter.folder)
        return load_segmenter(self._parameters)

    def stop(self, timeout: float) -> bool:
        """Unsubscribe and drop waiting frames; False if work goes on after `timeout` seconds."""
        for camera in self.cameras.values():
            camera.unsubscribe()
        worker, ended, unanswered = self.worker, True, self._slots.clear()
        if worker is not None:
            ended = worker.stop(timeout)
            unanswered += worker.take_unanswered()
            # without a model, an earlier thread may have been abandoned within it
            self._left_behind |= not ended or worker.model is None
            self._segmenter = self.segmenter
        for frame in unanswered:
            self.cameras[frame.camera].statistics.frame_dropped(STOPPED)
        return ended

    def destroy(self) -> None:
        """Remove all topics from the middleware."""
        for camera in self.cameras.values():
            camera.destroy()
        self._debug.destroy()
        self._labels.destroy()

    def silence(self, timeout: float) -> bool:
        """Publish nothing after the current message; False if that takes over `timeout` seconds."""
        return self._publishing.acquire(timeout=timeout)

    def check(self, parameters: Parameters) -> None:
        """Check whether these values fit the model.

        Raises:
            ConfigError: they do not.
            ModelError: the checkpoint folder lacks graphs for another sampling, or was replaced.
        """
        if parameters.sampling != self._parameters.sampling:
            self.segmenter.check_sampling(parameters.sampling)
        class_table(self.segmenter.labels, parameters)

    def apply(self, parameters: Parameters) -> None:
        """Use these values from the next frame on."""
        table, before = class_table(self.segmenter.labels, parameters), self._table
        with self._publishing:  # no mask with the old ids follows the new labels
            self._parameters, self._table = parameters, table
            if table.labels != before.labels:
                self._publish_labels()
        if table.skipped != before.skipped:
            self._warn_of_skipped(table.skipped)

    def _publish_labels(self) -> None:
        for failure in self._labels.publish(self.segmenter.name, self._table.labels):
            warn_throttled(self._node, "publish", failure)

    def _warn_of_skipped(self, skipped: Sequence[str]) -> None:
        for text in skipped:
            self._node.get_logger().warning(text)

    def receive(self, camera: Camera, message: ImageMessage) -> None:
        """Subscription callback: store the message and return, so that the next can arrive."""
        camera.statistics.frame_received()
        if self.paused:
            camera.statistics.frame_dropped(PAUSED)
        elif self._slots.put(camera.name, message):
            camera.statistics.frame_dropped(REPLACED)

    def _segment(
        self, segmenter: Segmenter, frames: list[Frame[ImageMessage]], session: WorkerSession
    ) -> Segmenter | None:
        """Turn messages into published masks, in the inference thread; see `worker.Handle`."""
        parameters, streams = self._parameters, self._streams
        batch: list[tuple[Camera, Picture]] = []
        for frame in frames:
            camera, began = self.cameras[frame.camera], time.monotonic()
            rgb = camera.read(frame, self.converter, parameters.by_camera[camera.name])
            if rgb is None:
                session.frames.remove(frame)
            else:
                header, ended = frame.message.header, time.monotonic()
                batch.append((camera, Picture(header, rgb, frame.received, began, ended)))
        if not batch:
            return None
        if segmenter.sampling != parameters.sampling:
            segmenter = segmenter.with_sampling(parameters.sampling)
        if session.over.is_set():  # abandoned meanwhile: the streams are those of another thread
            return None
        video = parameters.temporal_carry > 0
        compilations = segmenter.compilations.count
        results = segmenter.segment_batch(
            [picture.rgb for _, picture in batch],
            [parameters.by_camera[camera.name].fit for camera, _ in batch],
            streams=[_stream(streams, c.name, parameters) for c, _ in batch] if video else None,
            times=[picture.time for _, picture in batch] if video else None,
        )
        segmented = time.monotonic()
        if segmenter.compilations.count > compilations:
            self._node.get_logger().info(f"compiled {segmenter.compilations.last}")
        for (camera, picture), result in zip(batch, results, strict=True):
            own, opacity = parameters.by_camera[camera.name], parameters.overlay_opacity
            with self._publishing:
                if session.over.is_set():
                    break
                del session.frames[0]
                published = camera.publish(picture, result, self._table, own, opacity, segmented)
            if published is not None:
                failures = self._debug.publish(picture.began, published, picture.header)
                if failures:
                    camera.count_failures(failures)
        return segmenter

    def _inference_failed(
        self, kind: Failure, text: str, frames: list[Frame[ImageMessage]]
    ) -> None:
        """Log a failure of the model and count the frames that remain unanswered."""
        self._streams = {}  # a hung thread may still hold the old ones
        warn_throttled(self._node, kind, f"{kind}: {text}")
        for frame in frames:
            camera = self.cameras[frame.camera]
            camera.statistics.frame_rejected(kind, f"{camera.topic}: {kind}: {text}")


def _stream(streams: dict[str, Stream], camera: str, parameters: Parameters) -> Stream:
    """Return the memory of a camera's previous frames, which is kept in `streams`."""
    carry, gap = parameters.temporal_carry, parameters.temporal_max_gap
    stream = streams.get(camera)
    if stream is None or (stream.carry, stream.max_gap_s) != (carry, gap):
        stream = streams[camera] = Stream(carry, gap)
    return stream
