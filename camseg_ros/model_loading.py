"""The model as the node's parameters ask for it."""

import re
from dataclasses import asdict

import numpy as np

from camseg_core.class_table import ClassTable
from camseg_core.diffusion.sampling import Sampling
from camseg_core.errors import ConfigError
from camseg_core.runtime import Segmenter
from camseg_ros.parameters import Parameters

_SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")


def sampling(given: Parameters) -> Sampling:
    """How masks are drawn."""
    return Sampling(
        sampler=given.sampler,
        steps=given.steps,
        temperature=None if given.temperature < 0 else given.temperature,
        eta=given.eta,
        samples=given.samples,
        passes=given.passes,
        order=given.order,
        seed=given.seed,
        streams=given.temporal_carry > 0,
    )


def load_segmenter(given: Parameters) -> Segmenter:
    """Load the model and warm it up for every size and number of frames to come.

    Raises:
        ModelError: the checkpoint folder is missing or damaged, or has no graphs in the precision asked for.
        ConfigError: the provider is not there, the sampler does not suit, or a warm-up size is none.
    """
    sizes = [warm_up_size(size) for size in given.warm_up_sizes]
    segmenter = Segmenter.from_pretrained(
        given.model,
        provider=given.provider,
        precision=given.precision,
        threads=given.threads,
        engine_cache=given.engine_cache or None,
        **asdict(sampling(given)),
    )
    for width, height in sizes:
        for batch in range(1, min(len(given.camera_names), given.max_batch) + 1):
            # TensorRT builds its engines here, for minutes unless they are cached; better now than at the first frame
            segmenter.segment_batch([np.full((height, width, 3), 128, np.uint8)] * batch)
    return segmenter


def warm_up_size(text: str) -> tuple[int, int]:
    """Width and height of `WIDTHxHEIGHT`.

    Raises:
        ConfigError: it is something else.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ConfigError(
            f"parameter 'warm_up_sizes' has {text!r}; a size is WIDTHxHEIGHT in pixels, as 640x480"
        )
    return int(match[1]), int(match[2])


def class_table(segmenter: Segmenter, given: Parameters) -> ClassTable:
    """Which ids the model's classes are published with.

    Raises:
        ConfigError: groups or enabled classes that the model does not have; the message lists what it has.
    """
    return ClassTable.of(segmenter.labels, given.class_groups, given.enabled_classes)
