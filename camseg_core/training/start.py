"""A trained model as the start of another training: its weights for other classes."""

import difflib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from camseg_core.data.label_table import LabelTable, related
from camseg_core.errors import ConfigError
from camseg_core.groups import ScoredLabels
from camseg_core.labels import Label, plain_name
from camseg_core.long_runs import atomic_write
from camseg_core.model.camseg import CamSeg
from camseg_core.runtime.origin import WEIGHTS, fingerprint
from camseg_core.training.distributed import Processes

_OF_ITS_OWN = 0.2
"""Share of fresh weights in each part of a class that was split, so that the parts can differ."""


@dataclass(frozen=True)
class ClassChanges:
    """How the classes of a model map to those of a table.

    Attributes:
        old: the model's classes.
        new: the table's classes.
        origins: the places in `old` that each of `new` comes from; none for a new class.
    """

    old: tuple[Label, ...]
    new: tuple[Label, ...]
    origins: tuple[tuple[int, ...], ...]

    @staticmethod
    def of(old: Sequence[Label], table: LabelTable) -> "ClassChanges":
        """Map the classes `old` to those of `table`, see `related`."""
        return ClassChanges(tuple(old), table.labels, related(old, table.labels))

    @property
    def parts(self) -> dict[int, list[int]]:
        """The places in `new` that come from each place in `old`."""
        return {
            i: [k for k, origin in enumerate(self.origins) if i in origin]
            for i in range(len(self.old))
        }

    @property
    def kept(self) -> tuple[int, ...]:
        """The places in `new` that start as a class of `old` from which no other class comes."""
        parts = self.parts
        return tuple(
            k for k, origin in enumerate(self.origins) if origin and parts[origin[0]] == [k]
        )

    @property
    def same(self) -> bool:
        """Whether the classes are the same, in the same order."""
        return self.origins == tuple((i,) for i in range(len(self.old)))

    def lines(self) -> list[str]:
        """Return what is kept, new, merged, split and dropped, a line each."""
        before, after = ([each.name for each in labels] for labels in (self.old, self.new))
        parts = self.parts
        kept = [after[k] for k in self.kept if len(self.origins[k]) == 1]
        merged = [
            f"{after[k]} from {' and '.join(before[i] for i in origin)}"
            for k, origin in enumerate(self.origins)
            if len(origin) > 1
        ]
        split = [
            f"{before[i]} into {' and '.join(after[k] for k in new)}"
            for i, new in parts.items()
            if len(new) > 1
        ]
        texts = {
            "kept": kept,
            "new": [after[k] for k, origin in enumerate(self.origins) if not origin],
            "merged": merged,
            "split": split,
            "dropped": [before[i] for i, new in parts.items() if not new],
        }
        return [f"{what} ({len(each)}): {', '.join(each)}" for what, each in texts.items() if each]

    def scored(self, new: ScoredLabels) -> ScoredLabels:
        """Return the labels that the new model is scored against, for masks of the old one.

        An old class that was split counts as whichever of its parts the pixel has.
        """
        ids = {
            label.id: [self.old[i].id for i in origin]
            for label, origin in zip(self.new, self.origins, strict=True)
        }
        classes = tuple(
            tuple(dict.fromkeys(i for id in members for i in ids.get(id, ())))
            for members in new.classes
        )
        return ScoredLabels(new.labels, classes, new.truth, new.own)


def adapted(start: CamSeg, table: LabelTable) -> CamSeg:
    """Return a copy of the model `start` with the classes of `table`.

    All weights are kept except class-specific ones in the mask autoencoder. A merged class starts
    as the first class that it comes from, the parts of a split class nearly as that class, and a
    new class with weights from torch's global generator.

    Raises:
        ConfigError: no class is left, or `start` draws masks as pictures and would need others.
    """
    changes = ClassChanges.of(start.labels, table)
    if not any(changes.origins):
        names = ", ".join(label.name for label in start.labels)
        raise ConfigError(
            f"at least one class must come from a class of {start.config.name} ({names}): say in "
            "labels.yaml what each class was, or train without --from"
        )
    config, state = start.config, start.state_dict()
    if start.mask_autoencoder is None:
        if not changes.same:
            raise ConfigError(
                f"the classes must be those of {config.name}, which draws masks as colour "
                f"images; {'; '.join(changes.lines())}"
            )
        model = CamSeg(config, table.labels)
    else:
        codec = replace(start.mask_autoencoder.config, classes=len(table.labels))
        model = CamSeg(replace(config, mask_autoencoder=codec), table.labels)
        assert model.mask_autoencoder is not None
        fresh = model.state_dict()
        for name, axis in model.mask_autoencoder.class_tensors().items():
            name = f"mask_autoencoder.{name}"
            state[name] = _for_classes(state[name], fresh[name], axis, changes)
    model.load_state_dict(state)
    return model.eval()


def _for_classes(
    old: torch.Tensor, fresh: torch.Tensor, axis: int, changes: ClassChanges
) -> torch.Tensor:
    """Return the tensor of the new classes, from the old ones' and fresh weights."""
    before, after = (
        each.clone().unflatten(axis, (-1, 4)).movedim(axis, 0) for each in (old, fresh)
    )
    for k, origin in enumerate(changes.origins):
        if origin:
            own = 0.0 if k in changes.kept else _OF_ITS_OWN
            after[k] = torch.lerp(before[origin[0]], after[k], own)
    return after.movedim(0, axis).flatten(axis, axis + 1).contiguous()


def check_origins(table: LabelTable, *known: Sequence[Label]) -> None:
    """Check that the classes of `table` come from classes that a model or a data set has.

    The first of `known` are the model's, whose own origins count, too.

    Raises:
        ConfigError: `was` names an unknown class; the message suggests the nearest.
    """
    models = [name for labels in known[:1] for label in labels for name in label.was or ()]
    names = [*dict.fromkeys([*(each.name for labels in known for each in labels), *models])]
    plain = {*map(plain_name, names)}
    for name in (name for each in table.classes for name in each.was or ()):
        if plain_name(name) not in plain:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "correct it"
            raise ConfigError(
                "was in labels.yaml must name classes of the model, of a data set or of "
                f"Cityscapes, got {name!r}: {hint}"
            )


def check_start(start: Path, out: Path) -> None:
    """Check that the result does not replace the model that it is compared with.

    Raises:
        ConfigError: both are the same folder.
    """
    if os.path.realpath(start) == os.path.realpath(out):
        raise ConfigError(f"--out must not be the folder of the model to start from, {start}")


def require_mask_autoencoder(model: CamSeg, to_be: str) -> None:
    """Check that a model can be "adapted" or "distilled", as `to_be` says.

    Raises:
        ConfigError: it has no mask autoencoder.
    """
    if model.mask_autoencoder is None:
        raise ConfigError(
            f"only models with a mask autoencoder can be {to_be}, and {model.config.name} decodes "
            "masks as colour images"
        )


def keep_start(start: Path | None, run: Path, processes: Processes, kind: str = "start") -> None:
    """Write a fingerprint of the start weights, or check them against the one already there.

    With the kind `autoencoder`, those of a trained autoencoder; None if the run trains its own.

    Raises:
        ConfigError: the run was started from other weights.
    """
    path = run / f"{kind}.json"
    now = {
        "model": None if start is None else start.name,
        "fingerprint": None if start is None else fingerprint(start / WEIGHTS),
    }
    known = path.is_file()
    if known and json.loads(path.read_text(encoding="utf-8"))["fingerprint"] != now["fingerprint"]:
        what = "the model to start from" if kind == "start" else "--autoencoder"
        got = "none" if start is None else f"other weights in {start}"
        raise ConfigError(
            f"{what} must be that of {run}, got {got}: restore it, or choose another --run"
        )
    processes.wait()  # no process writes while another reads
    if processes.is_main_process and not known:
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(now) + "\n", encoding="utf-8")
