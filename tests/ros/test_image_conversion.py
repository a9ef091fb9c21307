"""Which converter is used, and that a wrong one is not."""

import numpy as np
import pytest

from camseg_core.errors import ConfigError
from camseg_ros import image_conversion
from camseg_ros.image_conversion import (
    CONVERTED,
    LOADERS,
    Convert,
    Converter,
    choose_converter,
    is_exact,
    known_image,
    load_cv_bridge,
)

PATHS = {name: load() for name, load in LOADERS}


def convert_by(name: str) -> Convert:
    convert = PATHS[name]
    if convert is None:
        where = (
            "runs on a ROS install with ros-$ROS_DISTRO-cv-bridge"
            if name == "cv_bridge"
            else "runs where rosbags-image is installed"
        )
        pytest.skip(f"{name} does not import here; {where}")
    return convert


def test_the_chosen_converter_covers_every_encoding() -> None:
    converter = choose_converter()
    assert converter.name
    assert set(converter.functions) == set(CONVERTED)


@pytest.mark.parametrize("encoding", CONVERTED)
def test_rosbags_image_is_exact(encoding: str) -> None:
    assert is_exact(convert_by("rosbags-image"), encoding)


@pytest.mark.parametrize("encoding", CONVERTED)
def test_both_paths_give_identical_arrays(encoding: str) -> None:
    cv_bridge, rosbags_image = convert_by("cv_bridge"), convert_by("rosbags-image")
    if not is_exact(cv_bridge, encoding):
        pytest.skip(
            f"this cv_bridge returns wrong pixels for {encoding}, so the node does not use it"
        )
    step = known_image(encoding)[0].step // 4 * 38
    data = np.random.default_rng(1).integers(0, 256, 22 * step).astype(np.uint8)
    image = image_conversion.TightImage(22, 38, encoding, step, data)
    assert np.array_equal(cv_bridge(image), rosbags_image(image))


def test_a_converter_with_wrong_pixels_is_not_exact() -> None:
    right = convert_by("rosbags-image")
    assert not is_exact(lambda image: right(image)[..., ::-1], "bgr8")
    assert not is_exact(lambda image: right(image) ^ 1, "bayer_rggb8")
    assert not is_exact(lambda image: image.data[:3], "mono8")


def test_a_converter_that_cannot_do_an_encoding_leaves_it_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = convert_by("rosbags-image")

    def only_bgr(image: image_conversion.TightImage) -> image_conversion.Pixels:
        if image.encoding != "bgr8":
            raise RuntimeError("Unable to convert")
        return right(image)

    monkeypatch.setattr(
        image_conversion, "LOADERS", (("first", lambda: only_bgr), ("second", lambda: right))
    )
    converter = choose_converter()
    assert converter.functions["bgr8"] is only_bgr
    assert converter.functions["bayer_grbg8"] is right
    assert converter.name.startswith("first (bgr8) + second (mono8")


def test_without_any_converter_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        image_conversion,
        "LOADERS",
        (("absent", lambda: None), ("wrong", lambda: lambda image: image.data)),
    )
    with pytest.raises(ConfigError, match=r"install rosbags-image .*cv-bridge"):
        choose_converter()


def test_an_encoding_without_converter_says_what_to_install() -> None:
    with pytest.raises(ConfigError, match="cannot convert bgr8 images; install rosbags-image"):
        Converter("nothing", {}).to_rgb(np.zeros((2, 6), np.uint8), "bgr8", 2, 2)


def test_a_cv_bridge_that_cannot_be_imported_is_no_error() -> None:
    assert load_cv_bridge() is None or callable(load_cv_bridge())
