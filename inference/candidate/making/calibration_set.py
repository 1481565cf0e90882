"""Chooses the training images that calibrate INT8: every finding is among them, no patient needlessly twice."""

from collections import deque

import numpy as np
import pandas as pd

from etl.contract.schema import image_column
from etl.contract.table import read_labels, read_pixels
from inference.model.inputs import Inputs, inputs_of_rows
from inference.model.properties import Properties
from training.reading.plan import Split


def choose_images(rows: pd.DataFrame, num_images: int, seed: int) -> list[str]:
    """Chooses at most num_images image_ids whose activations cover the ranges that the training split produces.

    rows: image_id, patient_id and findings (a list of 1, 0 or NaN) of the training split. The choice takes turns
    between the findings and the images without a finding, in an order drawn from `seed`, with one image per patient.
    Once every patient is used, it takes further images of the same patients. If the table has fewer images, it
    returns all of them.
    """
    shuffled = rows.iloc[np.random.default_rng(seed).permutation(len(rows))]
    present = np.stack(shuffled["findings"].to_numpy()) == 1
    columns = [*present.T, ~present.any(axis=1)]
    ids, patients = shuffled["image_id"].to_numpy(), shuffled["patient_id"].to_numpy()
    chosen: dict[str, None] = {}
    used: set[str] = set()
    for new_patients_only in (True, False):
        turns = deque(deque(np.flatnonzero(column)) for column in columns)
        while turns and len(chosen) < num_images:
            queue = turns.popleft()
            while queue:
                index = queue.popleft()
                if ids[index] in chosen or (new_patients_only and patients[index] in used):
                    continue
                chosen[ids[index]] = None
                used.add(patients[index])
                turns.append(queue)
                break
    return list(chosen)


def calibration_inputs(split: Split, num_images: int, seed: int, properties: Properties) -> Inputs:
    """Reads the images of choose_images, as the model takes them: the same in every call, fewer if there are fewer."""
    rows = pd.concat(read_labels(split.files)).set_index("image_id", drop=False)
    ids = choose_images(rows[["image_id", "patient_id", "findings"]], num_images, seed)
    found = read_pixels(rows.loc[ids], image_column(split.size_px))
    pixels = np.stack([np.frombuffer(found[image_id], np.uint8).reshape(properties.image_shape) for image_id in ids])
    return inputs_of_rows(properties, pixels, rows.loc[ids])
