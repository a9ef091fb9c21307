"""The processor's measured peak, and a model's share of it."""

import sys
from types import SimpleNamespace

import pytest

from camseg_core.evaluation import peak
from camseg_core.evaluation.peak import measured_peaks, peaks_of, rate_text


def test_the_peak_is_measured_in_int8_and_fp32_and_where_there_is_bf16(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr(peak, "SIDES", (64,))
    monkeypatch.setattr(peak, "RUNS", 2)
    found = measured_peaks(threads=1)
    assert {"int8", "fp32"} <= set(found) <= {"int8", "fp32", "bf16"}
    assert all(rate > 0 for rate in found.values())


def test_without_openvino_no_peak_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert measured_peaks() == {}


def test_only_models_on_the_cpu_are_compared_with_its_peak_with_their_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = list[int]()

    def measured(threads: int) -> dict[str, float]:
        asked.append(threads)
        return {"fp32": threads * 1e9}

    monkeypatch.setattr(peak, "measured_peaks", measured)
    models = [
        SimpleNamespace(engine=f"{engine} on {device}", threads=threads)
        for engine, device, threads in (
            ("ONNX Runtime 1.32.0", "CPU", 2),
            ("ONNX Runtime 1.32.0", "CUDA", 2),
            ("OpenVINO 2026.4.0", "CPU", 1),
            ("OpenVINO 2026.4.0", "GPU", 0),
            ("OpenVINO 2026.4.0", "CPU", 2),
        )
    ]
    two, one = {"fp32": 2e9}, {"fp32": 1e9}
    assert peaks_of(models) == [two, {}, one, {}, two]  # type: ignore[arg-type]
    assert asked == [1, 2]


@pytest.mark.parametrize(
    ("precision", "text"),
    [
        ("int8+bf16", "100 GMAC/s, 25 % of the measured 400 in int8"),
        ("bf16", "100 GMAC/s, 50 % of the measured 200 in bf16"),
        ("fp32", "100 GMAC/s, 100 % of the measured 100 in fp32"),
        ("fp16", "100 GMAC/s"),
    ],
)
def test_a_rate_is_compared_with_the_peak_of_its_precision(precision: str, text: str) -> None:
    peaks = {"int8": 400e9, "bf16": 200e9, "fp32": 100e9}
    assert rate_text(100e9, precision, peaks) == text
