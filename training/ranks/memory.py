"""What a process does with memory that it has freed."""

import ctypes

# mallopt's, of malloc.h: free bytes from which memory is given back, bytes from which an array has pages of its own.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Has glibc keep what is freed, for the next step needs the same again.

    Otherwise it gives pages back to the system and has them filled with zeros in each step: some tenth of the time of a
    training on CPUs. Another C library is left as it is.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        return
    # Before glibc 2.35 it takes no more than 32 MB.
    if libc.mallopt(M_MMAP_THRESHOLD, 2**30) or libc.mallopt(M_MMAP_THRESHOLD, 2**25):
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
