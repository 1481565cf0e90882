"""Measures what finds the lungs: on phantoms against their exact lungs, on real films by known boxes and as pictures.

    python -m jobs.benchmarks.etl.lungs                                   200 phantoms of each hospital
    python -m jobs.benchmarks.etl.lungs --films DIR --pictures OUT        and films in NIH's layout
    python -m jobs.benchmarks.etl.lungs --lungs FOLDER ...                by a network, as etl.lungs names it

Of phantoms, prints the intersection over union (IoU) of the found box and that around the lungs, of a network also that
of its field and the exact lungs, and which share of the lungs the default crop keeps. Of films, prints how many have
lungs upright, on their side, and upside down, and which share of the radiologists' boxes the crop keeps. OUT gets a
sheet of films with both boxes, and a network's field in blue.
"""

import argparse
import csv
import json
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from conf.errors import InputError, run_command
from conf.settings import Etl
from etl.contract.images.decode import decode_grey
from etl.contract.images.lungs.crop import Crop, crop_around, find_field
from etl.contract.images.lungs.files import FINDER
from etl.contract.images.lungs.graph import lung_field
from etl.contract.images.pixels import to_square
from etl.phantoms.cohort import draw_cohort
from etl.phantoms.film import draw_lungs, render
from etl.phantoms.hospitals import HOSPITALS
from etl.sources.published.nih import BOX_FILE, BOX_FRAME_PX

SEED, SIZE_PX, SHOWN_PX, COLUMNS = 1234, 512, 256, 8
FOUND_RGB, KEPT_RGB = (255, 210, 60), (64, 224, 208)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_phantoms", type=int, default=200, help="phantoms of each hospital (default 200)")
    parser.add_argument("--lungs", default=FINDER, help="what finds the lungs, as etl.lungs (default finder)")
    parser.add_argument("--films", type=Path, help="folder in NIH's layout, with images/ and the box file")
    parser.add_argument("--pictures", type=Path, help="folder for the pictures")
    arguments = parser.parse_args()
    lungs, number = arguments.lungs, arguments.num_phantoms
    results = {f"phantoms of hospital {name}": on_phantoms(name, number, lungs) for name in HOSPITALS}
    if arguments.films:
        paths = sorted((arguments.films / "images").glob("*.png"))
        if not paths:
            raise InputError(f"no PNG in {arguments.films / 'images'}: give a folder in NIH's layout with --films")
        films = {path.name: decode_grey(path.read_bytes()) for path in paths}
        results["films"] = on_films(films, arguments.films / BOX_FILE, lungs)
        if arguments.pictures:
            arguments.pictures.mkdir(parents=True, exist_ok=True)
            step = max(1, len(films) // (4 * COLUMNS))
            content = cv2.imencode(".png", contact_sheet(list(films.values())[::step], lungs)[..., ::-1])[1]
            (arguments.pictures / "films.png").write_bytes(content)
    print(json.dumps(results, indent=2))


def on_phantoms(hospital: str, number: int, lungs: str) -> dict:
    """Measures the box and the crop on phantoms that nothing was chosen on."""
    overlaps, kept, exact = [], [], []
    for study in draw_cohort(SEED, max(number, 100), HOSPITALS[hospital])[:number]:
        drawn = ((SEED, study.patient, study.follow_up), study.female, study.ap, study.findings, SIZE_PX)
        film, _ = render(*drawn, HOSPITALS[hospital])
        mask = draw_lungs(*drawn)
        field = find_field(film, lungs)
        overlaps.append(iou(np.array(field) * SIZE_PX, cv2.boundingRect(mask)) if field else 0.0)
        crop = default_crop(film, field)
        kept.append(crop.of(mask).sum() / mask.sum() if crop else 1.0)
        if lungs != FINDER:
            small = lung_field(film, lungs)
            lung = to_square(mask, len(small)) > 127
            exact.append((small & lung).sum() / (small | lung).sum())
    found = [overlap for overlap in overlaps if overlap]
    return {
        "phantoms": len(overlaps),
        "found": len(found),
        **({"mean_iou_of_the_field": round(float(np.mean(exact)), 4)} if exact else {}),
        "mean_iou": round(float(np.mean(found)), 3),
        "lowest_iou": round(min(found), 3),
        "share_of_lungs_kept": round(float(np.mean(kept)), 4),
        "lowest_share_kept": round(min(kept), 3),
    }


def on_films(films: dict[str, np.ndarray], box_file: Path, lungs: str) -> dict:
    """Counts films with lungs, as they are and turned, and measures how much of known boxes the crop keeps."""
    fields = {name: find_field(film, lungs) for name, film in films.items()}
    turned = {"on_their_side": np.rot90, "upside_down": np.flipud}
    found = {
        f"found_{how}": sum(find_field(np.ascontiguousarray(turn(film)), lungs) is not None for film in films.values())
        for how, turn in turned.items()
    }
    crops = {name: default_crop(films[name], field) for name, field in fields.items()}
    inside = [share_inside(box, crops[name]) for name, box in read_boxes(box_file) if crops.get(name)]
    areas = [crop.width * crop.height / (crop.film_width * crop.film_height) for crop in crops.values() if crop]
    return {
        "films": len(films),
        "found": len(areas),
        **found,
        "mean_share_of_the_film_kept": round(float(np.mean(areas)), 2),
        "boxes": len(inside),
        "boxes_kept_whole": sum(share > 0.999 for share in inside),
        "lowest_share_of_a_box_kept": round(min(inside), 3) if inside else None,
    }


def default_crop(film: np.ndarray, field: tuple[float, float, float, float] | None) -> Crop | None:
    return field and crop_around(field, Etl.crop_margin, film.shape[1], film.shape[0])


def read_boxes(path: Path) -> Iterable[tuple[str, np.ndarray]]:
    """Yields the film and the box, as shares of the film's sides, of each line of NIH's box file."""
    with path.open(encoding="utf-8", newline="") as file:
        for row in list(csv.reader(file))[1:]:
            if row:
                yield row[0], np.array(row[2:6], np.float64) / BOX_FRAME_PX


def share_inside(box: np.ndarray, crop: Crop) -> float:
    """Returns which share of a box, in shares of the film's sides, the crop keeps."""
    kept = np.array(crop[:4]) / np.tile(crop[4:], 2)
    start, end = np.maximum(box[:2], kept[:2]), np.minimum(box[:2] + box[2:], kept[:2] + kept[2:])
    return float((end - start).clip(0).prod() / box[2:].prod())


def iou(one: np.ndarray, other: tuple) -> float:
    """Returns the intersection over union of two boxes: left, top, width, height."""
    other = np.array(other)
    start, end = np.maximum(one[:2], other[:2]), np.minimum(one[:2] + one[2:], other[:2] + other[2:])
    common = (end - start).clip(0).prod()
    return float(common / (one[2:].prod() + other[2:].prod() - common))


def contact_sheet(films: list[np.ndarray], lungs: str) -> np.ndarray:
    """Returns the films in rows of COLUMNS, with the box around the lungs and the default crop, (h, w, 3) uint8 RGB."""
    pictures = []
    for film in films:
        field, height, width = find_field(film, lungs), *film.shape
        picture = cv2.cvtColor(film, cv2.COLOR_GRAY2RGB)
        if lungs != FINDER:
            small = lung_field(film, lungs).astype(np.uint8)
            side = max(height, width)
            whole = cv2.resize(small, (side, side), interpolation=cv2.INTER_LINEAR)
            top, left = (side - height) // 2, (side - width) // 2
            picture[whole[top : top + height, left : left + width] > 0, 2] = 255
        if field:
            for box, colour in (((0, field), FOUND_RGB), ((Etl.crop_margin, field), KEPT_RGB)):
                crop = crop_around(box[1], box[0], width, height)
                end = (crop.left + crop.width - 1, crop.top + crop.height - 1)
                cv2.rectangle(picture, crop[:2], end, colour, max(1, max(height, width) // 200))
        pictures.append(cv2.resize(picture, (SHOWN_PX, SHOWN_PX), interpolation=cv2.INTER_AREA))
    pictures += [np.zeros_like(pictures[0])] * (-len(pictures) % COLUMNS)
    return np.vstack([np.hstack(pictures[start : start + COLUMNS]) for start in range(0, len(pictures), COLUMNS)])


if __name__ == "__main__":
    run_command(main)
