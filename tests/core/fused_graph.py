"""Checkpoint folders with a made-up graph of the whole network."""

import shutil
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from camseg_core.config.model import load_config
from camseg_core.diffusion.sampling import Fused
from camseg_core.runtime.engine import graph_path
from camseg_core.weights import checkpoint_folder


def without_graphs(tmp_path: Path) -> Path:
    """A checkpoint folder with nothing to run."""
    return Path(
        shutil.copytree(
            checkpoint_folder("camseg-lite"),
            tmp_path / "model",
            ignore=shutil.ignore_patterns("onnx", "*.safetensors"),
        )
    )


def write_fused(folder: Path, fused: Fused) -> None:
    """A network that sees class 13 everywhere, as surely as its noise's first number says."""
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["b", "h", "w", 3])
    channels = load_config(folder / "config.json").denoised_channels
    start = helper.make_tensor_value_info("start", TensorProto.FLOAT, ["b", "n", channels])
    sharpness = helper.make_tensor_value_info("sharpness", TensorProto.FLOAT, [])
    outputs = [
        helper.make_tensor_value_info(name, kind, ["b", "h", "w"])
        for name, kind in (("mask", TensorProto.UINT8), ("confidence", TensorProto.FLOAT))
    ]
    constants = [
        helper.make_tensor("thirteen", TensorProto.UINT8, [1], [13]),
        *(
            helper.make_tensor(name, TensorProto.INT64, [len(values)], values)
            for name, values in (
                ("last", [3]),
                ("zeros", [0, 0]),
                ("ones", [1, 1]),
                ("inner", [1, 2]),
            )
        ),
    ]
    nodes = [
        helper.make_node("Cast", ["image"], ["wide"], to=TensorProto.INT32),
        helper.make_node("ReduceMin", ["wide", "last"], ["plane"], keepdims=0),
        helper.make_node("Shape", ["plane"], ["size"]),
        helper.make_node("Expand", ["thirteen", "size"], ["mask"]),
        helper.make_node("Slice", ["start", "zeros", "ones", "inner"], ["first"]),
        helper.make_node("Mul", ["first", "sharpness"], ["scaled"]),
        helper.make_node("Expand", ["scaled", "size"], ["confidence"]),
    ]
    graph = helper.make_graph(nodes, "fused", [image, start, sharpness], outputs, constants)
    path = graph_path(folder, "fp32", fused.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path
    )
