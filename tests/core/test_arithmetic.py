"""The counted work, compared with arithmetic by hand and with published figures."""

import math

import pytest
import torch
from lite import LABELS, tiny_lite
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from camseg_core.diffusion.passes import PassOptions
from camseg_core.evaluation.flops import frame_work, vehicle_parameters, work_by_stage
from camseg_core.evaluation.roofline import Work, repeats_of
from camseg_core.labels import CITYSCAPES
from camseg_core.model.camseg import CamSeg
from camseg_core.weights import CAM_SEG_BASE_768

TERA = 1e12


def test_the_denoisers_work_is_that_of_its_layers() -> None:
    model = tiny_lite()
    work = work_by_stage(model, 96, 128)["denoiser"]
    cells, width, channels, condition = (
        6 * 8,
        32,
        4 * 4 * 4,
        16,
    )  # 4×4 latent cells of 4 numbers are denoised at once
    matrices = (
        channels * width + condition * width + (2 + 3) * width**2 + 2 * width**2 + width * channels
    )
    once = 256 * width + width**2  # the step's embedding is the same for all cells
    assert work.multiply_accumulates == cells * matrices + once
    biases = 2 * width + width + width + (2 + 3) * width + 2 * width + channels
    assert work.weights == matrices + once + biases
    # what each layer reads and writes: input, condition, two of the block, two modulations, output
    sides = (
        (channels + width)
        + (condition + width)
        + 2 * (width + width)
        + (width + 3 * width)
        + (width + 2 * width)
        + (width + channels)
    )
    assert work.activations == cells * sides + (256 + width) + (width + width)


def test_work_grows_with_the_frame_and_attention_faster() -> None:
    small, large = (
        frame_work(tiny_lite().config, LABELS, *size).stages for size in ((96, 128), (192, 256))
    )
    for stage in ("image_encoder", "decoder"):
        assert 3.9 < large[stage].multiply_accumulates / small[stage].multiply_accumulates < 4.1
    assert large["transformer"].multiply_accumulates > 4 * small["transformer"].multiply_accumulates
    for stage in ("image_encoder", "transformer", "decoder"):  # scores between tokens are not moved
        assert 3.9 < large[stage].activations / small[stage].activations < 4.1
    assert [each.weights for each in large.values()] == [each.weights for each in small.values()]


def test_a_model_that_is_only_shapes_is_counted_as_a_real_one_is() -> None:
    model = tiny_lite()
    counted = frame_work(model.config, LABELS, 96, 128)
    assert counted.stages == work_by_stage(model, 96, 128)
    assert counted.parameters == vehicle_parameters(model)


def test_more_steps_repeat_the_denoiser_alone() -> None:
    counted = frame_work(tiny_lite().config, LABELS, 96, 128)
    four = counted.with_steps(4)
    one = counted.stages["denoiser"]
    assert four["denoiser"] == Work(
        4 * one.multiply_accumulates, 4 * one.weights, 4 * one.activations
    )
    assert {stage: work for stage, work in four.items() if stage != "denoiser"} == {
        stage: work for stage, work in counted.stages.items() if stage != "denoiser"
    }


def test_the_mask_encoder_stays_at_home() -> None:
    model = tiny_lite()
    encoder = sum(parameter.numel() for parameter in model.mask_autoencoder.encoder.parameters())
    assert (
        vehicle_parameters(model)
        == sum(parameter.numel() for parameter in model.parameters()) - encoder
    )


def test_the_published_model_computes_what_its_authors_state() -> None:
    """At 768×768 in TMAC: encoder 0.64, transformer 0.29 + 0.78, decoder 1.15; total 19.3."""
    published = frame_work(CAM_SEG_BASE_768, CITYSCAPES, 768, 768, as_published=True)
    tera = {stage: work.multiply_accumulates / TERA for stage, work in published.stages.items()}
    assert tera["image_encoder"] == pytest.approx(0.64, abs=0.01)
    assert tera["transformer"] == pytest.approx(0.29 + 0.78, abs=0.01)
    assert tera["denoiser"] / 2 == pytest.approx(0.0823, abs=0.0001)
    assert tera["decoder"] == pytest.approx(1.15, abs=0.01)
    all_steps = {
        stage: work.multiply_accumulates / TERA for stage, work in published.with_steps(100).items()
    }
    assert all_steps["denoiser"] == pytest.approx(16.5, abs=0.05)
    assert sum(all_steps.values()) == pytest.approx(19.3, abs=0.05)
    assert published.parameters / 1e6 == pytest.approx(69.6 + 217.1, abs=0.1)


def test_the_published_transformers_two_halves_are_as_stated() -> None:
    with FakeTensorMode(), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        transformer = CamSeg(CAM_SEG_BASE_768).eval().transformer
        with FlopCounterMode(display=False) as counter:
            transformer.encode_visible(torch.zeros(1, 48 * 48, 16), (48, 48), None, None)
    assert counter.get_total_flops() / 2 / TERA == pytest.approx(0.29, abs=0.005)


def test_the_runtime_embeds_a_step_once_and_leaves_the_images_tokens_out() -> None:
    ours, published = (
        frame_work(CAM_SEG_BASE_768, CITYSCAPES, 768, 768, as_published).stages["denoiser"]
        for as_published in (False, True)
    )
    tokens, embedding = 48 * 48, 256 * 1024 + 1024**2
    assert published.multiply_accumulates == 2 * (
        ours.multiply_accumulates + (tokens - 1) * embedding
    )
    assert published.weights == ours.weights  # read once for all tokens


def test_samples_and_passes_repeat_their_stages() -> None:
    once = {"transformer": 1, "denoiser": 4, "decoder": 1}
    assert repeats_of(4, 1, PassOptions()) == once
    assert repeats_of(4, 3, PassOptions()) == {"transformer": 1, "denoiser": 12, "decoder": 3}
    assert repeats_of(4, 1, PassOptions(5)) == {"transformer": 5, "denoiser": 4, "decoder": 1}
    again = repeats_of(1, 2, PassOptions(2, "confident"))
    assert again == {
        "transformer": 4,
        "denoiser": pytest.approx(2 * (1 + math.cos(math.pi / 4))),
        "decoder": 6,
    }
