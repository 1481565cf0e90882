"""Plans what a run has to do, by comparing the manifest with the newest version of the table."""

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from conf.errors import InputError
from conf.settings import Etl
from etl.contract.images.lungs.crop import Crop, place_boxes
from etl.contract.images.lungs.files import describe_lungs
from etl.contract.quarantine import QUARANTINE
from etl.contract.schema import LABELS, SPLITS, Card
from etl.contract.table import Committed
from etl.sources.joining.sources import reading_of
from etl.sources.manifest import Manifest
from etl.writing.shard_file import Shard

NO_ROWS = pd.DataFrame(columns=["image_id", "patient_id", "pixel_hash"], dtype=str)
# Endings of the reasons for which copies are in quarantine.
SAME_PATIENT, ANOTHER_PATIENT = " of the same patient", " of another patient"
# Settings that change neither which images are in the table nor what they look like there. Labels are compared one by
# one. `rebuild` is in the cards of older releases, where it was a setting.
FREE_SETTINGS = ("source", "table", "findings", "compared_labels", "corrections", "max_quarantined_fraction", "rebuild")
# A network may have moved to another folder; what it is, the card says.
FREE_SETTINGS += ("lungs",)
# If a table has several sources, the card records in these settings what the sources say.
FREE_OF_SEVERAL = ("sources", "dicom")


@dataclass(frozen=True)
class Update:
    """The steps from the newest version to one that holds the manifest."""

    shards: list[Shard]
    """files to write"""
    replaced: list[str] | None
    """files of the newest version that the shards replace; None: all of them, and the table gets today's schema"""
    kept: pd.DataFrame
    """rows of the files that stay, as in Committed"""
    quarantine: pd.DataFrame
    """images already known to be bad or left out, with the columns of QUARANTINE"""
    counts: dict[str, int]
    """numbers of new, changed, relabelled and removed images"""


def needs_rebuild(card: Card | None, manifest: Manifest, settings: Etl) -> bool:
    """Whether the table must be rebuilt. Raises InputError if it has other findings or was made with another salt."""
    if card is None:
        return True
    several = bool(settings.sources)
    # A table of several sources may gain or lose those that rename patients.
    if card.identities != manifest.identities and not (several and "" in (card.identities, manifest.identities)):
        raise InputError(
            "the patients of the table were named with another CHEXSCALE_SALT, so this one would reshuffle the splits: "
            "set the old salt, choose another --workspace, or replace the table with --rebuild"
        )
    if card.findings != manifest.findings:
        raise InputError(
            f"the table has the findings {', '.join(card.findings)}, the source has {', '.join(manifest.findings)}: "
            "keep the table's with --etl.findings if the source has them, choose another --workspace, or replace the "
            "table with --rebuild"
        )
    if several != bool(card.sources) or describe_lungs(settings.lungs) != card.lungs:
        return True
    free = FREE_SETTINGS + FREE_OF_SEVERAL * several
    # A card of an older release lacks the settings that came later, which then had their defaults.
    old = asdict(Etl()) | card.settings
    was, wanted = ({k: v for k, v in s.items() if k not in free} for s in (old, asdict(settings)))
    return was != wanted or any(_is_read_otherwise(card, name, read) for name, read in manifest.sources.items())


def _is_read_otherwise(card: Card, name: str, settings: Etl) -> bool:
    """Whether the table has this one of several sources, and read it with other settings."""
    if name not in card.sources:
        return False
    was, now = reading_of(Etl()) | card.sources[name]["settings"], reading_of(settings)
    return any(was[knob] != now[knob] for knob in now if knob not in FREE_SETTINGS)


def plan_update(manifest: Manifest, before: Committed | None, settings: Etl) -> Update:
    """Plans which files to write so that the table holds each usable image of the manifest once.

    before: the newest version; None: the table is rebuilt. Files stay or are replaced as a whole: if a row of a file is
    removed or changed, its other rows are copied to a new file. Only new and changed images are decoded.
    """
    images = manifest.images.assign(kept_in=None)
    left_out = images[images.reason.notna()].assign(same_as=None)
    left_out["file_version"] = left_out.file_version.where(left_out.looked_at, None)
    if manifest.identities:
        left_out["path"] = None
    wanted = images[images.reason.isna()].set_index("image_id", drop=False)
    if before is None:
        counts = {"new": len(wanted), "changed": 0, "relabelled": 0, "removed": 0}
        return Update(_cut(wanted, settings), None, NO_ROWS, sort_quarantine(left_out), counts)

    rows = before.rows.set_index("image_id", drop=False)
    known_bad = _still_bad(before.quarantine, wanted, rows)
    # The source may have moved: its files then have the same versions at new paths.
    known_bad = known_bad.assign(path=None if manifest.identities else wanted.path[known_bad.image_id].to_numpy())
    wanted = wanted.drop(index=known_bad.image_id)
    common = wanted.index.intersection(rows.index)
    same_file = wanted.loc[common, "file_version"].eq(rows.loc[common, "file_version"])
    if "mask_fault" in rows:
        # As with films: permissions and networks leave no trace in the file.
        same_file &= ~rows.loc[common, "mask_fault"].str.startswith("cannot be read", na=False)
    changed, same = common[~same_file], common[same_file]
    wanted["boxes"] = _boxes_in_crops(wanted.boxes, rows.loc[same], settings.square)
    # In tables of older releases no row says its source, and their schema has no such column.
    lacks_source = "source" not in rows or bool(rows.source.isna().any())
    relabelled = same if lacks_source else same[~_same_labels(wanted.loc[same], rows.loc[same])]
    removed = rows.index.difference(wanted.index)
    new = wanted.index.difference(rows.index)
    touched = set(rows.loc[removed.union(changed).union(relabelled), "file"])
    stays = ~rows.file.isin(touched)
    copied = same.intersection(rows.index[~stays])
    wanted.loc[copied, "kept_in"] = rows.loc[copied, "file"]
    return Update(
        shards=_cut(wanted.loc[copied.union(changed).union(new)], settings),
        replaced=None if lacks_source else sorted(touched),
        kept=rows[stays].reset_index(drop=True),
        quarantine=sort_quarantine(pd.concat([left_out, known_bad])),
        counts={"new": len(new), "changed": len(changed), "relabelled": len(relabelled), "removed": len(removed)},
    )


def plan_compaction(rows: pd.DataFrame, settings: Etl) -> tuple[list[Shard], list[str]]:
    """Files to write and the small files that they replace: those with less than half of rows_per_file rows, by split.

    rows: rows of the newest version, as in Committed. A split with only one small file keeps it.
    """
    sizes = rows.groupby(["split", "file"]).size().rename("size").reset_index()
    small = sizes[sizes["size"] * 2 < settings.rows_per_file]
    small = small[small.split.map(small.split.value_counts()) > 1]
    joined = rows[rows.file.isin(small.file)]
    # Tables of older releases have no column `source`.
    joined = joined.reindex(columns=list(dict.fromkeys([*joined, *LABELS.names])))
    return _cut(joined.assign(kept_in=joined.file, path=""), settings), sorted(small.file)


def sort_quarantine(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with the columns of QUARANTINE, sorted by image; unknown cells are None."""
    ordered = rows.sort_values("image_id", ignore_index=True).reindex(columns=QUARANTINE.names).astype(object)
    return ordered.where(ordered.notna(), None)


def _still_bad(quarantine: pd.DataFrame, wanted: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """The quarantined images whose file is unchanged; a copy only if its original is unchanged too."""
    bad = quarantine[quarantine.image_id.isin(wanted.index)]
    bad = bad[wanted.loc[bad.image_id, "file_version"].to_numpy() == bad.file_version.to_numpy()]
    origins = wanted.index.intersection(rows.index)
    origins = origins[wanted.loc[origins, "file_version"] == rows.loc[origins, "file_version"]]
    # A file that could not be read may be readable now: permissions and networks leave no trace in the file.
    bad = bad[~bad.reason.str.startswith("cannot be read")]
    whose = wanted.patient_id.reindex(bad.same_as).to_numpy() == wanted.patient_id[bad.image_id].to_numpy()
    same_kind = bad.reason.str.endswith(SAME_PATIENT).to_numpy() == whose
    return bad[bad.same_as.isna() | (bad.same_as.isin(origins) & same_kind)]


def _boxes_in_crops(boxes: pd.Series, rows: pd.DataFrame, square: str) -> pd.Series:
    """The boxes, by image, of which those of these rows, whose images stay in the table, are placed in their crops."""
    if "crop" not in rows:
        return boxes
    crops = rows.crop[rows.crop.notna()]
    placed = [place_boxes(boxes[image], Crop(*map(int, crop)), square) for image, crop in crops.items()]
    return pd.Series(boxes.to_dict() | dict(zip(crops.index, placed, strict=True)), boxes.index, dtype=object)


def _same_labels(new: pd.DataFrame, old: pd.DataFrame) -> np.ndarray:
    """(rows,) bool: whether two frames with the same index agree in LABELS; unknown equals unknown.

    The source does not count: its folder may have been renamed. Of several sources, the images' names have it.
    """
    agree = np.ones(len(new), bool)
    for field in (field for field in LABELS if field.name != "source"):
        one, other = (pa.array(frame[field.name], field.type, from_pandas=True) for frame in (new, old))
        if pa.types.is_list(field.type):
            # Arrow cannot compare lists; the text of a float32 is exact.
            agree &= np.array([str(a) == str(b) for a, b in zip(one.to_pylist(), other.to_pylist(), strict=True)], bool)
        else:
            a, b = one.to_pandas(), other.to_pandas()
            agree &= ((a == b) | (a.isna() & b.isna())).to_numpy()
    return agree


def _cut(rows: pd.DataFrame, settings: Etl) -> list[Shard]:
    """Cuts rows into shards of one split and up to rows_per_file rows, shuffled by the seed, copied rows first."""
    shuffled = rows.reset_index(drop=True).sort_values("image_id").sample(frac=1, random_state=settings.seed)
    shuffled = shuffled.sort_values("kept_in", kind="stable", na_position="last")
    shards = []
    for split in SPLITS:
        part = shuffled[shuffled.split == split]
        num_files = -(-len(part) // settings.rows_per_file)
        # Chunks of about equal length, so that no long task remains at the end.
        chunks = np.array_split(np.arange(len(part)), num_files or 1)
        shards += [Shard(split, index, part.iloc[chunk]) for index, chunk in enumerate(chunks)]
    return [shard for shard in shards if len(shard.rows)]
