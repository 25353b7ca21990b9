"""gptrec-rl: sequential recommenders that write whole lists, aligned with goals beyond accuracy.

    >>> import gptrec_rl
    >>> model = gptrec_rl.load("runs/diverse", data="data/mine.npz")  # doctest: +SKIP
    >>> model.recommend([["sku-17", "sku-4"], []], k=10)  # doctest: +SKIP

`load` and the model that it returns take and give the ids of your own file. The modules below count items from 1 to I.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gptrec_rl.api import Model, load

__version__ = "0.1.0"
__all__ = ["Model", "__version__", "load"]


def __getattr__(name: str) -> object:
    """Import the public face when it is asked for: PyTorch takes seconds, and the command's help has none."""
    if name in ("Model", "load"):
        from gptrec_rl import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Name the public face too, for `help` and for completion."""
    return sorted({*globals(), *__all__})
