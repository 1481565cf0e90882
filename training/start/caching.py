"""The cache of training.cache_dir: opened before the first step, and what it will keep is said."""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from conf.errors import NO_SPACE, InputError
from conf.places import CACHE, place_of
from conf.settings import Training
from etl.contract.storage import is_local, locate
from training.ranks.topology import Topology
from training.reading.batches import columns_of
from training.reading.cache import RowGroupCache, entry_names
from training.reading.plan import Split
from training.reading.readers import read_shards

FOLDER = "chexscale-row-groups"
"""below training.cache_dir, which may hold other things"""


def check_place(training: Training) -> None:
    """Raises InputError if training.cache_dir names no folder of this machine. Nothing is opened."""
    if training.cache_dir:
        place_of("training.cache_dir", training.cache_dir, CACHE)


def cached(splits: list[Split], training: Training, topology: Topology) -> list[Split]:
    """The splits with the cache, or as they are if there is none to use.

    That is so if training.cache_dir is empty, if the table is not in a store, or if the disk of the cache is full; the
    last two are said. Raises InputError for a folder that cannot be used.
    """
    if not training.cache_dir:
        return splits
    path, limit = Path(place_of("training.cache_dir", training.cache_dir, CACHE)), int(training.cache_gb * 1e9)
    if all(is_local(locate(file)) for split in splits for file in split.files):
        _note("training.cache_dir is not used, because the table is not in a store", topology.is_main)
        return splits
    sizes = {name: size for split in splits for name, size in entry_names(split.files, columns_of(split)).items()}
    try:
        cache = RowGroupCache(path / FOLDER, limit, sizes, topology.local_rank == 0)
    except OSError as error:
        if error.errno in NO_SPACE:
            _note(f"the disk of training.cache_dir {path} is full: the training has no cache", topology.local_rank == 0)
            return splits
        raise InputError(
            f"training.cache_dir {path} cannot be used ({error.strerror}): choose a folder on a local disk to which "
            "this user may write, or leave it empty to train without a cache"
        ) from error
    if topology.is_main:
        _describe(cache, sizes, path, training.cache_gb)
    return [replace(split, source=partial(read_shards, cache=cache)) for split in splits]


def _describe(cache: RowGroupCache, sizes: dict[str, int], path: Path, limit_gb: float) -> None:
    total, largest = sum(sizes.values()) / 1e9, max(sizes.values()) / 1e9
    kept = sum(sizes[name] for name in cache.kept(sizes)) / 1e9
    print(f"Cache: {path} has {kept:.3g} of the {total:.3g} GB that this training reads from the store", flush=True)
    if total > limit_gb:
        why = f"a row group has up to {largest:.3g} GB" if largest > limit_gb else f"it takes {limit_gb:g} GB"
        print(
            f"Cache: {why}, so the rest is read from the store in each epoch: raise training.cache_gb ({limit_gb:g})",
            flush=True,
        )


def _note(message: str, shown: bool) -> None:
    if shown:
        print(f"note: {message}", file=sys.stderr, flush=True)
