"""Scores a split with each variant of a model, and measures AUROC by patient and heat maps against boxes."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from conf.progress import Progress
from etl.contract.schema import image_column
from etl.contract.table import read_labels, read_pixels
from inference.candidate.measuring.localisation import Overlap, overlaps_of
from inference.film.known_boxes import key_of
from inference.model.graphs import Predict
from inference.model.inputs import inputs_of_rows
from inference.model.properties import Properties
from training.measures.intervals import Intervals, bootstrap_areas, bootstrap_differences
from training.reading.batches import read_batches
from training.reading.plan import Split

NUM_RESAMPLES = 1000
KEPT = ("image_id", "patient_id", "age_years", "sex", "view", "source")
"""columns of the table that say who is on an image, and where it comes from"""


@dataclass(frozen=True)
class Scored:
    """Answers on one split, with the images in the same order everywhere."""

    labels: np.ndarray
    """(images, findings) float32: 1, 0, NaN unknown"""
    images: pd.DataFrame
    """columns KEPT, without `source` for a table of an older release"""
    probabilities: dict[str, np.ndarray]
    """variant -> (images, findings) float32"""
    distances: dict[str, np.ndarray]
    """variant that has them -> (images,) float32"""
    overlaps: dict[str, list[Overlap]]
    """variant -> each finding of each image that has boxes"""

    @property
    def patients(self) -> np.ndarray:
        """(images,) str"""
        return self.images["patient_id"].to_numpy()

    @property
    def num_patients(self) -> list[int]:
        """For each finding, the number of patients with it or without it, whichever is smaller."""
        known = [[self.patients[column == value] for value in (0, 1)] for column in self.labels.T]
        return [min(len(np.unique(patients)) for patients in pair) for pair in known]

    def only(self, chosen: np.ndarray) -> "Scored":
        """The answers on some of the images, without the heat maps' overlaps. chosen: (images,) bool."""
        answers = (
            {name: values[chosen] for name, values in each.items()} for each in (self.probabilities, self.distances)
        )
        overlaps = {name: [] for name in self.overlaps}
        return Scored(self.labels[chosen], self.images[chosen].reset_index(drop=True), *answers, overlaps)

    def joined(self, other: "Scored") -> "Scored":
        """Adds the variants of another pass over the same split, which replace variants of the same name."""
        assert (self.patients == other.patients).all(), "two passes over a split differ in their order"
        return Scored(
            self.labels,
            self.images,
            self.probabilities | other.probabilities,
            self.distances | other.distances,
            self.overlaps | other.overlaps,
        )


def score_split(
    variants: dict[str, Predict],
    split: Split,
    batch_size: int,
    properties: Properties,
    *,
    title: str = "",
    end: bool = True,
    columns: list[int | None] | None = None,
    left_out: frozenset[str] = frozenset(),
) -> Scored:
    """Answers of each variant of a model on the same batches of a split, each image once.

    title: what the pass is for, at the beginning of its progress. end: whether a log says that it has ended; False for
    one of many passes. columns: for each finding of the model, its place in the table's vocabulary, None if the table
    does not label it; by default both have the same vocabulary. left_out: images of the split that are not scored.
    """
    rows = pd.concat(read_labels(split.files)).set_index("image_id", drop=False)
    columns = list(range(len(properties.findings))) if columns is None else columns
    labelled = [place for place, column in enumerate(columns) if column is not None]
    place_of = {column: place for place, column in enumerate(columns) if column is not None}
    ids, labels = [], []
    probabilities, distances, overlaps = ({name: [] for name in variants} for _ in range(3))
    title, grid = f"{title}: " if title else "", (properties.map_first, properties.map_step)
    with Progress(f"{title}answers on the {split.name} split", split.rows, end=end) as bar:
        for batch in read_batches(split, batch_size):
            bar.update(len(batch.labels))
            chosen = np.array([image not in left_out for image in batch.image_ids])
            image_ids, pixels = np.asarray(batch.image_ids)[chosen], batch.pixels.numpy()[chosen]
            if not len(image_ids):
                continue
            known = np.full((len(image_ids), len(columns)), np.nan, np.float32)
            known[:, labelled] = batch.labels.numpy()[chosen][:, [columns[place] for place in labelled]]
            ids.append(image_ids)
            labels.append(known)
            boxes = [_renumbered(of_image, place_of) for of_image in rows.loc[image_ids, "boxes"]]
            inputs = inputs_of_rows(properties, pixels, rows.loc[image_ids])
            for name, predict in variants.items():
                answer = predict(*inputs)
                probabilities[name].append(answer.probabilities)
                if answer.maps is None:
                    continue
                distances[name].append(answer.distances)
                for maps, of_image in zip(answer.maps, boxes, strict=True):
                    if len(of_image):
                        overlaps[name] += overlaps_of(maps, of_image, properties.size_px, grid)
    return Scored(
        np.concatenate(labels),
        rows.loc[np.concatenate(ids), [name for name in KEPT if name in rows]].reset_index(drop=True),
        *(
            {name: np.concatenate(parts) for name, parts in answers.items() if parts}
            for answers in (probabilities, distances)
        ),
        overlaps,
    )


def _renumbered(boxes: np.ndarray, place_of: dict[int, int]) -> np.ndarray:
    """The boxes, (5 * n,), with the model's numbers of their findings; without those of other findings."""
    boxes = np.reshape(boxes, (-1, 5))
    kept = boxes[[int(box[0]) in place_of for box in boxes]] if len(boxes) else boxes
    return np.column_stack([[place_of[int(number)] for number in kept[:, 0]], kept[:, 1:]]).ravel()


def known_boxes(split: Split) -> dict[str, list[list[float]]]:
    """Key of the pixels -> boxes, for each image that has boxes; see inference/film/known_boxes.py."""
    found = {}
    for rows in read_labels(split.files):
        boxes = rows[rows.boxes.map(len) > 0].set_index("image_id", drop=False)
        for image_id, pixels in read_pixels(boxes, image_column(split.size_px)).items():
            found[key_of(np.frombuffer(pixels, np.uint8))] = np.reshape(boxes.boxes[image_id], (-1, 5)).tolist()
    return found


def auroc_intervals(scored: Scored, name: str, seed: int) -> Intervals:
    """AUROC of a variant, by patient, see bootstrap_areas; undefined if a score of the finding is not finite."""
    labels, (scores,) = finite_answers(scored, name)
    return bootstrap_areas(labels, scores, scored.patients, num_resamples=NUM_RESAMPLES, seed=seed).auroc


def auroc_differences(scored: Scored, before: str, after: str, seed: int) -> Intervals:
    """AUROC of `after` minus that of `before`, paired on the same resamples of the patients."""
    labels, scores = finite_answers(scored, before, after)
    return bootstrap_differences(labels, *scores, scored.patients, num_resamples=NUM_RESAMPLES, seed=seed).auroc


def finite_answers(scored: Scored, *names: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """Labels and probabilities of variants; a finding with any that is not finite gets unknown labels."""
    scores = [scored.probabilities[name] for name in names]
    finite = np.logical_and.reduce([np.isfinite(values).all(axis=0) for values in scores])
    return np.where(finite, scored.labels, np.nan), [np.where(finite, values, 0) for values in scores]
