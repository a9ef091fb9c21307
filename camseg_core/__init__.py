"""Semantic segmentation by generating mask latents (CAM-Seg, arXiv 2503.15617), without ROS."""

__version__ = "0.2.0"
