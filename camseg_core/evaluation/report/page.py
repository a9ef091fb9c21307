"""What the project's pages have in common: templates that trust no text, numbers as text, and pictures inside the page."""

import base64
from typing import Any, Literal

import cv2
import jinja2
import numpy.typing as npt

JPEG_QUALITY = 88


def environment() -> jinja2.Environment:
    """Where templates are rendered: every text is escaped, and a name that is not given is an error."""
    made = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters |= {"number": number, "percent": percent}
    return made


def number(value: float | None, digits: int = 3) -> str:
    """A score as text; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def percent(share: float | None) -> str:
    """A share of 1 as text; what is there does not read as 0."""
    if share is None:
        return "–"
    return "< 0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"


def data_uri(rgb: npt.NDArray[Any], kind: Literal["jpeg", "png"]) -> str:
    """A picture as a link that needs no file."""
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if kind == "jpeg" else []
    _, encoded = cv2.imencode(f".{kind}", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), options)
    return f"data:image/{kind};base64,{base64.b64encode(encoded.tobytes()).decode()}"
