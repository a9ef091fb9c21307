"""Inputs and records of a run: its data and its configuration."""

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from camseg_core.config.backbone import SIZE_MULTIPLE
from camseg_core.config.differences import differences
from camseg_core.config.yaml_file import load_yaml, to_yaml
from camseg_core.data.folders import more
from camseg_core.data.label_table import LabelTable, is_cityscapes, translation
from camseg_core.data.sets import LabelledSet
from camseg_core.errors import ConfigError, DataError, camseg_command
from camseg_core.groups import joint_groups
from camseg_core.labels import Label
from camseg_core.long_runs import atomic_write
from camseg_core.training.distributed import Processes
from camseg_core.training.frames import Frames
from camseg_core.training.joined import (
    Data,
    OpenedSet,
    load_frames,
    open_data,
    table_of,
)
from camseg_core.training.kl_autoencoder import PictureAutoencoderTraining
from camseg_core.training.light_decoder import LightDecoderTraining
from camseg_core.training.mask_autoencoder import AutoencoderTraining
from camseg_core.training.transformer import TransformerTraining

logger = logging.getLogger(__name__)

Training = (
    AutoencoderTraining | PictureAutoencoderTraining | LightDecoderTraining | TransformerTraining
)


@dataclass(frozen=True)
class TrainingData:
    """The splits `train` and `val` of one or several sets: as opened, and as frames.

    `labels` are the classes of the frames' indices. Sets of weight 0 are in `val` alone.
    """

    train_sets: tuple[OpenedSet, ...]
    val_sets: tuple[OpenedSet, ...]
    train: Frames
    val: Frames
    labels: tuple[Label, ...]

    @staticmethod
    def load(
        data: Data,
        root: Path,
        labels: tuple[Label, ...] | None = None,
        table: LabelTable | None = None,
    ) -> "TrainingData":
        """Open the sets of `data` in the folder `root` for a model with the classes `labels`.

        By default these are the classes of `table`, to whose ids the sets are mapped, or else the
        data's.

        Raises:
            ConfigError: there is no such kind of data set, or a mapping cannot be used.
            DataError: a split is missing or empty, a file cannot be read, or a set's split has no
                pixel of one of the classes.
        """
        train, val = (tuple(open_data(data, root, split)) for split in ("train", "val"))
        _warn_of_shared(train, val)
        own = any(each.found.table is not None for each in (*train, *val))
        known = {label.id for label in labels or ()}
        lacking = labels is not None and any(_ids_of(each.found) - known for each in (*train, *val))
        if table is None and (own or lacking or not is_cityscapes(labels or ())):
            table = LabelTable.of(labels) if labels else table_of(data, [*train, *val])
        labels = labels or (table or table_of(data, [*train, *val])).labels
        if len(labels) < 2:
            raise ConfigError(
                "a model must have at least two classes, got only "
                f"{' and '.join(label.name for label in labels) or 'none'}: every pixel of every "
                "image would get it, as unlabelled pixels teach nothing; label the rest as another"
            )
        opened = (*train, *val)
        if table is not None:
            train, val = _in_table(train, table), _in_table(val, table)
        _warn_of_lost(opened, table or LabelTable.of(labels))
        groups = joint_groups(labels, *(each.found.groups for each in (*train, *val)))
        found = TrainingData(
            train,
            val,
            load_frames(train, labels, groups),
            load_frames(val, labels, groups),
            labels,
        )
        for split, frames in (("train", found.train), ("val", found.val)):
            _require_labels(split, frames)
        return found


def _ids_of(found: LabelledSet) -> set[int]:
    """Return the ids of the classes of a set and of its groups."""
    return {label.id for label in found.labels} | {
        id for group in found.groups for id in group.train_ids
    }


def _warn_of_shared(train: Sequence[OpenedSet], val: Sequence[OpenedSet]) -> None:
    """Log a warning if frames to validate on are trained on."""
    learnt = {os.path.realpath(pair.image) for each in train for pair in each.found.pairs}
    pairs = [pair for each in val for pair in each.found.pairs]
    shared = [pair.image for pair in pairs if os.path.realpath(pair.image) in learnt]
    if shared:
        logger.warning(
            "%s%s is in val and in train: scores on val will be optimistic; keep each frame in one "
            "split",
            shared[0],
            more(shared),
        )


def _warn_of_lost(sets: Sequence[OpenedSet], table: LabelTable) -> None:
    """Log a warning for each set with classes that become unlabelled, as `table` lacks them."""
    lost: dict[str, dict[str, None]] = {}
    for name, found, _ in sets:
        meant = translation(found.labels, found.groups, found.vocabulary, table)
        lost.setdefault(name, {}).update(dict.fromkeys(each.name for each in meant.lost))
    for name, classes in lost.items():
        if classes:
            logger.warning(
                "data set %s has classes that the model lacks, and their pixels count as "
                "unlabelled: %s; to learn them, name a class table that has them (classes), or say "
                "in labels.yaml what each was",
                name,
                ", ".join(classes),
            )


def _in_table(sets: Sequence[OpenedSet], table: LabelTable) -> tuple[OpenedSet, ...]:
    """Return the sets with the ids of `table`, see `LabelledSet.in_table`.

    Raises:
        ConfigError: a set has no class of the table.
    """
    found = tuple(each._replace(found=each.found.in_table(table)) for each in sets)
    for before, each in zip(sets, found, strict=True):
        if not each.found.labels and not each.found.groups:
            names, wanted = (
                ", ".join(label.name for label in labels)
                for labels in (before.found.labels, table.labels)
            )
            raise ConfigError(
                f"data set {each.name} must have one of the model's classes ({wanted}), got "
                f"{names}: say in labels.yaml what each class was"
            )
    return found


def check_batch(training: Training, processes: Processes) -> None:
    """Check that the processes can share a batch, and that their shares can be normalised.

    Raises:
        ConfigError: they cannot share it evenly, or a share has a single cell at the coarsest
            stride, of which batch norm has no variance.
    """
    share = processes.samples(0, training.batch, parts=training.loop.grad_accum_steps)
    if isinstance(training, TransformerTraining):
        height, width = (side // SIZE_MULTIPLE for side in training.crop)
        if 0 < len(share) * height * width < 2:
            raise ConfigError(
                f"crop must be larger than {SIZE_MULTIPLE}×{SIZE_MULTIPLE} pixels for one sample "
                f"at a time, got {list(training.crop)}: raise crop or batch"
            )


def keep_config(recipe: Any, run: Path, processes: Processes) -> None:
    """Write the configuration to the run folder, or check that it is the one already there.

    Entries that an older file lacks have their defaults. Of files that say what labels mean, only
    the name is compared: another checkout has them elsewhere, and `keep_data` compares the labels.

    Raises:
        ConfigError: the run was started with another configuration, or the processes do not see
            the same folder.
    """
    processes.check_shared(run)
    path = run / "config.yaml"
    known = path.is_file()
    if known and (found := _differences(path, recipe)):
        raise ConfigError(
            f"{path} differs from the configuration given: {found}; use the one that the run "
            "was started with, or another --run"
        )
    processes.wait()  # no process writes while another reads
    if processes.is_main_process and not known:
        run.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_text(to_yaml(recipe), encoding="utf-8")


def keep_data(data: TrainingData, run: Path, processes: Processes) -> None:
    """Write a record of the frames to the run folder, or check them against the record there.

    A folder from an older version, without the file, gets it.

    Raises:
        ConfigError: the run was started with other frames.
    """
    path = run / "data.json"
    now = {
        split: {
            part.name: {
                "frames": len(part.frames),
                "fingerprint": part.frames.fingerprint().hex(),
                "classes": [each.name for each in part.frames.labels],
                "was": [each.was and list(each.was) for each in part.frames.labels],
                "groups": [[*each.train_ids] for each in part.frames.groups],
            }
            for part in frames.parts()
        }
        for split, frames in (("train", data.train), ("val", data.val))
    }
    known = path.is_file()
    if known:
        before = json.loads(path.read_text(encoding="utf-8"))
        for split, parts in now.items():
            for name, found in parts.items():
                was = before.get(split, {}).get(name)
                if was is None or found | was != found:  # an older version wrote less
                    of = f" of {name}" if name else ""
                    then = "none" if was is None else was["frames"]
                    raise ConfigError(
                        f"the frames of {split}{of} must be those that {run} was started with: "
                        f"{then} then, {found['frames']} now; names, pixels, labels or "
                        "their meaning differ: restore them, or choose another --run"
                    )
    processes.wait()  # no process writes while another reads
    if processes.is_main_process and not known:
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")


def _require_labels(split: str, frames: Frames) -> None:
    """Raise DataError if one of the sets of a split has no pixel to learn from, or to score.

    Single frames without one are logged.
    """
    classes = len(frames.labels) + len(frames.groups)
    for part in frames.parts():
        count, pixels = len(part.frames), part.frames.pixels_by_frame()[:, :classes]
        empty = count - int(np.count_nonzero(pixels.sum(1)))
        which = f"frames of {split}" + (f" of {part.name}" if part.name else "")
        if empty == count:
            names = ", ".join(label.name for label in frames.labels)
            raise DataError(
                f"no pixel of the {count} {which} has one of the model's classes "
                f"({names}): look at the labels with {camseg_command()} data check"
            )
        if empty:
            logger.warning(
                "%d of the %d %s have no labelled pixel and count nowhere; %s data check names "
                "them",
                empty,
                count,
                which,
                camseg_command(),
            )


def _differences(path: Path, recipe: Any) -> str:
    """Return in words how the configuration in a file differs from `recipe`; "" if it does not."""
    try:
        before = load_yaml(path, type(recipe))
    except ConfigError as error:
        return str(error)
    return differences(before, recipe)
