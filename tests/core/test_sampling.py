"""Sampling changed on a loaded model: masks as if loaded so, on the same engine if it can."""

import argparse
import shutil
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from fused_graph import without_graphs, write_fused
from red_engine import RedEngine, red_segmenter

from camseg_core.cli.options import add_sampling_options
from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_core.diffusion.samplers import SAMPLERS
from camseg_core.diffusion.sampling import OPTIONS, Fused, Option
from camseg_core.errors import ConfigError, ModelError
from camseg_core.runtime import Sampling, Segmenter
from camseg_core.weights import CAMSEG_LITE, checkpoint_folder

FRAME = SyntheticDrive(frames=1)[0].image[160:288, 100:260]


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    """The bundled model in its parts, which any sampling can share."""
    return Segmenter.from_pretrained(provider="cpu", precision="fp32", threads=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint folder with the parts, and a fused graph for ddim:4 that sees class 13 only."""
    folder = without_graphs(tmp_path)
    shutil.copytree(checkpoint_folder("camseg-lite") / "onnx" / "fp32", folder / "onnx" / "fp32")
    write_fused(folder, Fused("ddim", 4))
    return folder


@pytest.fixture
def no_loading(monkeypatch: pytest.MonkeyPatch, segmenter: Segmenter) -> pytest.MonkeyPatch:
    """Loading any graph is a failure."""
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda *_, **__: pytest.fail("a graph is loaded")
    )
    return monkeypatch


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling("ddim", 4),
        Sampling("dpm_solver", 3, temperature=0.5, seed=3),
        Sampling("ancestral", 3, temperature=0.0),
        Sampling("ddim", 2, eta=1.0, samples=2),
        Sampling("ddim", 2, passes=3, order="confident"),
        Sampling(seed=9),
    ],
    ids=str,
)
def test_a_changed_model_gives_what_one_that_is_loaded_so_gives(
    segmenter: Segmenter, sampling: Sampling
) -> None:
    changed, loaded = (
        segmenter.with_sampling(sampling),
        Segmenter.from_pretrained(provider="cpu", precision="fp32", threads=1, **asdict(sampling)),
    )
    assert changed._engine is segmenter._engine
    assert changed.sampling == loaded.sampling == sampling
    assert changed.temperature == loaded.temperature
    before, found, expected = (each.segment(FRAME) for each in (segmenter, changed, loaded))
    assert np.array_equal(found.mask, expected.mask)
    assert np.array_equal(found.confidence, expected.confidence)
    assert not np.array_equal(found.confidence, before.confidence)
    again = changed.with_sampling(segmenter.sampling).segment(FRAME)
    assert np.array_equal(again.confidence, before.confidence)


def test_a_graph_of_the_whole_network_is_loaded_where_there_is_one_and_left_where_it_does_not_suit(
    folder: Path,
) -> None:
    parts = Segmenter.from_pretrained(folder, threads=1)
    fused = parts.with_sampling(Sampling("ddim", 4))
    assert (fused.segment(FRAME).mask == 13).all()
    assert list(fused.segment(FRAME).timings) == ["preprocess", "network", "postprocess"]
    for same in (Sampling("ddim", 4, seed=5), Sampling("ddim", 4, temperature=0.5)):
        assert fused.with_sampling(same)._engine is fused._engine
    for other in (
        Sampling("ddim", 3),
        Sampling("ddim", 4, eta=0.5),
        Sampling("ddim", 4, passes=2),
        Sampling("ddim", 4, samples=2),
    ):
        assert parts.with_sampling(other)._engine is parts._engine
        result, expected = (each.with_sampling(other).segment(FRAME) for each in (fused, parts))
        assert np.array_equal(result.confidence, expected.confidence)


def test_what_else_was_changed_stays(segmenter: Segmenter) -> None:
    changed = segmenter.with_logit_scale(0.5).with_sampling(Sampling("ddim", 2))
    assert changed.config.logit_scale == 0.5
    assert changed.labels is segmenter.labels


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sampler": "euler"}, "sampler must be one of one_step"),
        ({"steps": 0}, "steps must be between 1 and 1000, got 0"),
        ({"sampler": "ddim", "steps": 1001}, "steps must be between 1 and 1000, got 1001"),
        ({"temperature": -1.0}, r"temperature must be >= 0, got -1\.0"),
        ({"eta": 1.5}, r"eta must be >= 0 and <= 1, got 1\.5"),
        ({"samples": 0}, "samples must be >= 1, got 0"),
        ({"passes": 0}, "passes must be >= 1, got 0"),
        ({"order": "best"}, "order must be one of random, confident, got 'best'"),
        ({"seed": -1}, "seed must be >= 0, got -1"),
        ({"steps": 1.5}, r"steps must be a whole number, got 1\.5"),
        ({"steps": None}, "steps must be a whole number, got None"),
        ({"samples": True}, "samples must be a whole number, got True"),
        ({"temperature": "0.5"}, r"temperature must be a number, got '0\.5'"),
        ({"eta": None}, "eta must be a number, got None"),
    ],
)
def test_what_does_not_suit_is_refused_as_at_loading_and_without_loading(
    segmenter: Segmenter, no_loading: pytest.MonkeyPatch, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        segmenter.check_sampling(Sampling(**options))
    with pytest.raises(ConfigError, match=said):
        segmenter.with_sampling(Sampling(**options))
    with pytest.raises(ConfigError, match=said):
        Segmenter.from_pretrained(**options)


def test_a_check_loads_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = [
        Segmenter.from_pretrained(folder, threads=1, sampler="ddim", steps=steps)
        for steps in (3, 4)
    ]
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda *_, **__: pytest.fail("a graph is loaded")
    )
    for segmenter in both:
        for sampling in (Sampling(), Sampling("ddim", 4), Sampling("ddim", 3), Sampling(passes=4)):
            segmenter.check_sampling(sampling)


def test_the_check_reports_missing_parts(tmp_path: Path) -> None:
    folder = without_graphs(tmp_path)
    write_fused(folder, Fused("ddim", 4))
    segmenter = Segmenter.from_pretrained(folder, sampler="ddim", steps=4)
    segmenter.check_sampling(Sampling("ddim", 4, seed=1))
    for refused in (segmenter.check_sampling, segmenter.with_sampling):
        with pytest.raises(ModelError, match=r"missing .*image_encoder\.onnx"):
            refused(Sampling("ddim", 5))
    assert (segmenter.segment(FRAME).mask == 13).all()


def test_passes_need_a_graph_that_takes_a_part_of_the_mask() -> None:
    sequence = replace(CAMSEG_LITE, transformer=replace(CAMSEG_LITE.transformer, fusion="sequence"))
    parts = RedEngine()
    parts.fused = None
    for segmenter in (red_segmenter(parts), red_segmenter(RedEngine(), sequence)):
        for refused in (segmenter.check_sampling, segmenter.with_sampling):
            with pytest.raises(
                ConfigError,
                match="passes must be 1, got 2: camseg-lite has no graph that takes "
                "the known part of a mask",
            ):
                refused(Sampling(passes=2))


def test_every_field_but_streams_is_an_option_with_its_default() -> None:
    assert [option.name for option in OPTIONS] == [
        each.name for each in fields(Sampling) if each.name != "streams"
    ]
    for option in OPTIONS:
        assert getattr(Sampling(), option.name) == option.default
        option.check(option.default)
        assert option.choices or option.minimum is not None


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_the_command_line_has_each_option_with_its_help_and_default(option: Option) -> None:
    parser = argparse.ArgumentParser()
    add_sampling_options(parser)
    (action,) = (each for each in parser._actions if each.dest == option.name)
    assert action.default == option.default
    assert option.help[1:].rstrip(".") in str(action.help)
    smallest = option.choices[-1] if option.choices else str(option.minimum)
    given = parser.parse_args([f"--{option.name}", smallest])
    assert getattr(given, option.name) == option.kind(smallest)


def test_an_unknown_option_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'sampling_steps'"):
        Segmenter.from_pretrained(sampling_steps=4)


def test_an_option_without_effect_changes_no_mask_and_the_others_do(
    segmenter: Segmenter,
) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    given = {"steps": 4, "temperature": 0.1, "eta": 1.0, "seed": 5}
    for sampler in SAMPLERS:
        for name, value in given.items():
            before = Sampling(sampler=sampler, steps=1 if name == "steps" else 3)
            after = replace(before, **{name: value})
            results = [segmenter.with_sampling(each).segment(rgb) for each in (before, after)]
            same = np.array_equal(*(each.confidence for each in results))
            assert same == (name in after.without_effect), (sampler, name)


def test_the_defaults_all_have_an_effect() -> None:
    assert Sampling().without_effect == {}
    assert set(Sampling(sampler="ancestral", temperature=0.5).without_effect) == {"temperature"}
    assert set(Sampling(order="confident", eta=0.5).without_effect) == {"order", "eta"}
    frozen = Sampling(sampler="ddim", temperature=0, samples=4, seed=9)
    assert set(frozen.without_effect) == {"samples", "seed"}
