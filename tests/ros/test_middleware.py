"""The environment for processes that handle images."""

import xml.etree.ElementTree as ElementTree
from importlib import metadata

import pytest

from camseg_ros.middleware import (
    ALLOCATOR,
    OLD_PROFILE,
    PROFILE,
    TRANSPORT_CHOICES,
    environment,
    large_images_hint,
    share_file,
)

XML = "{http://www.eprosima.com}"


@pytest.mark.parametrize(
    ("wheel", "variable"), [("ros-fastdds", PROFILE), ("ros-fastrtps", OLD_PROFILE)]
)
def test_the_profile_and_the_allocator_are_set(
    monkeypatch: pytest.MonkeyPatch, wheel: str, variable: str
) -> None:
    def distribution(name: str) -> object:
        if name != wheel:
            raise metadata.PackageNotFoundError(name)
        return object()

    monkeypatch.setattr(metadata, "distribution", distribution)
    path = str(share_file("config/fastdds.xml"))
    assert environment({"PATH": "/bin"}) == {**ALLOCATOR, variable: path}
    assert environment({"ROS_DISTRO": "kilted"}) == {**ALLOCATOR, PROFILE: path}
    assert environment({"ROS_DISTRO": "jazzy"}) == {**ALLOCATOR, OLD_PROFILE: path}


@pytest.mark.parametrize("variable", TRANSPORT_CHOICES)
def test_transports_that_the_user_chose_are_left_alone(variable: str) -> None:
    assert environment({variable: "mine"}) == ALLOCATOR


def test_what_the_user_set_is_never_replaced() -> None:
    assert "MALLOC_TOP_PAD_" not in environment({"MALLOC_TOP_PAD_": "1"})


def test_an_empty_variable_is_not_a_choice() -> None:
    assert environment({PROFILE: "", "ROS_DISTRO": "kilted"})[PROFILE]


def test_the_profile_can_be_left_out() -> None:
    assert environment({}, profile=False) == ALLOCATOR


def test_the_profile_has_a_large_shared_memory_segment_and_no_builtin_transports() -> None:
    root = ElementTree.parse(share_file("config/fastdds.xml")).getroot()
    transports = {t.findtext(f"{XML}type"): t for t in root.iter(f"{XML}transport_descriptor")}
    assert set(transports) == {"SHM", "UDPv4"}
    assert transports["SHM"].findtext(f"{XML}segment_size") == "67108864"
    assert transports["SHM"].findtext(f"{XML}maxMessageSize") == "16777216"
    (participant,) = root.iter(f"{XML}participant")
    assert participant.get("is_default_profile") == "true"
    assert participant.findtext(f"{XML}rtps/{XML}useBuiltinTransports") == "false"
    used = [
        entry.text
        for entry in participant.iterfind(f"{XML}rtps/{XML}userTransports/{XML}transport_id")
    ]
    assert sorted(used) == sorted(t.findtext(f"{XML}transport_id") for t in transports.values())


@pytest.mark.parametrize(
    ("distribution", "variable", "transports"),
    [("humble", OLD_PROFILE, False), ("jazzy", OLD_PROFILE, True), ("kilted", PROFILE, True)],
)
def test_the_hint_for_large_images_is_that_of_the_distribution(
    distribution: str, variable: str, transports: bool
) -> None:
    hint = large_images_hint("rmw_fastrtps_cpp", {"ROS_DISTRO": distribution})
    assert f"{variable}={share_file('config/fastdds.xml')}" in hint
    assert ("FASTDDS_BUILTIN_TRANSPORTS" in hint) is transports
    assert large_images_hint("rmw_cyclonedds_cpp", {"ROS_DISTRO": distribution}) == ""
