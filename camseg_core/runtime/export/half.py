"""An fp32 graph computed in fp16; what goes in and comes out keeps its type."""

import onnx
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

KEPT_IN_FP32 = ("LayerNormalization", "Softmax", "Cos", "Sin")
"""Operators that stay in fp32: sums of squares and exponentials leave fp16's range, and a sinusoid's angles its precision."""


def to_half(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph in fp16, with fp32 and uint8 at its ends. `graph` is used up."""
    return convert_float_to_float16(graph, keep_io_types=True, op_block_list=[*DEFAULT_OP_BLOCK_LIST, *KEPT_IN_FP32])
