"""Fits a model's calibration and thresholds to another site, on a part of its patients, and measures them on the rest.

The network stays as it is: its logits are scaled and shifted per finding, in each of the model's forms alike.
"""

import json
import shutil
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from scipy.special import expit, logit

from conf.errors import InputError
from conf.settings import MODES, Validation
from conf.words import counted
from conf.writing import atomic_folder, write_json
from inference.candidate.making.unsure import fit_unsure, lacking
from inference.candidate.measuring.evaluate import Scored
from inference.external.measure import measure_calls
from inference.external.seen import share_of
from inference.model.card_pages import pages_of
from inference.model.model_files import ModelFiles
from inference.model.own_test import read_own_test, write_own_test
from inference.model.properties import CARD_FILE, LUNGS, Properties
from inference.model.reference import read_reference
from inference.model.restated import write_restated
from training.measures.calibration import SENSITIVITY, fit_recalibration
from training.measures.conformal import count_patients, patients_needed
from training.measures.thresholds import sensitivity_thresholds, youden_thresholds

MIN_PATIENTS = 10
"""patients with a finding, and without it, that a recalibration needs"""
EDGE = 1e-7
"""distance from 0 and 1 at which a probability has a finite logit; float32 rounds what is nearer to 1"""


@dataclass(frozen=True)
class Recalibration:
    """A calibration and thresholds for a site; arrays have one number per finding."""

    scales: np.ndarray
    """above 0; 1 where the calibration is kept"""
    offsets: np.ndarray
    """0 where the calibration is kept"""
    fitted: np.ndarray
    """(images,) bool, the films that it was fitted to; the others are held out"""
    kept: list[str]
    """findings whose calibration and thresholds stay, because too few patients have or lack them, or because the model
    ranks the films no better than by chance"""
    properties: Properties
    """those of the recalibrated model"""
    mode: str
    """the form that was fitted"""
    notes: list[str]
    """sentences on answers that are no longer given at an error rate, because too few patients were fitted to"""

    def probabilities(self, probabilities: np.ndarray) -> np.ndarray:
        """The recalibrated probabilities, (images, findings) float32, of those that the model gave."""
        return expit(self.scales * logits_of(probabilities) + self.offsets).astype(np.float32)


def logits_of(probabilities: np.ndarray) -> np.ndarray:
    """Finite logits, float64, in the shape of the probabilities."""
    return logit(np.clip(np.asarray(probabilities, np.float64), EDGE, 1 - EDGE))


def recalibrate(
    properties: Properties,
    scored: Scored,
    mode: str,
    found: ModelFiles,
    site: str,
    delta_table_id: str,
    options: Validation,
    seed: int,
) -> Recalibration:
    """Fits to a share of the patients, which a hash of their names and the seed chooses.

    delta_table_id: of the films' table. Raises InputError if every finding has too few patients among these, or if
    there are no others.
    """
    fitted = np.array([share_of(patient, seed) < options.fit_fraction for patient in scored.patients])
    if fitted.all():
        raise InputError(
            f"all {counted(len(np.unique(scored.patients)), 'patient')} would be fitted to, and none is left to "
            "measure: lower --validation.fit_fraction, or give more films"
        )
    labels, probabilities, patients = (
        part[fitted] for part in (scored.labels, scored.probabilities[mode], scored.patients)
    )
    scales, offsets = fit_recalibration(labels, logits_of(probabilities), patients, MIN_PATIENTS)
    is_kept = (scales == 1) & (offsets == 0)
    if is_kept.all():
        raise InputError(
            f"no finding has {MIN_PATIENTS} patients with it and {MIN_PATIENTS} without it among the "
            f"{len(np.unique(patients))} patients to fit to: give more films, or leave out --validation.recalibrate"
        )
    new = expit(scales * logits_of(probabilities) + offsets)
    unsure, notes = {}, []
    if properties.unsure:
        rate = properties.unsure["error_rate"]
        needed, fewest = patients_needed(rate), np.minimum(*count_patients(labels, patients)).max()
        if fewest < needed:
            notes.append(
                f"the recalibrated model does not answer unsure: an error rate of {rate:g} needs {needed} patients "
                f"with a finding and {needed} without it, and of those fitted to there are {fewest} at most; what "
                "helps: more films, or a larger --validation.fit_fraction"
            )
        else:
            notes += lacking(properties.findings, labels, patients, rate, f"the films of {site} that are fitted to")
            # Scaled logits are in the same order, so that the same films may choose scales and bounds. They are rounded
            # as the graph's answers are.
            unsure = fit_unsure(labels, new.astype(np.float32), patients, rate)
    chosen = {
        "youden": youden_thresholds(labels, new),
        f"sensitivity_{SENSITIVITY}": sensitivity_thresholds(labels, new, SENSITIVITY),
    }
    thresholds = {
        point: [old if keep else float(value) for old, keep, value in zip(olds, is_kept, chosen[point], strict=True)]
        for point, olds in properties.thresholds.items()
    }
    scale = np.array(properties.temperatures) / scales
    changed = replace(
        properties,
        # (logit + shift) / temperature, scaled and moved, is again of that form.
        shifts=(np.array(properties.shifts) + offsets * scale).tolist(),
        temperatures=scale.tolist(),
        thresholds=thresholds,
        unsure=unsure,
        recalibrated={
            "site": site,
            "version": found.version,
            "delta_table_id": delta_table_id,
            "seed": seed,
            "fit_fraction": options.fit_fraction,
            "earlier": properties.recalibrated,
        },
    )
    kept = [name for name, keep in zip(properties.findings, is_kept, strict=True) if keep]
    return Recalibration(scales, offsets, fitted, kept, changed, mode, notes)


def refuse_classes(properties: Properties) -> None:
    """Raises InputError for a model of classes."""
    if properties.exclusive:
        raise InputError(
            "the model's findings are classes, whose probabilities must add up to 1: leave out --validation.recalibrate"
        )


def describe(fit: Recalibration, scored: Scored, mode: str, before: Properties, seed: int) -> dict:
    """Measures the held-out films before and after the recalibration; ready for JSON."""
    held_out = scored.only(~fit.fitted)
    new = replace(held_out, probabilities={mode: fit.probabilities(held_out.probabilities[mode])})
    return {
        "fitted_to": {"images": int(fit.fitted.sum()), "patients": len(np.unique(scored.patients[fit.fitted]))},
        "held_out": {"images": len(held_out.labels), "patients": len(np.unique(held_out.patients))},
        "kept": fit.kept,
        "scales": dict(zip(before.findings, fit.scales.tolist(), strict=True)),
        "offsets": dict(zip(before.findings, fit.offsets.tolist(), strict=True)),
        "before": measure_calls(before, held_out, mode, seed),
        "after": measure_calls(fit.properties, new, mode, seed),
    }


def write_model(fit: Recalibration, described: dict, found: ModelFiles, site: str, folder: Path) -> None:
    """Writes the recalibrated model into `folder`, every form that the version has; atomically."""
    with atomic_folder(folder) as building:
        for mode in MODES:
            if (found.folder / mode).is_dir():
                change = partial(_own, fit, mode)
                write_restated(mode, found.folder / mode, building / mode, change, (fit.scales, fit.offsets))
        for name in ("report.json", "boxes.json"):
            if (found.folder / name).exists():
                shutil.copy(found.folder / name, building / name)
        if (found.folder / LUNGS).is_dir():
            shutil.copytree(found.folder / LUNGS, building / LUNGS)
        if reference := read_reference(found.folder):
            after = {mode: fit.probabilities(values) for mode, values in reference.expected.items()}
            factor = reference.factor * max(1.0, float(fit.scales.max()))
            replace(reference, expected=after, factor=factor).save(building)
        own = read_own_test(found.folder)
        if not isinstance(own, str):
            write_own_test(building, own.labels, fit.probabilities(own.probabilities), own.patients)
        if (found.folder / CARD_FILE).exists():
            card = json.loads((found.folder / CARD_FILE).read_text(encoding="utf-8"))
            _describe_in_card(card, fit, described, found, site)
            write_json(building / CARD_FILE, card)
            for name, text in pages_of(card).items():
                (building / name).write_text(text, encoding="utf-8")


def _own(fit: Recalibration, mode: str, of_graph: Properties) -> Properties:
    """Each graph has a distance threshold of its own, and an error rate only if its own answers were fitted to."""
    unsure = fit.properties.unsure if mode == fit.mode else {}
    own = replace(fit.properties, distance_threshold=of_graph.distance_threshold, unsure=unsure)
    return replace(own, lungs_folder="")


def _describe_in_card(card: dict, fit: Recalibration, described: dict, found: ModelFiles, site: str) -> None:
    """Replaces what the recalibration has changed in a model card, and says where it was measured."""
    findings, after = fit.properties.findings, described["after"]
    card["calibration_error"] = after["calibration_error"]
    reason = f"the gate was not asked about this version; about version {found.version}: "
    reason += f"{'passed' if card['gate']['passed'] else 'failed'}, {'; '.join(card['gate']['reasons'])}"
    card["gate"] = card["gate"] | {"passed": None, "reasons": [reason]}
    card["thresholds"] = {
        point: {
            "probability": dict(zip(findings, values, strict=True)),
            **{
                rate: {finding: after["operating_points"][point][finding][rate]["value"] for finding in findings}
                for rate in ("sensitivity", "specificity", "ppv", "npv")
            },
        }
        for point, values in fit.properties.thresholds.items()
    }
    # The card is that of INT8.
    card.pop("unsure", None)
    if fit.mode == "int8" and "unsure" in after:
        card["unsure"] = after["unsure"]
    card["recalibrated"] = {
        "site": site,
        "version": found.version,
        **{key: described[key] for key in ("fitted_to", "held_out", "kept")},
    }
