"""Where to compute and how precisely: matrix products in bf16 where that is faster, else fp32; logits in fp32."""

from __future__ import annotations

import ctypes
import logging
import sys
from functools import cache

import torch

from gptrec_rl.config import Precision

logger = logging.getLogger(__name__)

WIDE = 128
"""Width from which bf16 is faster: below, more time goes into turning numbers into it than its products save."""


def best_device() -> torch.device:
    """Return the GPU if there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def has_bf16(device: torch.device) -> bool:
    """Tell whether the hardware has units for bf16 matrix products."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


def product_dtype(precision: Precision, device: torch.device, width: int = WIDE) -> torch.dtype:
    """Return the type of a model's matrix products; bf16 that the hardware hasn't works, slowly, after a warning.

    Args:
        precision: what is asked for; "auto" is bf16 where the hardware has it and the model is wide enough to gain.
        device: where the model is.
        width: D, how many numbers an embedding of the model has.
    """
    if precision == "bf16" and not has_bf16(device):
        _warn_of_slow_bf16(device.type)
    use_bf16 = precision == "bf16" or (precision == "auto" and width >= WIDE and has_bf16(device))
    return torch.bfloat16 if use_bf16 else torch.float32


@cache
def _warn_of_slow_bf16(device_type: str) -> None:
    """Say once a process what a wish for bf16 costs here."""
    logger.warning(
        "precision bf16 on a %s without bf16 units can take 20 times as long as fp32; use auto or fp32 unless that is "
        "meant",
        device_type,
    )


def keep_memory() -> None:
    """Tell glibc to keep freed memory rather than hand it back: a training step frees and takes the same again.

    Worth 5 to 15 % of a step on processors; other C libraries are left as they are.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_MMAP_THRESHOLD, 2**25)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
