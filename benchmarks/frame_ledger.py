"""What was sent to the node on one camera and what came back for it: latencies, and answers that should not have come."""

from array import array
from dataclasses import dataclass

KEPT = 3000
"""Frames remembered, the newest: 100 s of a camera at 30 Hz. What answers an older one counts as unmatched."""


@dataclass
class _Frame:
    sent: float
    latency_ms: float | None = None


class FrameLedger:
    """Frames of one camera by their stamps. Remembers a bounded number of frames, and 16 bytes of each answer.

    Attributes:
        sent: frames sent.
        moments: of the answers, when their frames were sent, in s.
        latencies_ms: of the same, from frame to answer.
        duplicates: answers to frames that were already answered.
        out_of_order: first answers to frames that are older than one already answered.
        unmatched: answers whose stamp and frame_id are of no frame sent on this camera.
    """

    def __init__(self, frame_id: str) -> None:
        self.frame_id = frame_id
        self.moments, self.latencies_ms = array("d"), array("d")
        self.sent = self.duplicates = self.out_of_order = self.unmatched = 0
        self._frames: dict[int, _Frame] = {}
        self._newest_answered = -1

    def restart(self) -> None:
        """Count from zero; the frames stay known, so that their late answers are matched."""
        del self.moments[:], self.latencies_ms[:]
        self.sent = self.duplicates = self.out_of_order = self.unmatched = 0

    def send(self, stamp: int, now: float) -> None:
        """A frame goes out. Stamps must rise."""
        self.sent += 1
        self._frames[stamp] = _Frame(now)
        if len(self._frames) > KEPT:
            del self._frames[next(iter(self._frames))]

    def answer(self, stamp: int, frame_id: str, now: float) -> None:
        """An answer came."""
        frame = self._frames.get(stamp)
        if frame is None or frame_id != self.frame_id:
            self.unmatched += 1
            return
        if frame.latency_ms is not None:
            self.duplicates += 1
            return
        self.out_of_order += stamp < self._newest_answered
        self._newest_answered = max(stamp, self._newest_answered)
        frame.latency_ms = (now - frame.sent) * 1e3
        self.moments.append(frame.sent)
        self.latencies_ms.append(frame.latency_ms)

    @property
    def answered(self) -> int:
        """Frames answered."""
        return len(self.latencies_ms)

    def latency_ms(self, stamp: int) -> float | None:
        """From a frame that is remembered to its answer; None where none has come."""
        return self._frames[stamp].latency_ms
