"""The runtime on the vehicle: numpy in, numpy out, on ONNX Runtime or OpenVINO; never torch."""

from camseg_core.diffusion.sampling import Sampling
from camseg_core.runtime.geometry import Fit, View
from camseg_core.runtime.segmenter import Segmentation, Segmenter
from camseg_core.runtime.stream import Stream

__all__ = ["Fit", "Sampling", "Segmentation", "Segmenter", "Stream", "View"]
