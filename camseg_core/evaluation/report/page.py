"""What all pages of the project share: rendering, texts of figures, thumbnails, and files."""

import base64
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
import numpy.typing as npt

from camseg_core.data.label_table import is_cityscapes
from camseg_core.errors import DataError
from camseg_core.labels import CITYSCAPES, Label, color_table
from camseg_core.long_runs import atomic_write
from camseg_core.masks import colorize

JPEG_QUALITY = 88


def render(package: str, template: str, **values: Any) -> str:
    """Render a template of a package; it extends `base.html.j2` of this one.

    Every text is escaped, since names come from files and recordings.

    Raises:
        jinja2.UndefinedError: the template uses a value that is not given.
    """
    loaders = [jinja2.PackageLoader(name, "") for name in (package, str(__package__))]
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(loaders),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "percent": percent, "rgb": rgb}
    date = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    return environment.get_template(template).render(date=date, **values)


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    """Write texts by file name into `folder`, which is made if missing; each file appears whole.

    Bytes of file names that are not UTF-8 become escapes.

    Raises:
        DataError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            with atomic_write(folder / name) as path:
                path.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise DataError(
            f"cannot write the report into {folder}: {error.strerror}; choose a folder that can be "
            "written"
        ) from error


def to_json(content: Mapping[str, Any]) -> str:
    """Return the text of a report's JSON file, with sorted keys."""
    return json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n"


def plain(value: Any) -> Any:
    """Return a value for JSON: None for NaN, floats with six decimals, more if these are all 0."""
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return round(value, 6) or float(f"{value:.2g}")
    return value


def number(value: float | None, digits: int = 3) -> str:
    """Return a figure as text; a dash for None."""
    return "–" if value is None else f"{value:.{digits}f}"


def percent(share: float | None) -> str:
    """Return a share as text; a small one does not read as 0."""
    if share is None:
        return "–"
    return "< 0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"


def rgb(color: Iterable[int]) -> str:
    """Return a colour for CSS."""
    return "rgb({},{},{})".format(*map(int, color))


@dataclass(frozen=True)
class Card:
    """A figure at the top of a page; `id` and `metric` are hooks for programs that read it."""

    label: str
    text: str
    unit: str = ""
    id: str = ""
    metric: str = ""
    css: str = ""


def thumbnail(
    picture: npt.NDArray[Any], width: int, colors: npt.NDArray[np.uint8] | None = None
) -> str:
    """Return a picture, scaled down to at most `width` pixels, as a data URI.

    Args:
        picture: RGB `(H, W, 3)` uint8, stored as JPEG; class ids `(H, W)` uint8, drawn in `colors`
            and stored as PNG, with no colours in between; or confidences `(H, W)` float, 0..1,
            drawn from purple to yellow (viridis).
        width: in pixels.
        colors: RGB by class id, `(256, 3)`; Cityscapes' if None.
    """
    ids = picture.ndim == 2 and picture.dtype == np.uint8
    scale = min(1.0, width / picture.shape[1])
    size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_NEAREST if ids else cv2.INTER_AREA)
    if ids:
        table = color_table() if colors is None else colors
        bgr = colorize(np.asarray(small, np.uint8), table)[..., ::-1]
    elif picture.ndim == 2:
        levels = (255 * np.clip(np.nan_to_num(small), 0, 1)).round().astype(np.uint8)
        bgr = np.asarray(cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS), np.uint8)
    else:
        bgr = np.asarray(small, np.uint8)[..., ::-1]
    kind, options = ("png", []) if ids else ("jpeg", [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    encoded = cv2.imencode(f".{kind}", bgr, options)[1].tobytes()
    return f"data:image/{kind};base64,{base64.b64encode(encoded).decode()}"


def drawn_labels(labels: Sequence[Label]) -> tuple[Label, ...]:
    """Return `labels`, with Cityscapes' other classes if they are of that table."""
    return (*CITYSCAPES, *labels) if is_cityscapes(labels) else tuple(labels)


def shown_classes(
    labels: Sequence[Label], masks: Iterable[npt.NDArray[np.uint8]]
) -> list[tuple[str, str]]:
    """Return name and CSS colour of every class in the masks, by id: the legend of thumbnails."""
    found = {int(i) for mask in masks for i in np.unique(mask)}
    known = {label.id: label for label in drawn_labels(labels)}
    return [(known[i].name, rgb(known[i].color)) for i in sorted(found & set(known))]


def confusion_rows(names: Sequence[str], matrix: Any) -> dict[str, Any]:
    """Return columns and rows of a confusion table, without the classes that occur nowhere.

    A row is a label, its pixels, and a cell for each column: the pixels that the mask gives that
    class, and their share of the label's.

    Args:
        names: the classes.
        matrix: `(C, C)` or, if the last column counts masks with no class, `(C, C + 1)` pixels.
    """
    pixels = np.array(matrix, np.int64)
    names = [*names, "no class"]
    occurs = pixels.sum(1) + pixels.sum(0)[: len(pixels)] > 0
    rows = [int(i) for i in np.flatnonzero(occurs)]
    columns = [*rows, *(i for i in range(len(pixels), pixels.shape[1]) if pixels[:, i].any())]
    table = []
    for i in rows:
        whole = int(pixels[i].sum())
        cells = [
            {
                "column": names[j],
                "right": j == i,
                "pixels": int(pixels[i, j]),
                "share": pixels[i, j] / whole if whole else None,
            }
            for j in columns
        ]
        table.append((names[i], whole, cells))
    return {"columns": [names[j] for j in columns], "rows": table}
