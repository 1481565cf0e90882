"""One manifest of several sources: their images under one vocabulary, kept apart by the name of the source."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd

from conf.errors import InputError
from conf.settings import Etl
from conf.words import counted
from etl.cluster.workers import SparkWorkers
from etl.contract.vocabulary import check_vocabulary
from etl.sources.compared_labels import compare_labels, sentence_on
from etl.sources.corrections.apply import correct
from etl.sources.findings import choose_findings, move_boxes
from etl.sources.joining.sources import Source, open_compared
from etl.sources.joining.vocabularies import infer_labels, join_vocabularies, spread
from etl.sources.manifest import Manifest
from etl.sources.read import read_manifest
from etl.sources.split import find_leaks


def read_sources(sources: list[Source], settings: Etl, workers: SparkWorkers | None = None) -> Manifest:
    """The manifest of the one source of a run, or the joint one of several. Raises InputError as read_manifest does."""
    if not settings.sources:
        (source,) = sources
        return correct(_compared(read_manifest(source.place, source.settings, workers), source, workers), settings)
    manifests = {}
    for source in sources:
        try:
            manifest = _compared(read_manifest(source.place, source.settings, workers), source, workers)
        except InputError as error:
            raise InputError(
                f"source {source.name}: {error}. (Settings of this source belong in {source.file}, not on the command "
                "line.)"
            ) from error
        manifests[source.name] = replace(manifest, notes=[*source.notes, *manifest.notes])
    return correct(join_manifests(manifests, settings), settings)


def join_manifests(manifests: dict[str, Manifest], settings: Etl) -> Manifest:
    """The images of all manifests, named NAME/image and with patients NAME/patient, with the findings of all.

    manifests: name of the source -> its manifest. What a source does not label is unknown there, unless it follows from
    the meaning of its labels, see infer_labels. Then etl.findings of the run chooses. Raises InputError for sources in
    grey and in colour, and for a shared patient in two splits.
    """
    channels = {name: manifest.channels for name, manifest in manifests.items()}
    if len(set(channels.values())) > 1:
        grey, colour = (next(name for name, n in channels.items() if n == number) for number in (1, 3))
        raise InputError(
            f"the source {grey} is read in grey and {colour} in colour (etl.format classes), expected one kind: make a "
            "table of each"
        )
    findings, places = join_vocabularies({name: manifest.findings for name, manifest in manifests.items()})
    images, notes = [], []
    for name, manifest in manifests.items():
        part, inferred = _renamed(name, manifest, settings), []
        labelled = part.findings.map(np.ndim) == 1
        if labelled.any():
            labels = spread(np.stack(part.findings[labelled].to_list()), places[name], len(findings))
            inferred = _describe_inferred(infer_labels(labels, findings), labels, findings)
            part.loc[labelled, "findings"] = pd.Series(list(labels), part.index[labelled], dtype=object)
        part["boxes"], _ = move_boxes(part.boxes, {own: [place] for own, place in enumerate(places[name])})
        images.append(part)
        notes += [f"{name}: {note}" for note in [*manifest.notes, *inferred]]
    joint = Manifest(
        names=pd.concat([f"{name}/" + manifest.names for name, manifest in manifests.items()], ignore_index=True),
        images=pd.concat(images, ignore_index=True),
        findings=findings,
        listed=sum(manifest.listed for manifest in manifests.values()),
        absent=sum(manifest.absent for manifest in manifests.values()),
        left_out=_named(manifests, "left_out", "{key} ({name})"),
        sha256=_named(manifests, "sha256", "{name}/{key}"),
        channels=channels.popitem()[1],
        not_understood=_count_strange(manifests),
        notes=notes,
        # One salt names the patients of all sources.
        identities=max(manifest.identities for manifest in manifests.values()),
        agreement=_named(manifests, "agreement", "{name}: {key}"),
        sources={name: manifest.sources[source] for name, manifest in manifests.items() for source in manifest.sources},
    )
    _refuse_leaks(joint.images, settings.shared_patients)
    joint = choose_findings(joint, settings.findings)
    check_vocabulary(joint.findings, where="with etl.findings")
    return joint


def _compared(manifest: Manifest, source: Source, workers: SparkWorkers | None) -> Manifest:
    """The manifest with its agreement with the labels that the settings of its source name, if they do."""
    if not source.settings.compared_labels:
        return manifest
    other = open_compared(source.settings)
    try:
        read = read_manifest(other.place, other.settings, workers)
    except InputError as error:
        raise InputError(f"the labels to compare with, {other.file}: {error}") from error
    mine, theirs = (
        part.images[part.images.findings.map(np.ndim) == 1].set_index("image_id").findings for part in (manifest, read)
    )
    mine = mine[manifest.images.set_index("image_id").reason[mine.index].isna()]
    images = int(mine.index.isin(theirs.index).sum())
    findings = compare_labels(mine, manifest.findings, theirs, read.findings)
    if not images or not findings:
        what, one, two = "image", next(iter(mine.index), ""), next(iter(theirs.index), "")
        if images:
            what, one, two = "finding", ", ".join(manifest.findings), ", ".join(read.findings)
        raise InputError(
            f"{other.file} of etl.compared_labels shares no {what} with the source: it has {two!r}, the source has "
            f"{one!r}. Name them alike, or leave out etl.compared_labels"
        )
    described = {"images": images, "findings": findings}
    return replace(
        manifest,
        agreement=manifest.agreement | {other.name: described},
        sha256=manifest.sha256 | {f"{other.name}/{file}": digest for file, digest in read.sha256.items()},
        notes=[*manifest.notes, *other.notes, sentence_on(other.name, described)],
    )


def _describe_inferred(filled: dict[str, int], labels: np.ndarray, findings: list[str]) -> list[str]:
    """A sentence on labels that infer_labels has filled in, and on findings of which the source says one thing only."""
    if not filled:
        return []
    said = ", ".join(f"{counted(number, 'label')} of {finding}" for finding, number in filled.items())
    sides = {"absent": [], "present": []}
    for finding in filled:
        values = labels[:, findings.index(finding)]
        known = set(values[~np.isnan(values)])
        if len(known) == 1:
            sides["present" if known == {1} else "absent"].append(finding)
    hint = "".join(
        f"; of {' and '.join(names)} it only ever says {side}, by which a model could tell this source from the others"
        for side, names in sides.items()
        if names
    )
    return [f"{said} follow from its other labels{hint}"]


def _renamed(name: str, manifest: Manifest, settings: Etl) -> pd.DataFrame:
    """The images under the name of their source, and the patients under that of all that share them."""
    shared = "+".join(sorted(settings.shared_patients))
    whose = shared if name in settings.shared_patients else name
    images = manifest.images.assign(source=name)
    images["image_id"] = f"{name}/" + images.image_id
    images["patient_id"] = (f"{whose}/" + images.patient_id).where(images.patient_id != "", "")
    return images


def _named(manifests: dict[str, Manifest], what: str, key: str) -> dict:
    """The entries of all manifests, whose keys say of which source they are."""
    return {
        key.format(name=name, key=own): value
        for name, manifest in manifests.items()
        for own, value in getattr(manifest, what).items()
    }


def _count_strange(manifests: dict[str, Manifest]) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter] = {}
    for manifest in manifests.values():
        for what, words in manifest.not_understood.items():
            counts.setdefault(what, Counter()).update(words)
    return {what: dict(words) for what, words in counts.items()}


def _refuse_leaks(images: pd.DataFrame, shared: list[str]) -> None:
    """Raises InputError for a patient whom sources that share patients put into different splits."""
    used = images[images.split.notna() & images.reason.isna()]
    leaks = find_leaks(used[["patient_id", "split"]])
    if leaks:
        rows = used[used.patient_id == leaks[0]].drop_duplicates("split")
        where = " and ".join(f"{image} ({split})" for image, split in zip(rows.image_id, rows.split, strict=True))
        raise InputError(
            f"{counted(len(leaks), 'patient is', 'patients are')} in different splits of the sources "
            f"{', '.join(shared)}, which share patients, such as {leaks[0]} with {where}: set etl.split hashed in the "
            "scenario file of each, with the same etl.seed, etl.val_fraction and etl.test_fraction, or give lists that "
            "agree"
        )
