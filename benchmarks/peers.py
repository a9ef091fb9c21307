"""Time camseg-lite beside SegFormer-B0 (arXiv 2105.15203), on the same engines, interleaved.

    python benchmarks/peers.py --frames 40

SegFormer-B0 comes from the package transformers (pip install transformers), with 19 classes and
random weights: times do not depend on them, and nothing is downloaded. Both get the same frame size
at the network and fp32 graphs, in fp32 and bf16; camseg-lite also runs its int8 graph.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
import torch
from document import machine_and_torch, markdown_table
from torch import nn

from camseg_core.cli.options import at_least
from camseg_core.errors import CamSegError
from camseg_core.evaluation.timing import describe_machine
from camseg_core.runtime import Segmenter
from camseg_core.runtime.openvino_engine import openvino_core

HEIGHT, WIDTH = 384, 480
"""The frame at the network: 480×360 padded to multiples of 32."""

CLASSES = 19

Run = Callable[[], object]


class Peer(nn.Module):
    """SegFormer-B0 from a picture `(1, 3, H, W)` to class ids `(1, H, W)`."""

    def __init__(self) -> None:
        super().__init__()
        try:
            from transformers import SegformerConfig, SegformerForSemanticSegmentation
        except ImportError as error:
            raise SystemExit(
                f"peers.py needs transformers: pip install transformers ({error})"
            ) from error
        torch.manual_seed(0)
        # the defaults of the configuration are those of B0
        self.network = SegformerForSemanticSegmentation(SegformerConfig(num_labels=CLASSES)).eval()

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """Return the likeliest class of each pixel, scaled up from a quarter of the size."""
        logits = self.network(picture).logits
        size = picture.shape[2:]
        return nn.functional.interpolate(logits, size, mode="bilinear").argmax(1)


def exported(folder: Path) -> Path:
    """Export the peer for this frame size to ONNX."""
    path = folder / "segformer_b0.onnx"
    picture = torch.zeros(1, 3, HEIGHT, WIDTH)
    with torch.no_grad():
        torch.onnx.export(Peer(), (picture,), path, input_names=["picture"], dynamo=True)
    return path


def peer_runs(path: Path) -> dict[str, Run]:
    """Return the peer on each engine."""
    picture = np.random.default_rng(0).random((1, 3, HEIGHT, WIDTH), np.float32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    runs: dict[str, Run] = {
        "SegFormer-B0, ONNX Runtime, fp32": lambda: session.run(None, {"picture": picture})
    }
    core = openvino_core()
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    for name, hint in (("fp32", "f32"), ("bf16", "bf16")):
        if name == "bf16" and "BF16" not in able:
            continue
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint}
        request = core.compile_model(str(path), "CPU", settings).create_infer_request()

        def run(request: Any = request) -> object:
            return request.infer([picture], share_inputs=True, share_outputs=True)

        runs[f"SegFormer-B0, OpenVINO, {name}"] = run
    return runs


def own_runs() -> dict[str, Run]:
    """Return camseg-lite on each engine and precision, from a frame to its mask."""
    frame = np.random.default_rng(0).integers(0, 256, (360, WIDTH, 3), np.uint8)
    runs: dict[str, Run] = {}
    for provider, precisions in (("cpu", ("fp32", "int8")), ("openvino", ("fp32", "auto"))):
        for precision in precisions:
            segmenter = Segmenter.from_pretrained(provider=provider, precision=precision)

            def run(segmenter: Segmenter = segmenter) -> object:
                return segmenter.segment(frame)

            runs[f"camseg-lite, {segmenter.engine}, {segmenter.precision}"] = run
    return runs


def main() -> None:
    """Print the table: median and 95th percentile of each, in ms."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=at_least(1), default=40)
    frames = parser.parse_args().frames
    with tempfile.TemporaryDirectory() as folder:
        try:
            runs = own_runs() | peer_runs(exported(Path(folder)))
        except CamSegError as error:
            sys.exit(str(error))
        times: dict[str, list[float]] = {name: [] for name in runs}
        for number in range(frames + 3):
            for name, run in runs.items():
                began = time.perf_counter()
                run()
                if number >= 3:
                    times[name].append(1000 * (time.perf_counter() - began))
    rows = [
        [name, f"{median(values):.1f}", f"{np.percentile(values, 95):.1f}"]
        for name, values in times.items()
    ]
    print(markdown_table(["network, engine, precision", "p50 ms", "p95 ms"], rows))
    print(f"\n{machine_and_torch()}; {describe_machine()['Processor']}")


if __name__ == "__main__":
    main()
