"""Estimate the least time of a model on other devices from its work and their data sheets.

A roofline (doi 10.1145/1498765.1498785): a stage takes the longer of its arithmetic at the device's
peak rate and its memory traffic at full bandwidth. No real run reaches both peaks: the estimate is
a bound on speed, not a forecast. `flops.py` counts the work.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from camseg_core.diffusion.passes import PassOptions

BYTES = {"fp16": 2, "int8": 1}
"""Bytes per number, by precision."""

CAVEAT = (
    "Estimates, not measurements: a bound on speed. Each stage takes the longer of its arithmetic "
    "at the peak rate for dense matrices and of its weights and activations through memory at full "
    "bandwidth. Real runs reach a fraction of that speed, and small layers a small one: starting a "
    "kernel can take longer than running it. Copies between host and device, resizing and norms "
    "are not counted. Only a cache large enough to hold the activations can beat the memory's part."
)
"""The caveat to print with every table of estimates."""


@dataclass(frozen=True)
class Work:
    """Multiply-accumulates, weights read, and activations (other numbers) read and written."""

    multiply_accumulates: int
    weights: int
    activations: int

    def times(self, repeats: float) -> "Work":
        """Return the work of doing this `repeats` times, reading the weights each time."""
        return Work(
            round(self.multiply_accumulates * repeats),
            round(self.weights * repeats),
            round(self.activations * repeats),
        )


@dataclass(frozen=True)
class FrameWork:
    """One frame: the parameters on the vehicle, and the work by stage, `denoiser` for one step."""

    parameters: int
    stages: Mapping[str, Work]

    def with_steps(self, steps: int) -> dict[str, Work]:
        """Return the work by stage of a frame sampled in this many steps."""
        return self.repeated({"denoiser": steps})

    def repeated(self, repeats: Mapping[str, float]) -> dict[str, Work]:
        """Return the work by stage with some stages repeated, see `repeats_of`."""
        return {stage: work.times(repeats.get(stage, 1)) for stage, work in self.stages.items()}


def repeats_of(steps: int, samples: int, passes: PassOptions) -> dict[str, float]:
    """Return how often each stage runs for a frame.

    In confident order, every pass denoises everything that is still hidden.
    """
    again = passes.passes > 1 and passes.order == "confident"
    hidden = (
        sum(math.cos(math.pi / 2 * k / passes.passes) for k in range(passes.passes))
        if again
        else 1.0
    )
    return {
        "transformer": samples * passes.passes if passes.passes > 1 else 1,
        "denoiser": steps * samples * hidden,
        "decoder": samples * (1 + passes.passes if again else 1),
    }


@dataclass(frozen=True)
class Device:
    """A device's peak rates.

    Attributes:
        bandwidth: memory bandwidth in bytes/s.
        operations: operations/s by precision; a multiply-accumulate is two.
        training: operations/s of dense matrices in bf16 or fp16, accumulated in fp32.
        memory: size of the memory in bytes; given, like `training`, for devices used in training.
    """

    name: str
    bandwidth: float
    operations: Mapping[str, float]
    training: float | None = None
    memory: float | None = None


# Rates are those of the tensor cores for dense matrices (data sheets print 2:4 sparse ones, twice
# as high). For the Jetsons the GPU alone counts: their headline figures (275 and 100 TOPS) are
# sparse and include the DLAs, which the runtime does not use.
DEVICES = (
    # Jetson AGX Orin Series Technical Brief v1.2: the GPU of the 64 GB module gives 170 sparse INT8
    # TOPS at 1.3 GHz, 85 dense; half of that in FP16. 256 bits of LPDDR5 at 6400 MT/s: 204.8 GB/s.
    Device("AGX Orin 64 GB", 204.8e9, {"fp16": 42.5e12, "int8": 85e12}),
    # Jetson Orin NX Series Data Sheet DS-10712-001: the same GPU with half the cores (32 tensor
    # cores) at 918 MHz: 60 of the module's 100 sparse INT8 TOPS, 30 dense; half of that in FP16.
    # 128 bits of LPDDR5 at 6400 MT/s: 102.4 GB/s. Without JetPack 6.2's "Super" power mode.
    Device("Orin NX 16 GB", 102.4e9, {"fp16": 15e12, "int8": 30e12}),
    # NVIDIA Ada GPU Architecture whitepaper v2.01, appendix A: dense FP16 with FP16 accumulation
    # 330.3 TFLOPS (165.2 with FP32), INT8 660.6 TOPS; 1008 GB/s, 24 GB.
    Device(
        "RTX 4090", 1008e9, {"fp16": 330.3e12, "int8": 660.6e12}, training=165.2e12, memory=24e9
    ),
    # NVIDIA H100 Tensor Core GPU Architecture whitepaper and data sheet, SXM5: dense FP16 989.4
    # TFLOPS, INT8 1978.9 TOPS; 3.35 TB/s, 80 GB. Accumulation is in FP32 either way.
    Device(
        "H100 SXM", 3350e9, {"fp16": 989.4e12, "int8": 1978.9e12}, training=989.4e12, memory=80e9
    ),
)
"""The devices that tables list."""


@dataclass(frozen=True)
class Bound:
    """The least time of a stage in ms, and its limit: `arithmetic` or `memory`."""

    ms: float
    limit: str


@dataclass(frozen=True)
class Estimate:
    """Bounds of a whole frame on one device at one precision, by stage."""

    device: str
    precision: str
    stages: Mapping[str, Bound]

    @property
    def ms(self) -> float:
        """The frame's time: its stages run one after the other."""
        return sum(bound.ms for bound in self.stages.values())


def bound(work: Work, device: Device, precision: str) -> Bound:
    """Bound the time that the work takes on a device."""
    arithmetic = 2 * work.multiply_accumulates / device.operations[precision]
    memory = BYTES[precision] * (work.weights + work.activations) / device.bandwidth
    return Bound(1e3 * max(arithmetic, memory), "arithmetic" if arithmetic >= memory else "memory")


def estimates(stages: Mapping[str, Work], devices: tuple[Device, ...] = DEVICES) -> list[Estimate]:
    """Estimate a frame whose stages do this work, on each device in each precision."""
    return [
        Estimate(
            device.name,
            precision,
            {name: bound(work, device, precision) for name, work in stages.items()},
        )
        for device in devices
        for precision in device.operations
    ]


def roofline_table(found: list[Estimate]) -> list[list[str]]:
    """Return a heading and a row for each estimate: ms by stage (`*`: memory-bound), frames/s."""
    stages = (stage.replace("_", " ") for stage in found[0].stages)
    heading = ["device", "numbers", *stages, "frame ms", "frames/s"]
    rows = []
    for each in found:
        bounds = (
            _number(stage.ms) + ("*" if stage.limit == "memory" else "")
            for stage in each.stages.values()
        )
        figures = (_number(each.ms), _number(1000 / each.ms))
        rows.append([each.device, each.precision, *bounds, *figures])
    return [heading, *rows]


def _number(value: float) -> str:
    """Format with at most three significant digits below 100."""
    digits = sum(value < limit for limit in (100, 10, 0.1))
    return f"{value:.{digits}f}"
