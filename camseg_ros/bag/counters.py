"""Why frames were not answered: by the node's own counts on /diagnostics before and after, and by what is missing from them."""

from collections.abc import Mapping
from dataclasses import dataclass

RECEIVED, PUBLISHED = "frames received", "frames published"
DROPPED, REJECTED = "dropped: ", "rejected: "
INPUT_TOPIC = "input topic"

LOST_BEFORE, LOST_AFTER, UNEXPLAINED = "lost on the way to the node", "lost on the way back", "not explained by the node's counts"


@dataclass(frozen=True)
class Counters:
    """The counts of one camera's stream in the node, since it started; `reasons` with their prefix."""

    received: int
    published: int
    reasons: Mapping[str, int]


def counters_of(diagnostics: Mapping[str, Mapping[str, str]], topic: str) -> Counters | None:
    """The counts of the camera whose images come on `topic`, from the entries of /diagnostics; None where it has none there."""
    for values in diagnostics.values():
        if values.get(INPUT_TOPIC) == topic and RECEIVED in values and PUBLISHED in values:
            reasons = {name: int(value) for name, value in values.items() if name.startswith((DROPPED, REJECTED))}
            return Counters(int(values[RECEIVED]), int(values[PUBLISHED]), reasons)
    return None


def drops(sent: int, answered: int, before: Counters, after: Counters) -> dict[str, int]:
    """How many of the images sent were not answered, by reason; the numbers add up to `sent - answered`.

    Only where other images came to the node meanwhile, or it was restarted, can a number be below 0.
    """
    received, published = after.received - before.received, after.published - before.published
    counts = {reason: count - before.reasons.get(reason, 0) for reason, count in after.reasons.items()}
    counts |= {LOST_BEFORE: sent - received, LOST_AFTER: published - answered}
    counts[UNEXPLAINED] = sent - answered - sum(counts.values())
    return {reason: count for reason, count in counts.items() if count}
