"""Masks as published and shown: groups of classes, disabled classes, colours."""

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

from camseg_core.errors import ConfigError, ImageError
from camseg_core.labels import TRAIN_ID, UNLABELLED, Label, color_table

Pixels = npt.NDArray[np.uint8]

_CITYSCAPES = color_table()

MISSPELT = 0.8
"""Similarity, 0 to 1, from which an unknown name counts as a misspelt class of the model."""


@dataclass(frozen=True, eq=False)
class ClassTable:
    """Maps the ids of a model's masks to the published ones.

    `labels` are the published classes, in the model's order; `lookup` `(256,)` is the published id
    by the model's, `UNLABELLED` for a class that is left out. Other ids stay as they are. `skipped`
    has one sentence for each requested name that the model lacks.
    """

    labels: tuple[Label, ...]
    lookup: Pixels
    skipped: tuple[str, ...] = ()

    @staticmethod
    def of(
        labels: Sequence[Label], groups: Sequence[str] = (), enabled: Sequence[str] = ()
    ) -> "ClassTable":
        """Make the table of a model's `labels`, with groups, and only the `enabled` names.

        Args:
            labels: the model's classes.
            groups: `"NAME = class, class"` or `"NAME:ID = class, class"` each. A group has the
                colour, the place and, if no ID is given, the id of the first class it lists. Those
                that the model lacks are skipped.
            enabled: names of classes and groups; empty means all. Those that the model lacks are
                skipped.

        Raises:
            ConfigError: a group is not of that form, a name is misspelt, the model has no class of
                a group or of `enabled`, a class is in two groups, or two names or ids are equal.
        """
        by_name = {label.name: label for label in labels}
        group_of: dict[str, Label] = {}
        skipped: list[str] = []
        for text in groups:
            group, members = _read_group(text, by_name, skipped)
            for name in members:
                if name in group_of:
                    raise ConfigError(
                        f"class {name!r} must be in at most one group, found again in {text!r}"
                    )
                group_of[name] = group
        result = tuple(dict.fromkeys(group_of.get(label.name, label) for label in labels))
        kept = {label.name for label in result}
        if enabled:
            kept = set(_of_model(enabled, kept, "enabled", skipped))
        shown = tuple(label for label in result if label.name in kept)
        _refuse_equal_names(result)
        _refuse_equal_ids(shown)
        lookup = np.arange(256, dtype=np.uint8)
        for label in labels:
            wanted = group_of.get(label.name, label)
            lookup[label.id] = wanted.id if wanted.name in kept else UNLABELLED
        return ClassTable(shown, lookup, tuple(skipped))

    @cached_property
    def is_identity(self) -> bool:
        """Whether masks stay as they are."""
        return bool((self.lookup == np.arange(256)).all())

    @cached_property
    def colors(self) -> Pixels:
        """RGB by published id, `(256, 3)`, for `colorize` and `overlay`."""
        return color_table(self.labels)

    def apply(self, mask: Pixels) -> Pixels:
        """Map the model's ids `(H, W)`; returns the same array if nothing changes."""
        return mask if self.is_identity else np.asarray(cv2.LUT(mask, self.lookup), np.uint8)


def _read_group(
    text: str, by_name: Mapping[str, Label], skipped: list[str]
) -> tuple[Label, list[str]]:
    """Read a group and the names of its classes from `NAME[:ID] = class, class`."""
    head, equals, tail = text.partition("=")
    name, colon, number = (part.strip() for part in head.partition(":"))
    members = [member.strip() for member in tail.split(",")]
    if not (name and equals and all(members)):
        raise ConfigError(
            f"group {text!r} must be NAME = CLASS, CLASS or NAME:ID = CLASS, CLASS, "
            "as in 'flat:100 = road, sidewalk'"
        )
    members = _of_model(members, by_name, f"group {text!r}", skipped)
    first = by_name[members[0]]
    if not colon:
        return replace(first, name=name), members
    if not (number.isascii() and number.isdecimal() and int(number) < UNLABELLED):
        raise ConfigError(
            f"the id of a group must be 0 to {UNLABELLED - 1}, got {number!r} in {text!r}"
        )
    return replace(first, name=name, id=int(number)), members


def _of_model(
    wanted: Sequence[str], names: Collection[str], place: str, skipped: list[str]
) -> list[str]:
    """Return those of `wanted` that are in `names`; add a sentence to `skipped` for the others.

    Raises:
        ConfigError: none of them is in `names`, or one is misspelt.
    """
    lacking = [name for name in wanted if name not in names]
    for name in lacking:
        close = difflib.get_close_matches(name, sorted(names), n=1)
        alike = difflib.SequenceMatcher(None, name, close[0]).ratio() if close else 0.0
        misspelt = alike >= MISSPELT and name not in TRAIN_ID
        if misspelt or len(lacking) == len(wanted):
            hint = f"did you mean {close[0]!r}? " if close else ""
            known = ", ".join(sorted(names))
            raise ConfigError(f"unknown class {name!r} in {place}: {hint}choose from {known}")
        skipped.append(f"class {name!r} in {place} is skipped: the model has no such class")
    return [name for name in wanted if name in names]


def _refuse_equal_names(labels: Sequence[Label]) -> None:
    names: set[str] = set()
    for label in labels:
        if label.name in names:
            raise ConfigError(
                f"two classes or groups are called {label.name!r}; give the group another name"
            )
        names.add(label.name)


def _refuse_equal_ids(labels: Sequence[Label]) -> None:
    by_id: dict[int, Label] = {}
    for label in labels:
        other = by_id.setdefault(label.id, label)
        if other is not label:
            raise ConfigError(
                f"{other.name!r} and {label.name!r} both have the id {label.id}; "
                "give the group another, as in NAME:ID = ..."
            )


def colorize(mask: Pixels, colors: Pixels = _CITYSCAPES) -> Pixels:
    """Colour the mask `(H, W)` by class, RGB `(H, W, 3)`; unlabelled pixels are black.

    `colors` is RGB by id, `(256, 3)`, such as `color_table()`; Cityscapes' by default.
    """
    return np.asarray(cv2.LUT(cv2.cvtColor(mask, cv2.COLOR_GRAY2RGB), colors[None]), np.uint8)


def overlay(rgb: Pixels, mask: Pixels, opacity: float, colors: Pixels = _CITYSCAPES) -> Pixels:
    """Blend the colours of `mask` `(H, W)` over `rgb` `(H, W, 3)`, except where unlabelled.

    Args:
        rgb: the camera's picture, left unchanged; see `View.picture` for masks at network size.
        mask: class ids, 255 where unlabelled.
        opacity: from 0 (the camera's picture) to 1 (the colours alone).
        colors: see `colorize`.

    Raises:
        ImageError: the sizes differ.
    """
    if rgb.shape[:2] != mask.shape:
        raise ImageError(
            f"mask and image must have the same size, got {mask.shape[1]}x{mask.shape[0]} "
            f"and {rgb.shape[1]}x{rgb.shape[0]}"
        )
    blended = cv2.addWeighted(colorize(mask, colors), opacity, rgb, 1.0 - opacity, 0.0)
    return np.asarray(cv2.copyTo(rgb, (mask == UNLABELLED).view(np.uint8), blended), np.uint8)
