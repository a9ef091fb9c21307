"""What the labels of a set of one's own mean: a YAML file of ids or colours by class."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from camseg_core.data.label_files import Color, ColorLabels, IdLabels, LabelDecoder
from camseg_core.errors import ConfigError
from camseg_core.labels import (
    CITYSCAPES,
    STORED_TRAIN_IDS,
    TRAIN_ID,
    UNLABELLED,
    Label,
    cityscapes_labels,
)

UNLABELLED_NAME = "unlabelled"


@dataclass(frozen=True)
class ClassMapping:
    """Either `ids` or `colors` (RGB) of label files by the Cityscapes class that they stand for, or `unlabelled`.

    `others` says what is done with a value that is not listed: the file is refused, or such pixels are unlabelled.
    """

    ids: Mapping[str, tuple[int, ...]] | None = None
    colors: Mapping[str, tuple[Color, ...]] | None = None
    others: Literal["refused", "unlabelled"] = "refused"

    def __post_init__(self) -> None:
        if (self.ids is None) == (self.colors is None):
            raise ConfigError(
                "the mapping has either ids: or colors:, each a list by class, as in ids: {road: [7], car: [26, 27]}"
            )
        owner: dict[object, str] = {}
        for name, values in self._values().items():
            if name not in TRAIN_ID and name != UNLABELLED_NAME:
                raise ConfigError(
                    f"unknown class {name!r}: choose from {', '.join([*TRAIN_ID, UNLABELLED_NAME])}"
                )
            for value in values:
                numbers, most = (value, 255) if isinstance(value, tuple) else ((value,), 65535)
                if not all(0 <= number <= most for number in numbers):
                    raise ConfigError(f"{_text(value)} of {name} is out of range: 0 to {most}")
                if owner.setdefault(value, name) != name:
                    raise ConfigError(
                        f"{_text(value)} is listed for {owner[value]} and for {name}: a value means one class"
                    )

    def _values(self) -> Mapping[str, tuple[int | Color, ...]]:
        return self.ids if self.ids is not None else self.colors or {}

    def labels(self) -> tuple[Label, ...]:
        """The classes that it names, by train id."""
        return cityscapes_labels(
            sorted(TRAIN_ID[name] for name in self._values() if name != UNLABELLED_NAME)
        )

    def decoder(self, whose: str) -> LabelDecoder:
        """Reads labels by it; `whose` it is, is for messages."""
        others = UNLABELLED if self.others == "unlabelled" else None
        if self.ids is not None:
            ids = {
                value: TRAIN_ID.get(name, UNLABELLED)
                for name, values in self.ids.items()
                for value in values
            }
            return IdLabels(ids, whose, ", ".join(map(str, sorted(ids))), others)
        colors = {
            value: TRAIN_ID.get(name, UNLABELLED)
            for name, values in (self.colors or {}).items()
            for value in values
        }
        return ColorLabels(colors, whose, others)


def labels_and_decoder(
    mapping: Path | None, beside: Path
) -> tuple[tuple[Label, ...], LabelDecoder]:
    """The classes and the reader of labels that mean what the file `mapping` says, or else the file `beside` if there is one, or else
    Cityscapes train ids.

    Raises:
        ConfigError: the file cannot be read, or is no mapping.
    """
    path = mapping if mapping is not None or not beside.is_file() else beside
    if path is None:
        ids = f"0 to {len(CITYSCAPES) - 1}, and {UNLABELLED} for unlabelled; other ids, or colours, are explained by --mapping FILE"
        return CITYSCAPES, IdLabels(STORED_TRAIN_IDS, "a set of Cityscapes train ids", ids)
    from camseg_core.config.yaml_file import (
        load_yaml,  # late: it needs yaml, which machines that only segment do not have
    )

    read = load_yaml(path, ClassMapping)
    return read.labels(), read.decoder(str(path))


def _text(value: int | Color) -> str:
    return str(value) if isinstance(value, int) else f"the colour {value}"
