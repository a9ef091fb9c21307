"""The precision that a device computes in, given the one that is asked for."""

import functools
import logging

import torch

logger = logging.getLogger(__name__)

_CPU_BF16 = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
"""Capabilities of a processor, by torch's names, with which it computes in bf16."""


@functools.cache
def computes_bf16(device: str) -> bool:
    """Return whether a type of device, as in `torch.device.type`, computes in bf16.

    A processor that does not emulates it, several times slower than fp32.
    """
    capabilities = getattr(torch.cpu, "get_capabilities", None)  # from torch 2.10 on
    if device != "cpu" or capabilities is None:
        return True
    if any(capabilities().get(name) for name in _CPU_BF16):
        return True
    logger.info("this processor has no bf16 arithmetic: fp32 takes its place, which is faster here")
    return False
