"""The variables by which a launcher tells each process its place; reading them needs no torch."""

import os
from collections.abc import Mapping

# launcher -> variables that it sets in every process: rank, world size, rank on the host, ranks on the host.
LAUNCHER_VARIABLES = {
    "horovodrun": ("HOROVOD_RANK", "HOROVOD_SIZE", "HOROVOD_LOCAL_RANK", "HOROVOD_LOCAL_SIZE"),
    "torchrun": ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
}


def launched_place(environ: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Rank and rank on the host from any launcher's variables, even if they are incomplete; 0 without a launcher."""
    for rank, _, local_rank, _ in LAUNCHER_VARIABLES.values():
        if rank in environ:
            return int(environ[rank]), int(environ.get(local_rank, 0))
    return 0, 0
