"""Export a model from torch to ONNX graphs in each precision, checked against torch."""

from camseg_core.export.check import Scores
from camseg_core.export.trace import trace_all
from camseg_core.export.variants import Exported, export_onnx

__all__ = ["Exported", "Scores", "export_onnx", "trace_all"]
