"""Export a model from torch to ONNX graphs in each precision, checked against torch."""

from camseg_core.export.check import Scores
from camseg_core.export.graphs import Exported, export_onnx, trace_all

__all__ = ["Exported", "Scores", "export_onnx", "trace_all"]
