"""The page of a service in the system's Chromium: constants, and what a person does on it."""

import base64

import numpy as np
import pandas as pd
from playwright.sync_api import Page

from inference.candidate.measuring.evaluate import Scored
from inference.candidate.model_card import describe_model
from tests.conftest import make_card
from tests.inference.service import toy

FILM = toy.film(150)
BRIGHTER = toy.film(170)
NAME = "Doe^Jane.png"
KEY = "0123456789abcdef"
DESKTOP = {"width": 1280, "height": 900}
# No sandbox, because tests may run as root; the other options stop Chromium from calling home.
OPTIONS = ("no-sandbox", "disable-gpu", "disable-background-networking", "disable-component-update", "disable-sync")
REFUSED = "Failed to load resource"
DROP = """files => {
    const transfer = new DataTransfer();
    for (const [name, content] of files)
        transfer.items.add(new File([Uint8Array.from(atob(content), letter => letter.charCodeAt(0))], name));
    document.body.dispatchEvent(new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true}));
}"""


TEST_ELSEWHERE = {
    "site": "hospital-b",
    "at": "2026-11-01T12:00:00+00:00",
    "images": 1000,
    "patients": 300,
    "mode": "int8",
    "splits": ["test"],
    "run_id": "run",
    "findings": 2,
    "findings_of_change": 1,
    "auroc": {"value": 0.812, "low": 0.78, "high": 0.84},
    "change": {"value": -0.1, "low": -0.15, "high": -0.05},
    "overlap": "not checked against the training",
}
"""an external test of the toy model, as inference/external/record.py writes it"""


def model_card() -> dict:
    """A model card of 60 generated images, as inference/register.py writes it."""
    rng = np.random.default_rng(0)
    labels = (rng.random((60, 3)) < 0.4).astype(np.float32)
    labels[:, 2] = np.nan
    scores = (0.4 * labels + 0.6 * rng.random((60, 3))).astype(np.float32)
    scores[:, 2] = 0.5
    patients = [str(index // 2) for index in range(60)]
    images = pd.DataFrame({"patient_id": patients, "age_years": 50.0, "sex": ["F", "F", "M", "M"] * 15, "view": "PA"})
    auroc = {
        "Bright": {"value": 0.912, "low": 0.871, "high": 0.946},
        "Never": {"value": None, "low": None, "high": None},
    }
    speed = {"latency_ms": 0.3, "latency_p95_ms": 0.4, "images_per_s": 3000.0, "first_answer_s": 0.1, "size_mb": 1.0}
    report = {
        "test_auroc": {"int8": auroc},
        "difference_to_fp32": {"int8": auroc | {"mean": {"value": -0.001, "low": -0.002, "high": 0.001}}},
        "localisation": {"int8": {"Bright": {"images": 9, "pointing_game": 0.625, "chance": 0.1, "mean_iou": 0.3}}},
        "gate": {"passed": True, "reasons": ["mean AUROC falls by 0.0010"], "few_patients": ["Bright"]},
        "speed": {"int8": speed},
        "machine": {"cpu": "a CPU", "cores": 2, "int8_instructions": ["avx2"]},
    }
    card = make_card(toy.PROPERTIES.findings, [3, 4, 0], [8, 8, 8])
    return describe_model(toy.PROPERTIES, card, Scored(labels, images, {"int8": scores}, {}, {}), report, 0, study={})


def drop(page: Page, *films: np.ndarray | bytes, name: str = NAME) -> None:
    contents = [film if isinstance(film, bytes) else toy.png(film) for film in films]
    page.evaluate(DROP, [[name, base64.b64encode(content).decode()] for content in contents])


def give_key(page: Page, key: str) -> None:
    page.get_by_role("textbox", name="API key").fill(key)
    page.get_by_role("button", name="Use this key").click()


def rows(page: Page) -> list[str]:
    return [" ".join(text.split()) for text in page.locator("#findings label").all_inner_texts()]
