"""The bundled model's masks, byte for byte: a change of the code must not change the masks.

The stored hashes are of masks by ONNX Runtime (provider cpu), the reference engine, on some kinds
of processors: its arithmetic depends on their instructions. OpenVINO's masks differ by processor
and version; `test_openvino.py` holds that they are the same at every run. After a deliberate change
of the model, run `python tests/core/test_golden_masks.py`, on each kind of processor that is at
hand, and add it to CHANGELOG.md.
"""

import hashlib
import json
from pathlib import Path

import pytest

from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_core.runtime import Sampling, Segmenter
from camseg_core.weights import checkpoint_folder

GOLDEN = Path(__file__).with_name("golden_masks.json")
PROCESSORS = ("avx512_vnni", "avx512f", "avx_vnni", "avx2")
"""From the newest instructions to the oldest."""

WEATHERS = ("clear", "night", "rain", "fog", "snow")
SIZES = ((360, 480), (480, 640), (227, 320), (720, 1280))
SAMPLINGS = {
    "one_step": (Sampling(), 20),
    "ddim, 4 steps, 2 samples": (Sampling("ddim", 4, samples=2), 2),
    "3 passes": (Sampling(passes=3, order="confident"), 2),
}


def frames() -> list[SyntheticDrive]:
    """Twenty drives of one frame: each weather at each size."""
    return [
        SyntheticDrive(1, height, width, seed=seed, weather=weather)
        for seed, (height, width) in enumerate(SIZES)
        for weather in WEATHERS
    ]


def hashes(precision: str) -> dict[str, list[str]]:
    """By sampling, the hash of each frame's mask."""
    segmenter = Segmenter.from_pretrained("camseg-lite", provider="cpu", precision=precision)
    images = [drive[0].image for drive in frames()]
    found: dict[str, list[str]] = {}
    for name, (sampling, count) in SAMPLINGS.items():
        drawn = segmenter.with_sampling(sampling)
        masks = [drawn.segment(image).mask for image in images[:count]]
        found[name] = [hashlib.sha256(mask.tobytes()).hexdigest()[:16] for mask in masks]
    return found


def processor() -> str:
    """The instructions that decide by which kernels ONNX Runtime computes, or an empty string."""
    found = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    return next((kind for kind in PROCESSORS if kind in found), "")


def graphs() -> str:
    """The hash of all graphs of the bundled model."""
    folder = checkpoint_folder("camseg-lite")
    files = sorted(path for path in folder.rglob("*.onnx*") if path.is_file())
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]


def store() -> None:
    """Write the masks of this processor beside those of others by the same graphs."""
    stored = json.loads(GOLDEN.read_text(encoding="utf-8"))
    others = stored["masks"] if stored["graphs"] == graphs() else {}
    made = {precision: hashes(precision) for precision in ("fp32", "int8")}
    content = {"graphs": graphs(), "masks": {**others, processor(): made}}
    GOLDEN.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def test_the_stored_masks_are_of_the_bundled_model() -> None:
    assert json.loads(GOLDEN.read_text(encoding="utf-8"))["graphs"] == graphs()


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_masks_of_the_bundled_model_on_onnx_runtime_are_the_same_to_the_byte(
    pinned_versions: None, precision: str
) -> None:
    stored = json.loads(GOLDEN.read_text(encoding="utf-8"))["masks"]
    if processor() not in stored:
        pytest.skip(f"masks are stored of processors with {' or '.join(stored)}")
    assert hashes(precision) == stored[processor()][precision]


if __name__ == "__main__":
    store()
