"""The bundled model's masks, byte for byte: a change of the code must not change the masks.

The stored hashes are of masks by ONNX Runtime (provider cpu), the reference engine, on a processor
with AVX-512 VNNI. OpenVINO's masks differ by processor and version; `test_openvino.py` holds that
they are the same at every run. After a deliberate change of the model, run
`python tests/core/test_golden_masks.py` and add it to CHANGELOG.md.
"""

import hashlib
import json
from pathlib import Path

import pytest

from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_core.runtime import Sampling, Segmenter

GOLDEN = Path(__file__).with_name("golden_masks.json")
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


def has_vnni() -> bool:
    """Whether int8 products are exact here; without VNNI, ONNX Runtime's saturate."""
    return "avx512_vnni" in Path("/proc/cpuinfo").read_text(encoding="utf-8")


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_masks_of_the_bundled_model_on_onnx_runtime_are_the_same_to_the_byte(
    pinned_versions: None, precision: str
) -> None:
    if not has_vnni():
        pytest.skip("the stored masks are of a processor with AVX-512 VNNI")
    stored = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert hashes(precision) == stored[f"onnxruntime cpu {precision}"]


if __name__ == "__main__":
    made = {f"onnxruntime cpu {precision}": hashes(precision) for precision in ("fp32", "int8")}
    GOLDEN.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
