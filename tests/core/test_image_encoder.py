"""The image encoder equals the original EfficientNet-Lite0, in the shape that is configured."""

from itertools import accumulate

import numpy as np
import pytest
import torch

from camseg_core.config.backbone import FEATURES, SIZE_MULTIPLE, ImageEncoderConfig, finer_features
from camseg_core.errors import ModelError
from camseg_core.model.camseg import CamSeg
from camseg_core.model.image_encoder import ImageEncoder, SameConv2d, stages
from camseg_core.weights import checkpoint_folder

# by efficientnet-lite-pytorch 0.1.0 with the bundled checkpoint: mean, deviation, two columns
EXPECTED = (
    (0.702755628, 1.0535740322, (0.0, 0.129706, 2.238111), (1.186559, 0.0)),
    (0.1006747723, 12.1056634058, (4.345497, -6.232933, 26.006037), (22.358751, 3.154631)),
    (-0.5188112706, 8.1746090715, (2.841292, -7.968718, 3.262769), (-1.751939, 2.998582)),
    (-0.7544394117, 6.1260009265, (-7.950294, 5.42907, -0.378804), (3.973878, 4.139464)),
)


def test_the_bundled_checkpoint_gives_the_features_of_the_original_backbone() -> None:
    model = CamSeg.from_pretrained(checkpoint_folder("camseg-lite"))
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 64, 96)).astype(np.float32)
    with torch.no_grad():
        maps = model.image_features(torch.from_numpy(pixels))
    for found, (mean, deviation, column, last) in zip(maps, EXPECTED, strict=True):
        values = found.double()
        assert abs(values.mean().item() - mean) < 1e-5
        assert abs(values.std().item() - deviation) < 1e-5
        for cell, expected in ((found[0, :3, 1, 2], column), (found[0, -2:, -1, -1], last)):
            torch.testing.assert_close(cell, torch.tensor(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("depth", "blocks"), [(1.0, (1, 2, 2, 3, 3, 4, 1)), (0.25, (1,) * 7)])
def test_the_features_have_the_channels_and_strides_of_the_configuration(
    depth: float, blocks: tuple[int, ...]
) -> None:
    assert tuple(len(stage) for stage in stages(depth)) == blocks
    encoder = ImageEncoder(ImageEncoderConfig(width=8, depth=depth)).eval()
    x, found = encoder.stem(torch.zeros(1, 3, SIZE_MULTIPLE, 2 * SIZE_MULTIPLE)), []
    ends = {end - 1: number for number, end in enumerate(accumulate(blocks))}
    for number, block in enumerate(encoder.blocks):
        x = block(x)
        if number in ends:
            found.append((ends[number], x.shape[1], SIZE_MULTIPLE // x.shape[2]))
    last = {stride: (number, channels, stride) for number, channels, stride in found if stride > 2}
    assert tuple(last.values()) == FEATURES


@pytest.mark.parametrize(
    ("stride", "finest", "finer"), [(16, 4, (4, 8)), (32, 16, (4, 8, 16)), (32, 4, (4, 8, 16))]
)
def test_tokens_and_finer_features_have_the_strides_of_the_configuration(
    stride: int, finest: int, finer: tuple[int, ...]
) -> None:
    encoder = ImageEncoder(ImageEncoderConfig(8, depth=0.25, stride=stride, finest=finest)).eval()
    tokens, *fine = encoder(torch.zeros(1, 3, 64, 96))
    assert tokens.shape == (1, 8, 64 // stride, 96 // stride)
    assert tuple(feature.stride for feature in finer_features(stride)) == finer
    assert [each.shape[1:] for each in fine] == [
        (channels, 64 // stride, 96 // stride) for _, channels, stride in finer_features(stride)
    ]


def test_sizes_that_the_backbone_does_not_have_are_refused() -> None:
    with pytest.raises(ModelError, match=r"image_encoder.depth must be in \(0, 1\], got 0"):
        ImageEncoderConfig(depth=0)
    with pytest.raises(
        ModelError, match=r"image_encoder.stride must be one of \[4, 8, 16, 32\], got 24"
    ):
        ImageEncoderConfig(stride=24)


@pytest.mark.parametrize(("depth", "tensors"), [(1.0, 144), (0.5, 90)])
def test_imagenet_weights_fill_the_backbone_and_nothing_else(depth: float, tensors: int) -> None:
    torch.manual_seed(0)
    encoder = ImageEncoder(ImageEncoderConfig(width=8, depth=depth))
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    encoder.load_imagenet()
    changed = {
        name
        for name, parameter in encoder.named_parameters()
        if not torch.equal(parameter, before[name])
    }
    backbone = {n for n, _ in encoder.named_parameters() if n.startswith(("stem.", "blocks."))}
    assert changed == backbone
    assert len(backbone) == tensors


@pytest.mark.parametrize("stages", [0, 1, 3, 7])
def test_frozen_stages_keep_weights_and_statistics_and_the_others_learn(stages: int) -> None:
    torch.manual_seed(0)
    encoder = ImageEncoder(ImageEncoderConfig(width=8, depth=0.25))  # a block a stage
    encoder.freeze(7)
    encoder.freeze(stages)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    learning = [each for each in encoder.parameters() if each.requires_grad]
    optimiser = torch.optim.SGD(learning, lr=0.1)
    maps = encoder.train()(torch.randn(2, 3, 64, 64))
    torch.stack([each.square().mean() for each in maps]).sum().backward()
    optimiser.step()
    kept = tuple(f"blocks.{number}." for number in range(stages)) + ("stem.",) * (stages > 0)
    for name, tensor in encoder.state_dict().items():
        if name.startswith(("stem.", "blocks.", "lateral.0.1.weight")):
            assert torch.equal(tensor, before[name]) == name.startswith(kept), name


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("groups", [1, 4])
def test_strided_convolutions_give_the_same_numbers_with_and_without_gradients(
    kernel: int, groups: int
) -> None:
    torch.manual_seed(0)
    layer, image = SameConv2d(4, 8, kernel, stride=2, groups=groups), torch.randn(2, 4, 8, 12)
    with torch.no_grad():
        expected = layer(image)
    assert expected.shape == (2, 8, 4, 6)
    torch.testing.assert_close(layer(image), expected)


def test_the_backbone_runs_in_bf16_with_its_depthwise_convolutions_in_fp32() -> None:
    torch.manual_seed(0)
    encoder = ImageEncoder(ImageEncoderConfig(width=8)).eval()
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        exact = encoder(pixels)
        with torch.autocast("cpu", torch.bfloat16):
            depthwise = encoder.blocks[1]._depthwise_conv(torch.randn(1, 96, 8, 8).bfloat16())
            rough = encoder(pixels)
    assert depthwise.dtype == rough[1].dtype == torch.bfloat16
    torch.testing.assert_close(rough[1].float(), exact[1], rtol=0.1, atol=0.1)
