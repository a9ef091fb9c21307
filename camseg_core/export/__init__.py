"""torch to ONNX: the graphs of a model in each precision, kept only if they are as good as the model in torch."""

from camseg_core.export.check import Scores
from camseg_core.export.trace import trace_all
from camseg_core.export.variants import Exported, export_onnx

__all__ = ["Exported", "Scores", "export_onnx", "trace_all"]
