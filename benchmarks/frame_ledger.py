"""The frames sent to one camera of the node and its answers: latencies, and wrong answers."""

from array import array
from dataclasses import dataclass

KEPT = 3000
"""Frames remembered: 100 s of a camera at 30 Hz. Answers to older ones count as unmatched."""


@dataclass
class _Frame:
    sent: float
    latency_ms: float | None = None


class FrameLedger:
    """Frames of one camera by their stamps. Memory: `KEPT` frames, 16 bytes for each answer.

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
        """Count from zero; earlier frames stay known, so that late answers are matched."""
        del self.moments[:], self.latencies_ms[:]
        self.sent = self.duplicates = self.out_of_order = self.unmatched = 0

    def send(self, stamp: int, now: float) -> None:
        """Record a frame that is sent. Stamps must increase."""
        self.sent += 1
        self._frames[stamp] = _Frame(now)
        if len(self._frames) > KEPT:
            del self._frames[next(iter(self._frames))]

    def answer(self, stamp: int, frame_id: str, now: float) -> None:
        """Record an answer."""
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
        """Number of frames answered."""
        return len(self.latencies_ms)

    def latency_ms(self, stamp: int) -> float | None:
        """Latency of a remembered frame in ms; None if it has no answer yet."""
        return self._frames[stamp].latency_ms
