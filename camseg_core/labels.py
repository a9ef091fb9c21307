"""Class tables: ids, names, colours, and the mappings between label sets."""

import json
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from camseg_core.errors import ConfigError, ModelError

UNLABELLED = 255
"""The id of a pixel without a class, in every mask that leaves the project."""

UNLABELLED_NAME = "unlabelled"
"""Stands for pixels without a class where others are named."""


@dataclass(frozen=True)
class Label:
    """One class: `id` is the Cityscapes train id or that of another table, `color` its RGB.

    `was` are the classes of other tables that it comes from; None stands for that of its name.
    """

    id: int
    name: str
    color: tuple[int, int, int]
    was: tuple[str, ...] | None = field(default=None, compare=False, kw_only=True)


CITYSCAPES: tuple[Label, ...] = tuple(
    Label(i, name, color)
    for i, (name, color) in enumerate(
        [
            ("road", (128, 64, 128)),
            ("sidewalk", (244, 35, 232)),
            ("building", (70, 70, 70)),
            ("wall", (102, 102, 156)),
            ("fence", (190, 153, 153)),
            ("pole", (153, 153, 153)),
            ("traffic light", (250, 170, 30)),
            ("traffic sign", (220, 220, 0)),
            ("vegetation", (107, 142, 35)),
            ("terrain", (152, 251, 152)),
            ("sky", (70, 130, 180)),
            ("person", (220, 20, 60)),
            ("rider", (255, 0, 0)),
            ("car", (0, 0, 142)),
            ("truck", (0, 0, 70)),
            ("bus", (0, 60, 100)),
            ("train", (0, 80, 100)),
            ("motorcycle", (0, 0, 230)),
            ("bicycle", (119, 11, 32)),
        ]
    )
)
"""The 19 Cityscapes train classes, in the order of their train ids."""

TRAIN_ID: dict[str, int] = {label.name: label.id for label in CITYSCAPES}


STORED_TRAIN_IDS: dict[int, int] = {
    **{label.id: label.id for label in CITYSCAPES},
    UNLABELLED: UNLABELLED,
}
"""Train id by id, for files that store train ids, such as KITTI-STEP's."""


@dataclass(frozen=True)
class LabelId:
    """A raw Cityscapes label: `id` as in `*_labelIds.png`; `train_id` is 255 if not scored."""

    id: int
    name: str
    train_id: int
    category: str


_CATEGORIES = {
    "void": "unlabeled, ego vehicle, rectification border, out of roi, static, dynamic, ground",
    "flat": "road, sidewalk, parking, rail track",
    "construction": "building, wall, fence, guard rail, bridge, tunnel",
    "object": "pole, polegroup, traffic light, traffic sign",
    "nature": "vegetation, terrain",
    "sky": "sky",
    "human": "person, rider",
    "vehicle": "car, truck, bus, caravan, trailer, train, motorcycle, bicycle",
}

CITYSCAPES_LABEL_IDS: tuple[LabelId, ...] = tuple(
    LabelId(i, name, TRAIN_ID.get(name, UNLABELLED), category)
    for i, (name, category) in enumerate(
        (name, category) for category, names in _CATEGORIES.items() for name in names.split(", ")
    )
)
"""Cityscapes' 34 labels by id (arXiv 1604.01685); ACDC and CAD-EdgeTune have the same.

The 35th, license plate, has the id -1 and is in no file."""

TRAIN_ID_OF_LABEL_ID: dict[int, int] = {label.id: label.train_id for label in CITYSCAPES_LABEL_IDS}

LABEL_ID_OF_TRAIN_ID: dict[int, int] = {
    label.train_id: label.id for label in CITYSCAPES_LABEL_IDS if label.train_id != UNLABELLED
}
"""The inverse for the 19 classes, as results are submitted; anything else is unlabeled, 0."""

CITYSCAPES_CATEGORIES: dict[str, tuple[int, ...]] = {
    category: tuple(TRAIN_ID[name] for name in names.split(", ") if name in TRAIN_ID)
    for category, names in _CATEGORIES.items()
    if category != "void"
}
"""Train ids by category, without void."""

CAMVID_11: tuple[tuple[str, str], ...] = (
    ("sky", "sky"),
    ("building", "building"),
    ("pole", "pole"),
    ("road", "road"),
    ("sidewalk", "sidewalk"),
    ("vegetation", "vegetation"),
    ("traffic sign", "traffic sign"),
    ("fence", "fence"),
    ("car", "car"),
    ("person", "person"),
    ("bicyclist", "rider"),
)
"""CamVid's 11 classes by id, each with the Cityscapes class that it maps to (id 11 is void)."""

CAMVID_11_ALSO: dict[str, tuple[str, ...]] = {
    "building": ("wall",),
    "vegetation": ("terrain",),
    "traffic sign": ("traffic light",),
    "car": ("truck", "bus", "train"),
    "rider": ("motorcycle", "bicycle"),
}
"""The other Cityscapes classes that CamVid's 11 classes include, by the one that they map to.

This is the usual way from CamVid's 32 classes to 11: walls are buildings, grass and bushes trees,
traffic lights signs, trucks, buses and trains cars, and what cyclists ride is part of them.
"""

CAMVID_11_TRAIN_IDS: tuple[int, ...] = tuple(TRAIN_ID[target] for _, target in CAMVID_11)

CAMVID_32: tuple[tuple[str, tuple[int, int, int], str | None], ...] = (
    ("Animal", (64, 128, 64), None),
    ("Archway", (192, 0, 128), "building"),
    ("Bicyclist", (0, 128, 192), "rider"),
    ("Bridge", (0, 128, 64), None),
    ("Building", (128, 0, 0), "building"),
    ("Car", (64, 0, 128), "car"),
    ("CartLuggagePram", (64, 0, 192), None),
    ("Child", (192, 128, 64), "person"),
    ("Column_Pole", (192, 192, 128), "pole"),
    ("Fence", (64, 64, 128), "fence"),
    ("LaneMkgsDriv", (128, 0, 192), "road"),
    ("LaneMkgsNonDriv", (192, 0, 64), "road"),
    ("Misc_Text", (128, 128, 64), None),
    ("MotorcycleScooter", (192, 0, 192), "motorcycle"),
    ("OtherMoving", (128, 64, 64), None),
    ("ParkingBlock", (64, 192, 128), None),
    ("Pedestrian", (64, 64, 0), "person"),
    ("Road", (128, 64, 128), "road"),
    ("RoadShoulder", (128, 128, 192), None),
    ("Sidewalk", (0, 0, 192), "sidewalk"),
    ("SignSymbol", (192, 128, 128), "traffic sign"),
    ("Sky", (128, 128, 128), "sky"),
    ("SUVPickupTruck", (64, 128, 192), "car"),
    ("TrafficCone", (0, 0, 64), None),
    ("TrafficLight", (0, 64, 64), "traffic light"),
    ("Train", (192, 64, 128), "train"),
    ("Tree", (128, 128, 0), "vegetation"),
    ("Truck_Bus", (192, 128, 192), None),  # two classes of Cityscapes
    ("Tunnel", (64, 0, 64), None),
    ("VegetationMisc", (192, 192, 0), "vegetation"),
    ("Void", (0, 0, 0), None),
    ("Wall", (64, 192, 0), "wall"),
)
"""CamVid's 32 original classes (Brostow et al. 2009): name, colour, equal Cityscapes class or None.

Finer than `CAMVID_11`, which counts traffic lights as signs, walls as buildings, trucks as cars.
"""

CAMVID_32_TRAIN_IDS: tuple[int, ...] = tuple(
    sorted({TRAIN_ID[target] for _, _, target in CAMVID_32 if target is not None})
)

UNLABELLED_COLOR = (0, 0, 0)

PUBLISHED_PALETTE: tuple[tuple[int, int, int], ...] = (
    UNLABELLED_COLOR,
    *((0, 130, 180) if label.name == "sky" else label.color for label in CITYSCAPES),
)
"""Mask colours of the published weights: unlabelled, then the 19 classes; sky is their own."""


def cityscapes_labels(train_ids: Sequence[int]) -> tuple[Label, ...]:
    """Return the Cityscapes classes with these train ids, in this order."""
    return tuple(CITYSCAPES[i] for i in train_ids)


def index_table(labels: Sequence[Label], other: int = UNLABELLED) -> npt.NDArray[np.uint8]:
    """Return the index in `labels` by train id, `(256,)` uint8; `other` for ids without a class."""
    table = np.full(256, other, np.uint8)
    table[[label.id for label in labels]] = range(len(labels))
    return table


def train_id_table(labels: Sequence[Label]) -> npt.NDArray[np.uint8]:
    """Return the train id by index in `labels`, `(256,)` uint8; 255 for numbers beyond them."""
    table = np.full(256, UNLABELLED, np.uint8)
    table[: len(labels)] = [label.id for label in labels]
    return table


def plain_name(name: str) -> str:
    """Return a class name normalised for comparison: lower case, `_` and `-` as spaces.

    Letters with accents are the same in either form of Unicode.
    """
    name = unicodedata.normalize("NFKC", name)
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def match_by_name(wanted: Sequence[Label], available: Sequence[Label]) -> tuple[int, ...]:
    """Return the place in `available` of each class of `wanted`, matched by `plain_name`.

    Raises:
        ConfigError: `available` lacks a class; the message names it.
    """
    place = {plain_name(label.name): index for index, label in enumerate(available)}
    missing = [label.name for label in wanted if plain_name(label.name) not in place]
    if missing:
        known = ", ".join(label.name for label in available)
        raise ConfigError(f"no class named {', '.join(missing)} among {known}")
    return tuple(place[plain_name(label.name)] for label in wanted)


def color_table(labels: Sequence[Label] = CITYSCAPES) -> npt.NDArray[np.uint8]:
    """Return RGB by id, `(256, 3)` uint8; ids without a class are black."""
    table = np.zeros((256, 3), np.uint8)
    table[:] = UNLABELLED_COLOR
    for label in labels:
        table[label.id] = label.color
    return table


def is_train_class(label: Label) -> bool:
    """Return whether a class is one of Cityscapes', with its train id, and nothing else."""
    return TRAIN_ID.get(label.name) == label.id and label.was in (None, (label.name,))


def write_labels(path: Path, labels: Sequence[Label]) -> None:
    """Write `labels.json`: the classes of a model in the order of its outputs."""
    cityscapes = all(map(is_train_class, labels))
    content = {
        "label_set": "cityscapes-train-ids" if cityscapes else "own",
        "unlabelled": UNLABELLED,
        "classes": [
            {"id": label.id, "name": label.name, "color": label.color}
            | ({} if label.was is None else {"was": label.was})
            for label in labels
        ],
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_labels(path: Path) -> tuple[Label, ...]:
    """Read `labels.json`.

    Raises:
        ModelError: the file is missing, is not JSON, or has no list of classes with id, name and
            color; or two classes share an id or a name.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["classes"]
        labels = tuple(
            Label(
                int(e["id"]),
                str(e["name"]),
                (int(e["color"][0]), int(e["color"][1]), int(e["color"][2])),
                was=tuple(map(str, e["was"])) if e.get("was") is not None else None,
            )
            for e in entries
        )
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        IndexError,
        AttributeError,
        OverflowError,  # an id such as 1e999
        RecursionError,  # nested too deeply
    ) as error:
        raise ModelError(
            f"cannot read the class table {path}: {error!r}; "
            "a checkpoint folder needs a valid labels.json"
        ) from error
    if not labels or any(not 0 <= label.id < UNLABELLED for label in labels):
        raise ModelError(f"the class table {path} is empty or has an id outside 0..254")
    for values in ([label.id for label in labels], [label.name for label in labels]):
        if twice := [value for value, count in Counter(values).items() if count > 1]:
            raise ModelError(
                f"the classes of {path} must have distinct ids and names, got {twice[0]!r} twice"
            )
    return labels
