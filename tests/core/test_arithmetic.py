"""The count of multiply-accumulates against arithmetic done by hand."""

from lite import tiny_lite

from camseg_core.model.arithmetic import multiply_accumulates, vehicle_parameters


def test_the_denoisers_arithmetic_is_that_of_its_layers() -> None:
    model = tiny_lite()
    counts = multiply_accumulates(model, 96, 128)
    cells, width, channels, condition = 12 * 16, 32, 4 * 2 * 2, 16  # 2×2 latent cells of 4 numbers are denoised at once
    per_cell = channels * width + condition * width + (2 + 3) * width**2 + 2 * width**2 + width * channels
    once = 256 * width + width**2  # the step's embedding is the same for all cells
    assert counts["denoiser"] == cells * per_cell + once


def test_arithmetic_grows_with_the_frame_and_attention_faster() -> None:
    small, large = multiply_accumulates(tiny_lite(), 96, 128), multiply_accumulates(tiny_lite(), 192, 256)
    for stage in ("image_encoder", "decoder"):
        assert 3.9 < large[stage] / small[stage] < 4.1
    assert large["transformer"] > 4 * small["transformer"]


def test_the_mask_encoder_stays_at_home() -> None:
    model = tiny_lite()
    encoder = sum(parameter.numel() for parameter in model.mask_autoencoder.encoder.parameters())
    assert vehicle_parameters(model) == sum(parameter.numel() for parameter in model.parameters()) - encoder
