"""Learning without labels: the running average of a model's weights labels frames for the model.

The averaged model (arXiv 1703.01780) sees an unchanged crop. Where it is confident, its mask is the
label of the same crop, changed in colour and disturbed. Thresholds by class (arXiv 1810.07911)
keep rare classes from dropping out.
"""

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from camseg_core.config.reader import build, renamed_from
from camseg_core.data.disturbances import Pixels
from camseg_core.data.random_changes import COLOR_CHANGES, Change
from camseg_core.errors import CamSegError
from camseg_core.evaluation.metrics import Confusion
from camseg_core.export.torch_engine import TorchEngine
from camseg_core.labels import UNLABELLED, index_table
from camseg_core.long_runs import atomic_write
from camseg_core.model.camseg import CamSeg
from camseg_core.model.weights_file import save_tensors
from camseg_core.runtime import Sampling, Segmenter
from camseg_core.training.frames import Frames
from camseg_core.training.loading import Batch, seed_of
from camseg_core.training.settings import check_setting
from camseg_core.training.trainer import Callback, Picture, Validation

_LEVELS = 256
"""Levels of confidence in the histograms from which thresholds follow."""

_COUNTS_FROM = 1e-3
"""Share of the pixels from which a class counts in the agreement."""


@dataclass(frozen=True)
class Teaching:
    """How the averaged model labels frames, and when training stops.

    Attributes:
        confidence_threshold: confidence from which a pixel of any class gets a label.
        class_share: share of each class's pixels, the most confident ones, that get a label even
            below `confidence_threshold`.
        min_confidence: confidence below which no pixel gets a label.
        held_out: number of frames held out to measure the agreement, at most a quarter of all.
        patience: consecutive validations without a rise of the agreement that end the training.
        min_delta: smallest increase of the agreement that counts as a rise.
        max_miou_drop: largest loss of mean IoU on the labelled `val` frames. Weights that lose more
            are not kept, and a checkpoint that loses more is not written.

    Raises:
        ConfigError: a value is out of range.
    """

    confidence_threshold: float = field(default=0.9, metadata=renamed_from("sure"))
    class_share: float = 0.3
    min_confidence: float = field(default=0.5, metadata=renamed_from("least"))
    held_out: int = field(default=16, metadata=renamed_from("watched"))
    patience: int = 3
    min_delta: float = field(default=0.001, metadata=renamed_from("least_rise"))
    max_miou_drop: float = field(default=0.02, metadata=renamed_from("most_loss"))

    def __post_init__(self) -> None:
        for name in (
            "confidence_threshold",
            "class_share",
            "min_confidence",
            "min_delta",
            "max_miou_drop",
        ):
            check_setting(name, getattr(self, name), 0 <= getattr(self, name) <= 1, "in [0, 1]")
        check_setting(
            "min_confidence",
            self.min_confidence,
            self.min_confidence <= self.confidence_threshold,
            f"at most confidence_threshold, {self.confidence_threshold:g}",
        )
        for name in ("held_out", "patience"):
            check_setting(name, getattr(self, name), getattr(self, name) >= 1, ">= 1")


@dataclass(frozen=True)
class TeacherMeasurement:
    """Measurements of the averaged model after some steps.

    Attributes:
        step: steps done; 0 is the start model.
        agreement: mean IoU between its masks of the held-out frames, undisturbed and disturbed. A
            class counts if the start model sees it; if it vanishes, its IoU is 0.
        source: mean IoU on the labelled `val` frames that a validation scores.
        labelled: share of the held-out frames' pixels that are confident enough to become labels.
        thresholds: by class, the confidence from which pixels become labels.
        shown: the classes that count in the agreement.
    """

    step: int
    agreement: float
    source: float
    labelled: float
    thresholds: tuple[float, ...]
    shown: tuple[int, ...]


class MeanTeacher(Callback):
    """Labels the unlabelled samples of a training, and ends it when the agreement stops rising.

    Its measurements and the best weights are in `folder`; the same folder resumes.
    """

    def __init__(
        self,
        config: Teaching,
        held_out: Frames,
        first: int,
        changes: tuple[Change, ...],
        source: Callable[[nn.Module], Validation],
        folder: Path,
        seed: int = 0,
    ) -> None:
        """Create the teacher of the frames from number `first` on; earlier ones have labels.

        Args:
            config: see `Teaching`.
            held_out: unlabelled frames that are not trained on.
            first: number of the first frame without labels.
            changes: applied to what the model sees, besides changes of colour.
            source: scores a model on labelled frames, as `mIoU`.
            folder: where the measurements and the best weights are kept.
            seed: of the changes.
        """
        self._config, self._held_out, self._first = config, held_out, first
        self._changes, self._source = (*COLOR_CHANGES, *changes), source
        self._folder, self._seed = folder, seed
        self._average: CamSeg | None = None
        self._found: TeacherMeasurement | None = None  # by the validation, until it is recorded
        path = folder / "agreement.json"
        text = path.read_text(encoding="utf-8") if path.is_file() else "[]"
        found = json.loads(text, parse_constant=functools.partial(_refuse, path))
        self.measured = [build(TeacherMeasurement, each, str(path), CamSegError) for each in found]

    def start(self, model: CamSeg) -> None:
        """Measure the start model, unless that was done before."""
        if not self.measured:
            self.on_validation_end(0, *self.validate(model))

    def best(self) -> tuple[int, int]:
        """Return the step with the best agreement so far, and how many validations followed it.

        Steps that lost more than `Teaching.max_miou_drop` are not considered.
        """
        step, top, since = 0, self.measured[0].agreement, 0
        allowed = self.measured[0].source - self._config.max_miou_drop
        for each in self.measured[1:]:
            since += 1
            if each.source >= allowed and each.agreement >= top + self._config.min_delta:
                step, top, since = each.step, each.agreement, 0
        return step, since

    def load_best(self, model: CamSeg) -> None:
        """Load the weights of the best step, which must not be 0, into `model`."""
        model.load_state_dict(load_file(self._weights(self.best()[0])))

    def _weights(self, step: int) -> Path:
        """Return the file of a step's weights: a run that is killed may repeat a later step."""
        return self._folder / f"best-{step}.safetensors"

    def labelled(self, batch: Batch, frame_of: Callable[[int], int]) -> Batch:
        """Return `batch` with changed images, and the teacher's labels for unlabelled frames.

        `batch` must return unchanged images; `frame_of` maps a sample's number to its frame's.
        """

        def labelled_batch(numbers: range) -> tuple[Tensor, Tensor]:
            images, indices = batch(numbers)
            pictures = [_pixels(image * 255) for image in images]
            places = [i for i, number in enumerate(numbers) if frame_of(number) >= self._first]
            if places:
                indices = indices.clone()
                found = self._labels([pictures[i] for i in places])
                indices[places] = torch.from_numpy(np.stack(found)).to(indices)
            changed = [
                self._changed(picture, "sample", number)
                for picture, number in zip(pictures, numbers, strict=True)
            ]
            stacked = torch.from_numpy(np.stack(changed)).permute(0, 3, 1, 2)
            return stacked.contiguous().float() / 255, indices

        return labelled_batch

    def validate(self, model: nn.Module) -> Validation:
        """Score a model on the labelled frames, and measure the agreement on the held-out ones."""
        assert isinstance(model, CamSeg)
        figures, picture = self._source(model)
        classes = len(model.labels)
        counts, confusion = np.zeros((classes, _LEVELS), np.int64), Confusion(classes)
        for plain, confidence, disturbed in self._masks_of_held_out(model):
            level = np.minimum(confidence * _LEVELS, _LEVELS - 1).astype(np.int64)
            known = plain < classes
            places = plain[known].astype(np.int64) * _LEVELS + level[known]
            counts += np.bincount(places, minlength=counts.size).reshape(counts.shape)
            confusion.add(plain, disturbed)
        if self.measured:
            shown = self.measured[0].shown
        else:
            share = counts.sum(1) / max(1, counts.sum())
            shown = tuple(np.flatnonzero(share >= _COUNTS_FROM).tolist())
        thresholds = thresholds_of(counts, self._config)
        kept = sum(
            int(row[round(least * _LEVELS) :].sum())
            for row, least in zip(counts, thresholds, strict=True)
        )
        agreement = float(np.nan_to_num(confusion.iou())[[*shown]].mean()) if shown else 0.0
        labelled = kept / max(1, int(counts.sum()))
        self._found = TeacherMeasurement(0, agreement, figures["mIoU"], labelled, thresholds, shown)
        return {"agreement": agreement, "labelled": labelled, **figures}, picture

    def on_average(self, averaged: nn.Module) -> None:
        assert isinstance(averaged, CamSeg)
        self._average = averaged

    def on_train_begin(self, done: int, steps: int, samples_per_step: int) -> None:
        # a run that was killed between a validation and saving its state repeats both
        self.measured = [each for each in self.measured if each.step <= done]

    def on_train_end(self, done: int, reason: str) -> None:
        kept = self._weights(self.best()[0])
        for path in self._folder.glob("best-*.safetensors"):
            if path != kept:
                path.unlink()

    def on_validation_end(
        self, done: int, scores: Mapping[str, float], picture: Picture | None
    ) -> None:
        assert self._found is not None
        self.measured.append(replace(self._found, step=done))
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._average is not None and self.best()[0] == done:
            state = {
                name: tensor.detach().cpu().clone().contiguous()
                for name, tensor in self._average.state_dict().items()
            }
            save_tensors(state, self._weights(done))
        with atomic_write(self._folder / "agreement.json") as temporary:
            content = [asdict(each) for each in self.measured]
            text = json.dumps(content, indent=1, allow_nan=False) + "\n"
            temporary.write_text(text, encoding="utf-8")

    def has_enough(self) -> bool:
        return self.best()[1] >= self._config.patience

    def _labels(self, pictures: list[Pixels]) -> list[npt.NDArray[np.uint8]]:
        """Return class indices `(H, W)` of pictures of one size, 255 below the threshold."""
        assert self._average is not None
        height, width = pictures[0].shape[:2]
        segmenter = _segmenter(self._average, height * width)
        least = np.full(_LEVELS, np.inf, np.float32)
        least[: len(self._average.labels)] = self.measured[-1].thresholds
        table = index_table(self._average.labels)
        labels = []
        for found in segmenter.segment_batch(pictures):
            index = table[found.mask]
            labels.append(np.where(found.confidence >= least[index], index, np.uint8(UNLABELLED)))
        return labels

    def _masks_of_held_out(
        self, model: CamSeg
    ) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32], npt.NDArray[np.uint8]]]:
        """Yield class indices and confidence of each undisturbed frame, and indices disturbed."""
        segmenter, table = _segmenter(model), index_table(model.labels)
        for number, (image, _) in enumerate(self._held_out):
            picture = _pixels(image)
            plain = segmenter.segment(picture)
            # the name is part of the seed: another one would change runs that can be repeated
            disturbed = segmenter.segment(self._changed(picture, "watched", number))
            yield table[plain.mask], plain.confidence, table[disturbed.mask]

    def _changed(self, picture: Pixels, kind: str, number: int) -> Pixels:
        rng = np.random.default_rng(seed_of(self._seed, kind, number))
        for change in self._changes:
            picture = change(picture, rng)
        return picture


def thresholds_of(counts: npt.NDArray[np.int64], config: Teaching) -> tuple[float, ...]:
    """Return, by class, the confidence from which pixels get a label.

    `counts` `(K, levels)` are pixels by class and level of confidence.
    """
    levels = counts.shape[1]
    above = counts[:, ::-1].cumsum(1)[:, ::-1]  # pixels of a level or a higher one
    enough = above >= np.maximum(config.class_share * counts.sum(1, keepdims=True), 1)
    # the highest level with enough of them
    highest = enough.sum(1) - 1
    found = np.where(highest < 0, config.confidence_threshold, highest / levels)
    return tuple(
        float(each) for each in found.clip(config.min_confidence, config.confidence_threshold)
    )


def _refuse(path: Path, found: str) -> None:
    raise CamSegError(
        f"{path} must hold scores, got {found}, of an older version on val frames without labels: "
        "choose another --run"
    )


def _segmenter(model: CamSeg, pixels: int | None = None) -> Segmenter:
    """Return the model with one step, at its own size or for pictures of `pixels` pixels."""
    config = model.config if pixels is None else model.config.without_scaling(pixels)
    return Segmenter(config, model.labels, TorchEngine(model, "bf16"), Sampling("one_step"))


def _pixels(image: Tensor) -> Pixels:
    """Return an image `(3, H, W)` of values to 255 as RGB `(H, W, 3)` uint8."""
    plane = image.round() if image.is_floating_point() else image
    return np.ascontiguousarray(plane.to(torch.uint8).permute(1, 2, 0).numpy())
