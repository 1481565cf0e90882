"""Lets commands start and end quickly: Python collects no garbage while it imports modules, nor at its end."""

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_imports() -> Iterator[None]:
    """A block of imports of large libraries, during which Python collects no garbage.

    What a module makes when it is imported stays. Looking for garbage in it takes a fifth of the time that PyTorch,
    torchvision and MLflow take to import, so these objects are never looked at again either.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def end_quickly() -> None:
    """Has this process end without a last collection of garbage, which takes a second once PyTorch is imported.

    The operating system takes all memory back anyway. What was registered with `atexit` still runs.
    """
    # What is registered first runs last.
    atexit.register(gc.freeze)
