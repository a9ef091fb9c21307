"""Where a frame's time goes: milliseconds and multiply-accumulates of each stage, on this machine's CPU.

python benchmarks/stages.py --json
"""

import argparse
import json
import os

import numpy as np

from camseg_core.data.synthetic import SyntheticDrive
from camseg_core.model.arithmetic import STAGES, vehicle_parameters, work_by_stage
from camseg_core.model.camseg import CamSeg
from camseg_core.runtime import Segmenter
from camseg_core.runtime.framing import Framing
from camseg_core.weights import DEFAULT_MODEL, checkpoint_folder


def main() -> None:
    """Print the table; with `--json` the same as the last line."""
    parser = argparse.ArgumentParser(description="Time and arithmetic of each stage of a frame, on the CPU.")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--width", type=int, default=480)
    parser.add_argument("--height", type=int, default=360)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--threads", type=int, default=0, help="0: one per core")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON on the last line")
    arguments = parser.parse_args()

    model = CamSeg.from_pretrained(checkpoint_folder(arguments.model))
    framing = Framing.fit(arguments.height, arguments.width, model.config.network_pixels, model.config.size_multiple)
    frame = SyntheticDrive(frames=1, height=arguments.height, width=arguments.width, seed=0)[0].image
    height, width = framing.to_network(frame).shape[:2]
    counts = {stage: work.multiply_accumulates for stage, work in work_by_stage(model, height, width).items()}

    segmenter = Segmenter.from_pretrained(arguments.model, threads=arguments.threads)
    runs = [segmenter.segment(frame).timings for _ in range(10 + arguments.frames)][10:]  # the first ones warm up
    print(f"{segmenter.name}, {arguments.width}x{arguments.height} (network {width}x{height}), one step, {os.cpu_count()} cores, fp32")
    print(f"{vehicle_parameters(model) / 1e6:.2f} million parameters on the vehicle\n")
    print(f"{'stage':<16}{'p50 ms':>8}{'p95 ms':>8}{'GMAC':>8}")
    stages: dict[str, dict[str, float]] = {}
    for stage in runs[0]:
        times = [run[stage] for run in runs]
        stages[stage] = {
            "p50_ms": round(float(np.percentile(times, 50)), 2),
            "p95_ms": round(float(np.percentile(times, 95)), 2),
            "gmac": round(counts[stage] / 1e9, 3) if stage in STAGES else 0.0,
        }
    totals = [sum(run.values()) for run in runs]
    stages["total"] = {
        "p50_ms": round(float(np.percentile(totals, 50)), 2),
        "p95_ms": round(float(np.percentile(totals, 95)), 2),
        "gmac": round(sum(counts.values()) / 1e9, 3),
    }
    for stage, values in stages.items():
        print(f"{stage:<16}{values['p50_ms']:>8.1f}{values['p95_ms']:>8.1f}{values['gmac'] or '':>8}")
    print(f"\n{1000 / stages['total']['p50_ms']:.1f} frames a second")
    if arguments.json:
        print(json.dumps({"model": segmenter.name, "parameters": vehicle_parameters(model), "stages": stages}))


if __name__ == "__main__":
    main()
