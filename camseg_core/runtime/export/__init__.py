"""torch to ONNX: the graphs of a model in each precision, kept only if they are as good as the model in torch."""

from camseg_core.runtime.export.variants import Exported, export_onnx

__all__ = ["Exported", "export_onnx"]
