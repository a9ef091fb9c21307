"""What runs on the vehicle: numpy in, numpy out, on ONNX Runtime. Never imports torch."""

from camseg_core.runtime.segmenter import Segmentation, Segmenter

__all__ = ["Segmentation", "Segmenter"]
