"""Each ROS distribution since Humble can read the metadata of written bags.

The readers below are those of `rosbag2_storage` (`yaml.hpp`, `qos.cpp`) in the branches of the
distributions: which entries they read from a version on, and as which type.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from mcap.reader import make_reader

from camseg_ros.bag.make import BagTopics, LabelledFrame, write_bag

INTEGERS = ("history", "depth", "reliability", "durability", "liveliness")
TIMES = ("deadline", "lifespan", "liveliness_lease_duration")
DISTRIBUTIONS = {"humble": 5, "iron": 7, "jazzy": 9, "rolling": 9}
"""By name, the newest version of the metadata that the distribution knows."""


def check_qos(text: Any) -> None:
    """Read a QoS as all distributions do for versions below 9."""
    assert isinstance(text, str)
    for profile in yaml.safe_load(text):
        assert all(type(profile[name]) is int for name in INTEGERS)
        assert all(type(profile[name][part]) is int for name in TIMES for part in ("sec", "nsec"))
        assert type(profile["avoid_ros_namespace_conventions"]) is bool


def check_file(content: dict[str, Any]) -> None:
    """Read the times and the count of a bag or of one of its files."""
    assert type(content["duration"]["nanoseconds"]) is int
    assert type(content["starting_time"]["nanoseconds_since_epoch"]) is int
    assert type(content["message_count"]) is int


def check_metadata(content: dict[str, Any], known: int) -> None:
    """Read metadata as a distribution that knows versions up to `known` does."""
    version = content["version"]
    check_file(content)
    assert content["storage_identifier"] == "mcap"
    for each in content["topics_with_message_count"]:
        assert type(each["message_count"]) is int
        topic = each["topic_metadata"]
        names = ["name", "type", "serialization_format"]
        if version >= 7 <= known:
            names.append("type_description_hash")
        assert all(isinstance(topic[name], str) for name in names)
        if version >= 9 <= known:
            assert isinstance(topic["offered_qos_profiles"], list)
        else:
            check_qos(topic["offered_qos_profiles"])
    assert all(isinstance(path, str) for path in content["relative_file_paths"])
    assert content["compression_format"] == content["compression_mode"] == ""
    for file in content["files"]:
        assert isinstance(file["path"], str)
        check_file(file)
    if version >= 6 <= known:
        assert content["custom_data"] in (None, {})
    if version >= 8 <= known:
        assert isinstance(content["ros_distro"], str)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("written") / "bag"
    image, label = np.zeros((4, 6, 3), np.uint8), np.zeros((4, 6), np.uint8)
    write_bag([LabelledFrame(10**9, image, "0", label)], path, BagTopics(focal=0.0))
    return path


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_a_distribution_reads_the_metadata(distribution: str, written: Path) -> None:
    content = yaml.safe_load((written / "metadata.yaml").read_text(encoding="utf-8"))
    check_metadata(content["rosbag2_bagfile_information"], DISTRIBUTIONS[distribution])


def test_the_channels_of_the_file_say_their_qos_as_text(written: Path) -> None:
    (path,) = written.glob("*.mcap")
    with path.open("rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None
    for channel in summary.channels.values():
        check_qos(channel.metadata["offered_qos_profiles"])
