"""Measures the processor's peak rate of matrix products, to compare a model's rate with it."""

import time
from collections.abc import Mapping, Sequence

import numpy as np

from camseg_core.errors import ConfigError
from camseg_core.runtime.openvino_engine import openvino_core
from camseg_core.runtime.segmenter import Segmenter

SIDES = (1024, 2048)
"""Sides of the square matrices; the faster one counts."""

RUNS = 12
"""Products per side and precision; the fastest counts."""


def measured_peaks(threads: int = 0) -> dict[str, float]:
    """Return the peak multiply-accumulates/s by precision, of OpenVINO on the CPU.

    The precisions are int8, fp32 and, if the processor has it, bf16. Empty without OpenVINO.

    Args:
        threads: CPU threads; 0 lets OpenVINO choose.
    """
    try:
        core = openvino_core()
    except ConfigError:
        return {}
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    hints = {"int8": "f32", "fp32": "f32"} | ({"bf16": "bf16"} if "BF16" in able else {})
    settings = {"PERFORMANCE_HINT": "LATENCY"}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = str(threads)
    peaks = {}
    for precision, hint in hints.items():
        given = settings | {"INFERENCE_PRECISION_HINT": hint}
        rates = []
        for side in SIDES:
            compiled = core.compile_model(_product(side, precision == "int8"), "CPU", given)
            request = compiled.create_infer_request()
            matrix = np.random.default_rng(0).random((side, side), np.float32)
            for _ in range(RUNS):
                began = time.perf_counter()
                request.infer([matrix], share_inputs=True, share_outputs=True)
                rates.append(side**3 / (time.perf_counter() - began))
        peaks[precision] = max(rates)
    return peaks


def peaks_of(segmenters: Sequence[Segmenter]) -> list[Mapping[str, float]]:
    """Return the CPU's peaks with each model's threads; none for a model on another device."""
    on_cpu = [segmenter.engine.endswith(" on CPU") for segmenter in segmenters]
    threads = {each.threads for each, there in zip(segmenters, on_cpu, strict=True) if there}
    peaks = {number: measured_peaks(number) for number in sorted(threads)}
    return [
        peaks[each.threads] if there else {} for each, there in zip(segmenters, on_cpu, strict=True)
    ]


def rate_text(rate: float, precision: str, peaks: Mapping[str, float]) -> str:
    """Describe a rate in multiply-accumulates/s, and its share of the peak if that was measured.

    For int8 graphs the peak is that of int8, although a part of them computes in floats.
    """
    text, graphs = f"{rate / 1e9:.0f} GMAC/s", precision.partition("+")[0]
    if graphs not in peaks:
        return text
    share = 100 * rate / peaks[graphs]
    return f"{text}, {share:.0f} % of the measured {peaks[graphs] / 1e9:.0f} in {graphs}"


def _product(side: int, in_int8: bool) -> object:
    """Return a model that multiplies its input by a constant matrix."""
    from openvino import Model
    from openvino import opset13 as ops

    given = ops.parameter([side, side], np.float32)
    weights = np.random.default_rng(1).random((side, side), np.float32)
    if not in_int8:
        return Model([ops.matmul(given, ops.constant(weights), False, False)], [given])
    low, high = (ops.constant(np.float32(value)) for value in (0.0, 1.0))
    left = ops.fake_quantize(given, low, high, low, high, 256)
    bytes_ = ops.constant(np.round(weights * 127).astype(np.int8))
    right = ops.multiply(ops.convert(bytes_, np.float32), ops.constant(np.float32(1 / 127)))
    return Model([ops.matmul(left, right, False, False)], [given])
