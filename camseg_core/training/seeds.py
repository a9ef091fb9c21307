"""Random draws that depend on where they are made in the training, not on what was drawn before or on which process draws."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def seed_of(*place: int | str) -> int:
    """A 63-bit seed from numbers and words such as (seed, "noise", step, sample): the same on every machine."""
    return int.from_bytes(hashlib.blake2b(repr(place).encode(), digest_size=8).digest(), "big") >> 1


def generator(*place: int | str) -> torch.Generator:
    """A CPU generator that starts from `seed_of(*place)`."""
    return torch.Generator().manual_seed(seed_of(*place))


@contextmanager
def seeded(*place: int | str) -> Iterator[None]:
    """torch's global generator starts from `seed_of(*place)` inside, and is as it was before afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_of(*place))
        yield
