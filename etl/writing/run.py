"""A whole run of the ETL: from the source to the tables, the dataset card and what is printed about them."""

import os
import time
from dataclasses import replace

from rich.console import Console
from rich.table import Table

from conf.arguments import with_same_settings
from conf.errors import InputError
from conf.places import LUNG_NETWORK, place_of
from conf.settings import Etl, Settings
from conf.words import counted
from conf.workspace import Workspace, update_summary
from conf.writing import atomic_path
from etl.card.contact_sheet import choose_films
from etl.card.counts import describe_left_out, describe_masks, describe_whole
from etl.card.page import write_card_page
from etl.cluster.workers import SparkWorkers
from etl.contract.images.lungs.files import FINDER, describe_network
from etl.contract.labels import missing_labels
from etl.contract.quarantine import kinds_of
from etl.contract.schema import SPLITS, Card
from etl.contract.storage import is_local, locate, located, ready
from etl.contract.version import keep_card
from etl.phantoms.generate import generate_phantoms
from etl.sources.joining.join import read_sources
from etl.sources.joining.sources import Source, for_the_run, open_sources, single_source
from etl.sources.manifest import Manifest
from etl.writing.publish import Published, publish

MAX_WORDS = 10
"""words of one kind that are shown, the most frequent ones"""
STRANGE_SENTENCES = {"labels": "labels that contradict each other, the finding counts"}


def run(settings: Settings, workspace: Workspace, rebuild: bool) -> None:
    """Turns the source into the tables and the dataset card, and says what to do next.

    rebuild: decode every image again and replace the table. Raises InputError for what cannot be read or written.
    """
    settings = replace(settings, etl=with_whole_path(settings.etl))
    sources, tables = open_places(settings.etl, workspace)
    with workspace.exclusive():
        card = update_tables(settings, workspace, sources, tables, rebuild)
    print(f"Dataset card: {workspace.card_page}")
    if missing := missing_labels(card):
        print(f"Next: this table cannot be trained on yet: {missing}")
    else:
        print("Next: " + next_command(card, settings.training.size_px))


def with_whole_path(etl: Etl) -> Etl:
    """The settings with the absolute path of the lung network: workers run in other folders.

    Raises InputError if etl.lungs is no folder of one.
    """
    if etl.lungs == FINDER:
        return etl
    etl = replace(etl, lungs=place_of("etl.lungs", etl.lungs, LUNG_NETWORK))
    describe_network(etl.lungs)
    return etl


def next_command(card: Card, size_px: int) -> str:
    """The command that trains on this table, at the stored size that is nearest to training.size_px."""
    command = with_same_settings("horovodrun -np 2 python training/train.py")
    stored = min(card.sizes_px, key=lambda size: abs(size - size_px))
    return command if stored == size_px else f"{command} --training.size_px {stored}"


def open_places(etl: Etl, workspace: Workspace) -> tuple[list[Source], tuple[str, str]]:
    """The sources, and the tables. Raises InputError for each place that cannot be opened, before any work."""
    tables = workspace.tables(etl.table)
    ready("etl.table", tables[0])
    if etl.sources:
        sources = open_sources(etl)
    else:
        is_made = etl.source == "phantoms"
        place = locate(str(workspace.phantoms)) if is_made else located("etl.source", etl.source)
        sources = [single_source(place, etl)]
    for file in etl.corrections:
        located("etl.corrections", file)
    for source in sources:
        where = f" in {source.file}" if source.file else ""
        for setting, files in (
            ("etl.exclude", source.settings.exclude),
            ("etl.split_lists", [source.settings.split_lists]),
        ):
            for file in filter(None, files):
                located(setting + where, file)
        is_own = is_local(source.place) and os.path.realpath(source.place) == os.path.realpath(workspace.root)
        if source.settings.format == "classes" and is_own:
            raise InputError(
                f"etl.source{where} is the workspace {workspace.root} itself, whose figures would be read as images: "
                "choose another folder with --workspace"
            )
    return sources, tables


def update_tables(
    settings: Settings, workspace: Workspace, sources: list[Source], tables: tuple[str, str], rebuild: bool
) -> Card:
    """Turns the sources into the tables and the dataset card, and returns the card."""
    etl = for_the_run(settings.etl, sources)
    if etl.source == "phantoms":
        generate_phantoms(workspace.phantoms, settings.phantoms)
    with SparkWorkers() as workers:
        manifest = read_sources(sources, etl, workers)
        if manifest.identities:
            write_key(manifest, workspace)
        started = time.monotonic()
        places = ", ".join(str(source.place) for source in sources)
        outcome = publish(tables, etl, places, manifest, workers, rebuild)
        seconds = time.monotonic() - started
    card = outcome.card
    keep_card(card, workspace)
    write_card_page(workspace.card_page, card, outcome.rows, outcome.quarantine, choose_films(card, outcome.rows))
    data = {
        "images": sum(card.images.values()),
        "quarantined": card.images_quarantined,
        "patients": sum(card.patients.values()),
        "images_per_split": card.images,
        "delta_version": card.delta_version,
    }
    rate = (outcome.counts["new"] + outcome.counts["changed"]) / seconds
    # A run without work says nothing about speed and memory.
    if rate:
        data["images_per_s"] = round(rate, 1)
        update_summary(workspace, peak_memory_mb={"etl_worker": round(outcome.worker_peak_mb)})
    update_summary(workspace, data=data)
    show(outcome, rate, manifest)
    return card


def write_key(manifest: Manifest, workspace: Workspace) -> None:
    """Writes the re-identification key (the file of each image), which only its owner can read and no table holds."""
    with atomic_path(workspace.dicom_paths, mode=0o600) as temporary:
        manifest.images[["image_id", "path", "reason"]].to_csv(temporary, index=False)


def show(outcome: Published, images_per_s: float, manifest: Manifest) -> None:
    """Prints how many images are in each split and in quarantine, what was not understood, and what has changed."""
    card = outcome.card
    print(f"Delta version {card.delta_version}, images and patients per split:")
    table = Table()
    for column in ("", *SPLITS, "sum"):
        table.add_column(column, justify="right" if column else "left")
    for name, counts in (("images", card.images), ("patients", card.patients)):
        table.add_row(name, *(f"{counts[split]:,}" for split in SPLITS), f"{sum(counts.values()):,}")
    Console().print(table)
    for reason, number in kinds_of(outcome.quarantine.reason).value_counts().items():
        print(f"  quarantined: {number:,} {reason}")
    for sentence in describe_left_out(manifest.left_out):
        print(f"  left out: {sentence}")
    for sentence in manifest.notes:
        print(f"  note: {sentence}")
    for what, words in manifest.not_understood.items():
        common = sorted(words.items(), key=lambda word: -word[1])
        shown = ", ".join(f"{number:,} {repr(word) if word else '(not shown)'}" for word, number in common[:MAX_WORDS])
        more = f" and {len(common) - MAX_WORDS} other words" if len(common) > MAX_WORDS else ""
        print(f"  {STRANGE_SENTENCES.get(what, f'{what} unknown, word not understood')}: {shown}{more}")
    if card.masks:
        with_mask, films = sum(card.masks["images"].values()), counted(sum(card.images.values()), "film")
        print("; ".join([f"  masks: {with_mask:,} of {films}", *describe_masks(card.masks)]))
    if card.kept_whole:
        print(f"  crop: {describe_whole(card.kept_whole, card.images)}")
    left_out = sum(manifest.left_out.values())
    print(
        f"{counted(manifest.listed + left_out, 'image')} in = {counted(sum(card.images.values()), 'row')} + "
        f"{card.images_quarantined:,} quarantined + {manifest.absent:,} absent + {left_out:,} left out"
    )
    if not outcome.committed:
        print("nothing has changed: no new version")
    else:
        changes = ", ".join(f"{number:,} {kind}" for kind, number in outcome.counts.items() if number)
        speed = f"; {images_per_s:.0f} images/s" if images_per_s else ""
        print(f"changes since the previous version: {changes or 'no image changed, only metadata'}{speed}")
