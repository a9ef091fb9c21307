"""Semantic segmentation by generating mask latents (CAM-Seg, arXiv 2503.15617), without ROS."""

import os

__version__ = "0.2.0"

# ONNX Runtime would report its use over the network; it reads this when it is imported
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
