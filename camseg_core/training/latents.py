"""Latents of images and drawn masks for the published layout: encoded in every step, or once."""

import hashlib
import logging
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from camseg_core.errors import ConfigError
from camseg_core.labels import train_id_table
from camseg_core.model.camseg import CamSeg
from camseg_core.model.kl_autoencoder import draw
from camseg_core.model.weights_file import save_tensors
from camseg_core.training.distributed import Processes
from camseg_core.training.frames import Frames
from camseg_core.training.loading import Batch, FrameStream, generator

logger = logging.getLogger(__name__)


class FreshLatents:
    """Latents of augmented samples, encoded anew in every step.

    `batch` returns images and class indices.
    """

    def __init__(self, model: CamSeg, batch: Batch, device: torch.device) -> None:
        self._model, self._batch, self._device = model, batch, device

    def __call__(self, numbers: range) -> tuple[Tensor, Tensor]:
        """Return latents of the samples' images and masks, each `(B, c, h, w)` on the CPU."""
        images, indices = self._batch(numbers)
        return encode_pictures(self._model, images * 255, indices, self._device)


class KeptLatents:
    """Latents of whole frames scaled to one size, encoded once and kept in a file.

    With `flips` those of the mirror images are kept as well. The autoencoder is the most expensive
    part of a training step at the published size, and whole frames give it the same input every
    time.

    Raises:
        ConfigError: the file belongs to other frames or another autoencoder.
    """

    def __init__(
        self,
        model: CamSeg,
        frames: Frames,
        size: tuple[int, int],
        flips: bool,
        seed: int,
        path: Path,
        processes: Processes,
    ) -> None:
        self._stream = FrameStream(frames, None, seed)
        self._seed, self._flips = seed, flips
        if processes.is_main_process and not path.is_file():
            _encode_all(model, frames, size, flips, path, processes.device)
        processes.wait()
        with safe_open(path, "pt") as file:
            known = (file.metadata() or {}).get("of")
        if known != _fingerprint(model, frames):
            raise ConfigError(
                f"{path} belongs to other frames or another autoencoder: "
                "remove it, or choose another --run"
            )
        kept = load_file(path)
        self._image, self._mask = kept["image"], kept["mask"]  # (views, frames, c, h, w)

    def __call__(self, numbers: range) -> tuple[Tensor, Tensor]:
        """Return latents of the samples' images and masks, each `(B, c, h, w)` on the CPU."""
        views = [
            int(torch.randint(2, (), generator=generator(self._seed, "flip", n)))
            if self._flips
            else 0
            for n in numbers
        ]
        frames = [self._stream.frame(number) for number in numbers]
        return self._image[views, frames], self._mask[views, frames]


def _encode_all(
    model: CamSeg,
    frames: Frames,
    size: tuple[int, int],
    flips: bool,
    path: Path,
    device: torch.device,
) -> None:
    logger.info("encoding %d frames once, into %s", len(frames), path)
    latents: dict[str, list[Tensor]] = {"image": [], "mask": []}
    for flip in (False, True)[: 2 if flips else 1]:
        for i in range(len(frames)):
            image, indices = frames[i]
            image = F.interpolate(image.unsqueeze(0).float(), size, mode="bilinear", antialias=True)
            indices = (
                F.interpolate(indices[None, None].float(), size, mode="nearest-exact")
                .squeeze(1)
                .to(torch.uint8)
            )
            if flip:
                image, indices = image.flip(3), indices.flip(2)
            for name, tensor in zip(
                latents, encode_pictures(model, image, indices, device), strict=True
            ):
                latents[name].append(tensor)
    stacked = {
        name: torch.cat(parts).unflatten(0, (-1, len(frames))).contiguous()
        for name, parts in latents.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_tensors(stacked, path, {"of": _fingerprint(model, frames)})


def _fingerprint(model: CamSeg, frames: Frames) -> str:
    """Return a hash of the frames and of the weights of the autoencoder that encodes them."""
    assert model.autoencoder is not None
    digest = hashlib.blake2b(frames.fingerprint(), digest_size=16)
    for tensor in model.autoencoder.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def encode_pictures(
    model: CamSeg, images: Tensor, indices: Tensor, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Encode images `(B, 3, H, W)` in 0..255 and class indices `(B, H, W)`, drawn as pictures.

    Returns the latents of both, each `(B, c, h, w)` on the CPU.
    """
    assert model.autoencoder is not None
    normalised = (images.to(device) - model.pixel_mean) / model.pixel_std
    mask = draw(torch.from_numpy(train_id_table(model.labels))[indices.long()].to(device))
    return model.autoencoder.encode(normalised).cpu(), model.autoencoder.encode(mask).cpu()
