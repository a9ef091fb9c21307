"""The model as the parameters ask for it."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from rclpy.node import Node

from camseg_core.diffusion.sampling import Sampling
from camseg_core.errors import CamSegError, ConfigError, ModelError
from camseg_core.runtime import Segmenter
from camseg_core.runtime.geometry import Fit
from camseg_core.weights import checkpoint_folder
from camseg_ros.parameters import Parameters
from camseg_ros.pipeline import Pipeline, check_model, class_table, load_segmenter, warm_up_size

DEFAULTS = Parameters()
QUICK = replace(DEFAULTS, warm_up_sizes=())


def test_the_defaults_are_those_of_the_model() -> None:
    assert DEFAULTS.sampling == Sampling() == load_segmenter(QUICK).sampling


def test_a_negative_temperature_is_the_models_own() -> None:
    assert replace(DEFAULTS, temperature=-0.5).sampling.temperature is None
    assert replace(DEFAULTS, temperature=0.0).sampling.temperature == 0.0


def test_the_sampling_is_what_the_parameters_say() -> None:
    given = replace(QUICK, sampler="ddim", steps=3, temperature=0.5, eta=0.2, samples=2, seed=9)
    assert (
        given.sampling
        == Sampling("ddim", 3, 0.5, 0.2, 2, 1, "random", 9)
        == load_segmenter(given).sampling
    )


@pytest.mark.parametrize(
    ("text", "size"), [("640x480", (640, 480)), (" 1x1 ", (1, 1)), ("99999x1", (99999, 1))]
)
def test_a_size_is_width_and_height(text: str, size: tuple[int, int]) -> None:
    assert warm_up_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["640", "640x", "0x480", "640x-1", "640X480", "640x480x3", "100000x1", "axb", "6.5x3", "٣x٣"],
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_segmenter(replace(DEFAULTS, warm_up_sizes=("640x480", text)))
    assert (
        str(caught.value)
        == "parameter 'warm_up_sizes' must hold sizes WIDTHxHEIGHT in pixels such as 640x480, "
        f"got {text!r}"
    )


@pytest.mark.parametrize(
    ("cameras", "max_batch", "batches"),
    [((), 8, [1]), (("a", "b", "c"), 8, [1, 2, 3]), (("a", "b", "c"), 2, [1, 2])],
)
def test_it_is_warmed_up_for_every_size_and_number_of_frames_to_come(
    monkeypatch: pytest.MonkeyPatch, cameras: tuple[str, ...], max_batch: int, batches: list[int]
) -> None:
    seen: list[tuple[int, tuple[int, ...]]] = []
    monkeypatch.setattr(
        Segmenter,
        "segment_batch",
        lambda self, frames, *rest: seen.append((len(frames), frames[0].shape)) or [],
    )
    given = replace(DEFAULTS, warm_up_sizes=("64x48", "32x32"), provider="cpu")
    load_segmenter(replace(given, cameras=cameras, max_batch=max_batch))
    assert seen == [(batch, shape) for shape in ((48, 64, 3), (32, 32, 3)) for batch in batches]


def test_it_is_warmed_up_as_the_cameras_frames_are_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Fit] = []
    monkeypatch.setattr(
        Segmenter, "segment_batch", lambda self, frames, fits: seen.extend(fits) or []
    )
    roi = (0.0, 0.2, 1.0, 0.9)
    own = {"b.resize_mode": "crop", "b.roi": roi}
    given = replace(DEFAULTS, warm_up_sizes=("64x48",), provider="cpu", max_batch=1, own=own)
    load_segmenter(replace(given, cameras=("a", "b", "c")))
    assert seen == [Fit(), Fit("crop", roi)]


def test_graphs_are_kept_for_the_size_of_every_camera() -> None:
    many = tuple("abcdefg")
    given = replace(QUICK, cameras=many, provider="cpu")
    assert load_segmenter(given)._engine.options.kept_sizes >= len(many)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"model": "/none/there"}, "/none/there"),
        ({"provider": "tensorrt"}, "tensorrt"),
        ({"precision": "fp16"}, "fp16"),
    ],
)
def test_what_does_not_suit_is_refused_with_a_reason(values: dict[str, object], word: str) -> None:
    with pytest.raises(CamSegError, match=word):
        load_segmenter(replace(QUICK, **values))  # type: ignore[arg-type]


def test_the_class_table_is_that_of_the_groups_and_the_enabled_classes() -> None:
    segmenter = load_segmenter(QUICK)
    assert class_table(segmenter.labels, DEFAULTS).labels == segmenter.labels
    table = class_table(
        segmenter.labels,
        replace(DEFAULTS, class_groups=("flat:100 = road, sidewalk",), enabled_classes=("flat",)),
    )
    assert [(label.id, label.name) for label in table.labels] == [(100, "flat")]
    with pytest.raises(ConfigError, match="did you mean 'road'"):
        class_table(segmenter.labels, replace(DEFAULTS, enabled_classes=("raod",)))


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"enabled_classes": ("raod",)}, "did you mean 'road'"),
        ({"class_groups": ("drivable:300 = road",)}, "must be 0 to 254, got '300'"),
        ({"class_groups": ("drivable",)}, "must be NAME = CLASS"),
        ({"warm_up_sizes": ("0x480",)}, "WIDTHxHEIGHT"),
        ({"model": "/none/there"}, "no model '/none/there'"),
    ],
)
def test_what_does_not_suit_the_model_is_refused_before_it_is_loaded(
    values: dict[str, object], word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("camseg_core.runtime.providers.load_engine")
    with pytest.raises(CamSegError, match=word):
        check_model(replace(DEFAULTS, **values))  # type: ignore[arg-type]


def test_loading_uses_the_engine_cache_only_where_one_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caches: list[object] = []
    loaded = load_segmenter(QUICK)
    monkeypatch.setattr(
        Segmenter,
        "from_pretrained",
        lambda model, **given: caches.append(given["engine_cache"]) or loaded,
    )
    load_segmenter(QUICK)
    load_segmenter(replace(QUICK, engine_cache="/var/cache/camseg"))
    assert caches == [None, "/var/cache/camseg"]


def test_a_model_is_not_loaded_again_from_a_folder_that_was_replaced(
    ros: None, tmp_path: Path
) -> None:
    """As after a failure: its masks would have other ids than the labels say."""
    folder = Path(shutil.copytree(checkpoint_folder("camseg-lite"), tmp_path / "model"))
    node = Node("owner")
    pipeline = Pipeline(node, replace(QUICK, model=str(folder)), lambda text: None)
    try:
        assert pipeline.reload().labels == pipeline.segmenter.labels
        labels = folder / "labels.json"
        labels.write_text(labels.read_text().replace('"road"', '"lawn"'))  # of the same size
        with pytest.raises(ModelError, match="must hold the model that is in use, but labels.json"):
            pipeline.reload()
    finally:
        pipeline.destroy()
        node.destroy_node()
