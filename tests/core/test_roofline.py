"""Least times on devices, against arithmetic done by hand."""

import pytest

from camseg_core.evaluation.roofline import (
    DEVICES,
    Bound,
    Device,
    Estimate,
    Work,
    bound,
    estimates,
    roofline_table,
)

DEVICE = Device(
    "toy", bandwidth=100e9, operations={"fp16": 10e12, "int8": 20e12}
)  # 100 GB/s, 10 and 20 TOPS


def test_much_arithmetic_on_few_numbers_is_bound_by_the_rate() -> None:
    work = Work(multiply_accumulates=50_000_000_000, weights=1_000_000, activations=4_000_000)
    assert bound(work, DEVICE, "fp16") == Bound(
        pytest.approx(10.0), "arithmetic"
    )  # 100 G operations at 10 T/s
    assert bound(work, DEVICE, "int8") == Bound(pytest.approx(5.0), "arithmetic")


def test_little_arithmetic_on_many_numbers_is_bound_by_the_memory() -> None:
    work = Work(multiply_accumulates=50_000_000, weights=10_000_000, activations=40_000_000)
    assert bound(work, DEVICE, "fp16") == Bound(
        pytest.approx(1.0), "memory"
    )  # 100 MB at 100 GB/s, and 0.01 ms of arithmetic
    assert bound(work, DEVICE, "int8") == Bound(pytest.approx(0.5), "memory")


def test_a_frame_is_the_sum_of_its_stages_on_every_device_and_precision() -> None:
    stages = {"first": Work(50_000_000_000, 0, 0), "second": Work(0, 50_000_000, 0)}
    found = estimates(stages, (DEVICE,))
    assert [(each.device, each.precision, each.ms) for each in found] == [
        ("toy", "fp16", pytest.approx(11.0)),
        ("toy", "int8", pytest.approx(5.5)),
    ]
    assert [stage.limit for stage in found[0].stages.values()] == ["arithmetic", "memory"]


def test_the_table_marks_what_the_memory_bounds() -> None:
    found = [
        Estimate(
            "toy",
            "fp16",
            {"image_encoder": Bound(12.34, "arithmetic"), "decoder": Bound(0.0567, "memory")},
        )
    ]
    assert roofline_table(found) == [
        ["device", "numbers", "image encoder", "decoder", "frame ms", "frames/s"],
        ["toy", "fp16", "12.3", "0.057*", "12.4", "80.7"],
    ]


def test_the_devices_rates_are_dense_and_twice_as_high_for_int8() -> None:
    rates = {device.name: device.operations for device in DEVICES}
    assert set(rates) == {"AGX Orin 64 GB", "Orin NX 16 GB", "RTX 4090", "H100 SXM"}
    for rate in rates.values():
        assert rate["int8"] == pytest.approx(2 * rate["fp16"], rel=1e-3)
    # a tensor core does 512 INT8 multiply-accumulates a clock, at 1.3 GHz and 918 MHz
    assert rates["AGX Orin 64 GB"]["int8"] == pytest.approx(64 * 2 * 512 * 1.3e9, rel=0.01)
    assert rates["Orin NX 16 GB"]["int8"] == pytest.approx(32 * 2 * 512 * 0.918e9, rel=0.01)
