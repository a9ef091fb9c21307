"""Which file says what the ids in a bag's labels mean."""

from pathlib import Path

from camseg_core.data.label_table import LABEL_TABLE, read_label_table
from camseg_core.data.mapping import MAPPING, stated_meaning
from camseg_core.errors import ConfigError
from camseg_ros.bag.labels import LabelSource


def class_table(labels: LabelSource | None) -> Path | None:
    """Return the class table of a folder of labels, whose ids they then have; None without one.

    It is in the folder or, as in data sets, beside it.

    Raises:
        ConfigError: there is a mapping file, or the table cannot be read.
    """
    folder = None if labels is None else labels.folder
    for place in () if folder is None else (folder, folder.parent):
        if (place / MAPPING).is_file():
            raise ConfigError(
                f"labels of bags must be ids of classes, and {place / MAPPING} is not read "
                f"for them: write them as ids into a folder without it, with {LABEL_TABLE} if "
                "the ids are not those of Cityscapes or of the model"
            )
        if (place / LABEL_TABLE).is_file():
            read_label_table(place / LABEL_TABLE)
            return place / LABEL_TABLE
    return None


def stated_by(labels: LabelSource | None, groups: Path | None) -> Path | None:
    """Return the file that says what labels mean: `groups`, else their `class_table`.

    Raises:
        ConfigError: see `class_table`; or `groups` has another class table than the folder.
    """
    table = class_table(labels)
    if groups is None or table is None:
        return groups or table
    if stated_meaning(groups).table != stated_meaning(table).table:
        raise ConfigError(
            f"--groups {groups} must have the classes of {table}, whose ids the labels hold: "
            "give it an entry table with that file, or leave one of the two out"
        )
    return groups
