"""Lets commands start and end quickly: Python collects no garbage while it imports modules, nor at a command's end."""

import atexit
import gc
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def quick_imports() -> Iterator[None]:
    """A block of imports of large libraries, during which Python collects no garbage.

    What a module makes when it is imported stays. Looking for garbage in it takes a quarter of the time that PyTorch,
    MLflow and others take to import, so these objects are not looked at again before the program ends. Nor is anything
    else that the program has made by then, so this is for its beginning.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        # A program that ends in the usual way takes them down; otherwise some libraries complain of leaks.
        atexit.register(gc.unfreeze)


@contextmanager
def quick_end(main: Callable[[], None]) -> Iterator[None]:
    """Has the program whose `main` runs in this block end at once when nothing is left but to free its memory.

    Python would first look for garbage and take each module down, which takes a second or two once PyTorch is imported.
    By then all threads but daemons have ended, and what was registered with `atexit` after the block began has run.
    Nothing changes if `main` is not this program's own, as in a test, or if multiprocessing was imported before: what
    it registered would not run.
    """
    code = 0
    usual = "multiprocessing.util" in sys.modules

    def end() -> None:
        if not usual and main.__globals__ is vars(sys.modules["__main__"]):
            logging.shutdown()
            # If the output cannot be written, Python says so in its own way.
            with suppress(OSError):
                for stream in (sys.stdout, sys.stderr):
                    if stream and not stream.closed:
                        stream.flush()
                os._exit(code)

    # What is registered first runs last.
    atexit.register(end)
    try:
        yield
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        raise
    except BaseException:
        code = 1
        raise
