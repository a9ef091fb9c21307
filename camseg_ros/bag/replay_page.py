"""The page of a replay: what `camseg bag replay` measured, from the content of its JSON."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from camseg_core.errors import DataError
from camseg_core.evaluation.report.charts import Chart, latency_chart
from camseg_core.evaluation.report.page import Card, number, render

MAX_DOTS = 1000
"""Latencies in the chart at most; of a longer replay every second, third, ... mask is shown."""


def write_replay_page(
    path: Path,
    measured: Mapping[str, Any],
    latencies_s: Sequence[float],
    failed: Sequence[str],
    warnings: Sequence[str],
) -> None:
    """Write the page.

    Args:
        path: the page; its folder exists.
        measured: the result, as `replay_report.content` returns it.
        latencies_s: of the final measurement, in s, in order of the masks.
        failed: why the command fails, a line each.
        warnings: what to know about the measurement, a line each.

    Raises:
        DataError: the page cannot be written.
    """
    shown = latencies_s[:: max(1, -(-len(latencies_s) // MAX_DOTS))]
    html = render(
        str(__package__),
        "replay.html.j2",
        measured=measured,
        cards=_cards(measured),
        chart=_chart(measured, shown),
        shown=len(shown),
        failed=failed,
        warnings=warnings,
        key_tables={
            "Replay": _rows({_OPTIONS.get(k, k): v for k, v in measured["options"].items()}),
            "Parameters of the node": _rows(measured["parameters"] or {}),
            "Machine and versions": _rows({**measured["machine"], **measured["versions"]}),
        },
    )
    try:
        path.write_text(html, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise DataError(
            f"cannot write {path}: {error.strerror}; choose a folder that can be written"
        ) from error


def _cards(measured: Mapping[str, Any]) -> list[Card]:
    frames, rate, latency = (measured[name] or {} for name in ("frames", "rate", "latency_ms"))
    memory, highest = measured["rss_mb"] or {}, measured["max_rate"] or {}
    asked = rate.get("asked_hz")
    cards = [
        Card("images answered", str(frames.get("answered", "–")), f"/ {frames.get('sent', '–')}"),
        Card("images lost", str(frames.get("lost", "–")), css="bad" if frames.get("lost") else ""),
        *(
            Card(f"latency {name}", number(latency.get(name), 1), "ms", css=css)
            for name, css in (("p50", "first"), ("p95", ""), ("p99", ""), ("max", ""))
        ),
        Card(
            "rate" if asked is None else f"rate, {asked:.4g} asked",
            number(rate.get("achieved_hz"), 1),
            "Hz",
        ),
        Card("CPU of the node", number(measured["cpu_percent"], 0), "% of a core"),
        Card("its memory, peak", number(memory.get("peak"), 0), "MB"),
    ]
    if highest:
        cards.insert(0, Card("highest rate", number(highest["rate_hz"], 1), "Hz", css="first"))
    return cards


def _chart(measured: Mapping[str, Any], latencies_s: Sequence[float]) -> Chart | None:
    if not latencies_s:
        return None
    latency = measured["latency_ms"]
    return latency_chart([1e3 * each for each in latencies_s], latency["p50"], latency["p95"])


def _rows(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return a table's rows, without what is not known."""
    return [(name, _text(value)) for name, value in values.items() if value is not None]


def _text(value: object) -> str:
    """Return a value for a reader."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value)) if any(value) else "none"
    return "empty" if value == "" else str(value)


_OPTIONS = {
    "running": "a node that ran already",
    "restamp": "stamped when sent",
    "warm_up_s": "warm-up in s",
    "seconds": "length in s",
    "trial_s": "length of a trial in s",
    "image_topic": "image topic",
    "mask_topic": "mask topic",
    "mask_reliability": "reliability of the masks",
}
"""How the page names the options."""
