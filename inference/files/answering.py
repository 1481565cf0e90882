"""Turns decoded files into answers: the model computes batches, threads describe and paint the answers."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from inference.files.answer_formats import Answered
from inference.files.decoders import Decoded
from inference.files.overlays import paint_finding, worth_painting, write_overlay
from inference.film.answers import describe_findings
from inference.film.films import Film
from inference.film.known_boxes import key_of
from inference.film.stated import Given, Stated
from inference.model.graphs import Answer, Predict
from inference.model.inputs import Inputs, inputs_of
from inference.model.properties import Properties


@dataclass(frozen=True)
class FileAnswerer:
    """Describes and paints the answer for a film."""

    properties: Properties
    operating_point: str
    heatmaps: Path | None
    boxes: dict[str, list[list[float]]]
    caption: str
    given: Given = field(default_factory=dict)
    """age, sex and view for all files"""
    answered: list[Stated] = field(default_factory=list)
    """what the model got of each film so far"""

    def inputs(self, films: list[Film]) -> Inputs:
        """What the model gets of these films."""
        stated = [found for film in films if (found := self.stated(film))]
        self.answered.extend(stated)
        pixels = np.stack([film.pixels for film in films])
        return inputs_of(self.properties, pixels, [one.values for one in stated])

    def stated(self, film: Film) -> Stated | None:
        """Age, sex and view of a film; None if the model takes pixels alone."""
        return film.stated and film.stated.with_given(self.given)

    def answer(self, decoded: Decoded, answer: Answer | None) -> Answered:
        """The answer for one file. answer: the model's answer for its film alone; None if it has no film."""
        film = decoded.film
        if film is None:
            return Answered(decoded.path, None, decoded.fault)
        stated = self.stated(film)
        about = (film.fault, self.operating_point, stated, film.doubts)
        findings = describe_findings(self.properties, answer.probabilities, answer.distances, *about)
        caption = self.caption + (f" · {stated}" if stated else "")
        pictures = []
        for index in worth_painting(findings) if self.heatmaps else ():
            finding = findings.findings[index]
            boxes = [box for which, *box in self.boxes.get(key_of(film.pixels), []) if which == index]
            picture = paint_finding(
                film, answer.maps, index, finding, self.properties, self.operating_point, boxes, caption
            )
            pictures.append(str(write_overlay(picture, self.heatmaps, decoded.path, finding.name)))
        return Answered(decoded.path, findings, None, film.width_px, film.height_px, pictures, film.crop)


def answer_all(
    decoded: Iterator[Decoded], predict: Predict, answerer: FileAnswerer, batch_size: int
) -> Iterator[Answered]:
    """Answers in the order of the files; the decoders continue while a batch is computed and painted."""
    with ThreadPoolExecutor() as threads:
        while batch := list(islice(decoded, batch_size)):
            films = [one.film for one in batch if one.film]
            answers = iter(rows_of(predict(*answerer.inputs(films)))) if films else iter(())
            yield from threads.map(answerer.answer, batch, [next(answers) if one.film else None for one in batch])


def rows_of(answer: Answer) -> list[Answer]:
    return [Answer(*parts) for parts in zip(*answer, strict=True)]
