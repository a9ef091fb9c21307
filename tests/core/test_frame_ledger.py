"""Answers are matched with the frames sent, and each kind of wrong answer is counted."""

import frame_ledger
import pytest
from frame_ledger import FrameLedger


def counts(ledger: FrameLedger) -> tuple[int, int, int, int, int]:
    return ledger.sent, ledger.answered, ledger.duplicates, ledger.out_of_order, ledger.unmatched


def sent(*stamps: int) -> FrameLedger:
    """A ledger of frames sent at a tenth of their stamps, in s."""
    ledger = FrameLedger("left")
    for stamp in stamps:
        ledger.send(stamp, stamp / 10)
    return ledger


def test_an_answer_is_timed_from_its_own_frame() -> None:
    ledger = sent(1, 2, 3)
    ledger.answer(1, "left", 0.35)
    ledger.answer(3, "left", 0.4)  # 2 was dropped
    assert ledger.latency_ms(1) == pytest.approx(250)
    assert ledger.latency_ms(2) is None
    assert list(ledger.moments) == pytest.approx([0.1, 0.3])
    assert list(ledger.latencies_ms) == pytest.approx([250, 100])
    assert counts(ledger) == (3, 2, 0, 0, 0)


def test_a_second_answer_to_a_frame_is_a_duplicate() -> None:
    ledger = sent(1, 2)
    for stamp in (1, 2, 1, 2):
        ledger.answer(stamp, "left", 1.0)
    assert counts(ledger) == (2, 2, 2, 0, 0)


def test_an_answer_after_one_to_a_newer_frame_is_out_of_order() -> None:
    ledger = sent(1, 2, 3)
    for stamp in (2, 1, 3):
        ledger.answer(stamp, "left", 1.0)
    assert counts(ledger) == (3, 3, 0, 1, 0)


def test_an_answer_with_another_stamp_or_from_another_camera_is_unmatched() -> None:
    ledger = sent(1)
    ledger.answer(7, "left", 1.0)
    ledger.answer(1, "right", 1.0)
    assert counts(ledger) == (1, 0, 0, 0, 2)


def test_it_remembers_no_more_than_the_newest_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_ledger, "KEPT", 2)
    ledger = sent(1, 2, 3)
    for stamp in (1, 2, 3):
        ledger.answer(stamp, "left", 1.0)
    assert counts(ledger) == (3, 2, 0, 0, 1)


def test_a_late_answer_to_a_frame_from_before_the_restart_is_matched() -> None:
    ledger = sent(1)
    ledger.restart()
    ledger.answer(1, "left", 1.0)
    assert counts(ledger) == (0, 1, 0, 0, 0)
