"""The page of a dataset card, read back with an HTML parser."""

import re
import warnings
from base64 import b64decode
from html.parser import HTMLParser

import cv2
import numpy as np
import pandas as pd
import pytest
from markupsafe import Markup

from etl.card import distributions as card_distributions
from etl.card import page as card_page
from etl.card.counts import count_labels, describe_splits
from etl.card.page import SheetFilm, write_card_page
from etl.contract.schema import SPLITS, Card

VOID = {"meta", "img", "br"}
DASH = "\N{EN DASH}"


class Page(HTMLParser):
    """Elements with their attributes, the text of each, and the cells of every table's rows."""

    def __init__(self, html: str):
        super().__init__()
        self.html, self.elements, self.open = html, [], []
        self.feed(html)
        self.close()
        assert not self.open, f"not closed: {[tag for tag, _, _ in self.open]}"

    def handle_starttag(self, tag, attributes):
        element = (tag, dict(attributes), [])
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes), []))

    def handle_endtag(self, tag):
        opened, _, _ = self.open.pop()
        assert opened == tag, f"</{tag}> closes <{opened}>"

    def handle_data(self, data):
        for _, _, text in self.open:
            text.append(data)

    def texts(self, tag: str, **attributes) -> list[str]:
        return [
            " ".join("".join(text).split())
            for name, found, text in self.elements
            if name == tag and attributes.items() <= found.items()
        ]

    @property
    def text(self) -> str:
        return self.texts("body")[0]

    @property
    def rows(self) -> list[list[str]]:
        """Cells of all rows of all tables."""
        rows = []
        for tag, _, text in self.elements:
            if tag == "tr":
                rows.append([])
            elif tag in ("th", "td"):
                rows[-1].append(" ".join("".join(text).split()))
        return rows

    def figure(self, alt: str) -> str:
        """Text inside the SVG whose description begins with `alt`."""
        return next(
            " ".join("".join(text).split())
            for tag, attributes, text in self.elements
            if tag == "svg" and attributes["aria-label"].startswith(alt)
        )


def make_rows(labels: list[list[float]], **columns) -> pd.DataFrame:
    """One image per patient with these labels; splits in turn."""
    number = len(labels)
    defaults = {
        "image_id": [f"{index}.png" for index in range(number)],
        "patient_id": [str(index) for index in range(number)],
        "follow_up": pd.array([0] * number, dtype="Int32"),
        "age_years": np.full(number, 45, np.float32),
        "sex": ["F"] * number,
        "view": ["PA"] * number,
        "boxes": [[]] * number,
        "split": [SPLITS[index % 3] for index in range(number)],
    }
    findings = [np.array(label, np.float32) for label in labels]
    return pd.DataFrame({**defaults, "findings": findings, **columns})


def make_quarantine(*faults: tuple[str, str, str]) -> pd.DataFrame:
    return pd.DataFrame(list(faults), columns=["image_id", "path", "reason"])


def make_card(rows: pd.DataFrame, findings: list[str], **fields) -> Card:
    return Card(
        **{
            **dict.fromkeys(Card.__dataclass_fields__),
            "delta_table_id": "6e0f-id",
            "delta_version": 7,
            "findings": findings,
            "sizes_px": [96, 256],
            **describe_splits(rows, findings),
            "images_listed": len(rows),
            "images_absent": 0,
            "images_unlisted": 0,
            "left_out": {},
            "not_understood": {},
            "sources": {},
            "corrections": {},
            "agreement": {},
            "images_quarantined": 0,
            "source": "/data/films",
            "source_sha256": {"labels.csv": "ab" * 32},
            "settings": {"source": "/data/films", "quality": {"min_side_px": 128}},
            **fields,
        }
    )


@pytest.fixture
def show(tmp_path):
    """Writes a page and reads it back; any warning is an error."""

    def write(rows, findings, quarantine=None, sheet=(), **fields) -> Page:
        path = tmp_path / "card.html"
        quarantine = make_quarantine() if quarantine is None else quarantine
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", ResourceWarning)  # of files that other tests left to the garbage collector
            write_card_page(path, make_card(rows, findings, **fields), rows, quarantine, list(sheet))
        return Page(path.read_text(encoding="utf-8"))

    return write


@pytest.fixture
def without_figures(monkeypatch):
    """Skips the drawing, which takes most of the time, in tests that read only text and tables."""
    for module, name in (
        (card_page, "draw_counts"),
        (card_page, "draw_shares"),
        (card_page, "draw_heat_map"),
        (card_distributions, "draw_groups"),
    ):
        monkeypatch.setattr(module, name, lambda *_: Markup("<svg></svg>"))


@pytest.mark.usefixtures("without_figures")
def test_the_page_says_how_far_other_labels_agree(show):
    counts = {"known": 1500, "present": 40, "others_present": 50, "both_present": 30}
    rows = {
        "Mass": {"name": "Lung Mass", **counts, "kappa": 0.654321, "ppv": 0.75, "sensitivity": 0.6},
        "Hernia": {"name": "Hernia", **counts, "kappa": None, "ppv": None, "sensitivity": 0.0},
    }
    page = show(make_rows([[0]] * 9), ["Mass"], agreement={"negbio": {"images": 1600, "findings": rows}})
    assert "negbio" in page.texts("h3")
    assert ["Mass (Lung Mass)", "1,500", "40", "50", "30", "0.65", "0.75", "0.60"] in page.rows
    assert ["Hernia", "1,500", "40", "50", "30", DASH, DASH, "0.00"] in page.rows


@pytest.mark.usefixtures("without_figures")
def test_the_page_says_who_corrected_what(show):
    judged = {
        "sha256": "cd" * 32,
        "changed": {"Mass": {"present to absent": 1200, "absent to present": 3}, "Nodule": {"absent to unknown": 1}},
        **{"confirmed": 7, "already": 2, "not_there": 1, "excluded": 4, "open": 30, "boxes_dropped": 5},
        **{"who": {"Dr. <Lee>": 1210, "Kim": 5}, "why": {f"reason {number}": 1 for number in range(32)}},
    }
    page = show(make_rows([[0, 1]] * 9), ["Mass", "Nodule"], corrections={"judged.csv": judged})
    assert "judged.csv" in page.texts("h3")
    assert ["Labels changed", "1,204"] in page.rows
    assert ["Mass", "present to absent", "1,200"] in page.rows and ["Nodule", "absent to unknown", "1"] in page.rows
    assert ["Labels confirmed", "7 and 2 already so in the source"] in page.rows
    assert ["By", "Dr. <Lee> (1,210), Kim (5)"] in page.rows
    assert any(row[0] == "Because" and row[1].endswith("reason 29 (1) and 2 other reasons") for row in page.rows)
    assert "Corrections" not in show(make_rows([[0]] * 9), ["Mass"]).texts("h2")


@pytest.mark.usefixtures("without_figures")
def test_the_page_says_what_the_table_is(show):
    page = show(
        make_rows([[0]] * 1203),
        ["Mass"],
        make_quarantine(*[(f"{index}.png", "/x", "cut") for index in range(4)]),
        images_listed=1302,
        images_quarantined=4,
        images_absent=95,
        images_unlisted=8,
        left_out={".txt, not listed in labels.csv": 5, ".png, not listed in labels.csv": 2, "hidden": 1},
        not_understood={"view": {"XYZ": 12, "<b>": 2}, "body part": {"": 3}},
    )
    assert page.texts("h1") == ["Dataset card: films, table version 7"]
    assert "1,203 images of 1,203 patients with labels for 1 finding" in page.texts("p")[0]
    assert "Research use only, not for clinical use." in page.text
    assert "1,302 listed = 1,203 rows + 4 quarantined + 95 absent" in page.text
    assert ["Source", "/data/films"] in page.rows
    assert ["Delta table id", "6e0f-id"] in page.rows
    assert ["Stored squares", "96 \N{MULTIPLICATION SIGN} 96, 256 \N{MULTIPLICATION SIGN} 256 pixels"] in page.rows
    assert ["train", "401", "33.3", "401"] in page.rows
    assert ["all", "1,203", "100.0", "1,203"] in page.rows
    assert ["quality.min_side_px", "128"] in page.rows
    assert ["labels.csv", "ab" * 32] in page.rows
    said = [row[1] for row in page.rows if row[0] in ("Left out", "Not understood")]
    assert said[0] == "8 files of the source: 5 .txt, 2 .png: not listed in labels.csv; 1 hidden"
    assert said[1:] == ["view of 14 images XYZ; <b>", "body part of 3 images"]


@pytest.mark.usefixtures("without_figures")
def test_an_equation_that_does_not_hold_is_not_written_as_one(show):
    page = show(make_rows([[0]] * 3), ["Mass"], images_listed=10, images_absent=5)
    assert "10 listed ≠ 3 rows + 0 quarantined + 5 absent" in page.text
    assert "differ by 2 images" in page.text


@pytest.mark.usefixtures("without_figures")
def test_percentages_are_of_the_known_labels_with_the_most_frequent_finding_first(show):
    nan = np.nan
    # Rows are train, val, test in turn. A: 1 of 3, none known, 0 of 2. B: 3 of 3, 1 of 2, 2 of 2.
    labels = [[1, 1], [nan, 1], [0, 1], [0, 1], [nan, 0], [0, 1], [0, 1], [nan, nan], [nan, nan]]
    page = show(make_rows(labels), ["A", "B"])
    table = [row for row in page.rows if row[0] in ("A", "B")]
    assert table == [["B", "6", "100.0", "50.0", "100.0"], ["A", "1", "33.3", DASH, "0.0"]]
    assert page.texts("h3").count("Unknown labels") == 1


def test_co_occurrence_is_a_share_of_the_images_with_the_rows_finding(show):
    # One of 3 images with A has B, one of 2 images with B has A. C is known for one image with A, and present there.
    labels = [[1, 1, 1], [1, 0, np.nan], [1, 0, np.nan], [0, 1, 0], [0, 0, 1], [0, 0, 0]]
    rows = make_rows(labels)
    shares = card_page._co_occurrence(rows, [0, 1, 2])
    np.testing.assert_allclose(shares, [[100, 100 / 3, 100], [50, 100, 50], [50, 50, 100]], rtol=1e-6)
    assert {"33", "50"} <= set(show(rows, ["A", "B", "C"]).figure("Heat map").split())


def test_a_finding_that_no_image_has_is_shown_as_zero(show):
    page = show(make_rows([[0, 1], [0, 0], [0, 0]]), ["Hernia", "Mass"])
    assert ["Hernia", "0", "0.0", "0.0", "0.0"] in page.rows
    assert "Hernia" in page.figure("Bars: images with each finding")
    assert "No finding has an unknown label." in page.text
    assert "No image has two of the findings." in page.text


def test_unknown_ages_sexes_views_and_follow_ups_are_counted(show):
    page = show(
        make_rows(
            [[0]] * 6,
            patient_id=["a", "b", "c", "a", "e", "f"],
            follow_up=pd.array([0, 25, 3, 4, None, None], dtype="Int32"),
            age_years=np.array([9.9, 10, np.nan, 45, 119, np.nan], np.float32),
            sex=["F", "M", None, "F", "M", None],
            view=["PA", "AP", None, "LATERAL", "PA", "PA"],
        ),
        ["Mass"],
    )
    counted = [row for row in page.rows if len(row) == 4]
    assert ["2", "1", "0", "0"] in counted  # patient a
    for row in ([f"3{DASH}4", "1", "0", "1"], [f"20{DASH}49", "0", "1", "0"], ["unknown", "0", "1", "1"]):
        assert row in counted
    for row in (
        [f"sex F, 0{DASH}9", "1", "0", "0"],
        [f"sex M, 10{DASH}19", "0", "1", "0"],
        ["sex M, 90+", "0", "1", "0"],
    ):
        assert row in counted
    assert ["sex unknown, unknown", "0", "0", "2"] in counted
    for row in (["PA", "1", "1", "1"], ["LATERAL", "1", "0", "0"], ["unknown", "0", "0", "1"]):
        assert row in counted
    assert "unknown" in page.figure("Bars: age by sex")
    assert "unknown" in page.figure("Bars: view position")


@pytest.mark.usefixtures("without_figures")
def test_a_table_that_knows_nothing_about_its_patients_says_so(show):
    nothing = [None] * 3
    rows = make_rows([[np.nan]] * 3, sex=nothing, view=nothing, follow_up=nothing, age_years=nothing)
    page = show(rows, ["Mass"])
    assert page.texts("p").count("Unknown for all images.") == 3
    assert ["Mass", "0", DASH, DASH, DASH] in page.rows
    assert ["unknown", "1", "1", "1"] in page.rows


@pytest.mark.usefixtures("without_figures")
def test_a_view_outside_the_contract_is_not_dropped_in_silence(show):
    with pytest.raises(AssertionError, match="LATERAL"):
        show(make_rows([[0]] * 3, view=["PA", "OBLIQUE", "AP"]), ["Mass"])


@pytest.mark.usefixtures("without_figures")
def test_rows_of_another_version_than_the_card_are_refused(tmp_path):
    rows = make_rows([[0]] * 6)
    with pytest.raises(AssertionError, match="the card says"):
        write_card_page(tmp_path / "card.html", make_card(rows, ["Mass"]), rows[:5], make_quarantine(), [])


@pytest.mark.usefixtures("without_figures")
def test_quarantine_is_grouped_by_the_kind_of_reason(show):
    quarantine = make_quarantine(
        ("c.png", "/in/c.png", "empty file"),
        ("a.png", "/in/a.png", "too small: 64x64 pixels, expected: 128"),
        ("b.png", "/in/b.png", "too small: 9x9 pixels"),
    )
    quarantine.index = [0, 0, 1]  # as after pd.concat
    page = show(make_rows([[0]] * 3), ["Mass"], quarantine, images_listed=6, images_quarantined=3)
    reasons = [row for row in page.rows if row[0] in ("too small", "empty file")]
    assert reasons == [
        ["too small", "2", "a.pngtoo small: 64x64 pixels, expected: 128/in/a.png"],
        ["empty file", "1", "c.pngempty file/in/c.png"],
    ]
    assert "No image is in quarantine." in show(make_rows([[0]] * 3), ["Mass"]).text


@pytest.mark.usefixtures("without_figures")
def test_films_are_shown_in_colour_with_their_boxes(show):
    grey = SheetFilm("g.png", "val", np.full((300, 300), 90, np.uint8), [], [])
    red = np.zeros((40, 40, 3), np.uint8)
    red[..., 0] = 220
    colour = SheetFilm(
        "c.jpg", "test", red, ["Mass", "Nodule"], [("Mass", 0.25, 0.5, 0.125, 0.2), ("Nodule", 0, 0, 1, 1)]
    )
    page = show(make_rows([[0]] * 3), ["Mass"], sheet=[grey, colour])
    images = [attributes for tag, attributes, _ in page.elements if tag == "img"]
    assert [image["alt"] for image in images] == ["g.png, val: no finding", "c.jpg, test: Mass, Nodule"]
    shown = [
        cv2.imdecode(np.frombuffer(b64decode(image["src"].removeprefix("data:image/jpeg;base64,")), np.uint8), -1)
        for image in images
    ]
    assert shown[0].shape == (256, 256)
    assert abs(shown[0].mean() - 90) < 2
    assert np.abs(shown[1].mean(axis=(0, 1)) - [0, 0, 220]).max() < 4  # OpenCV's order is blue, green, red
    boxes = [attributes for _, attributes, _ in page.elements if attributes.get("class") == "box"]
    assert boxes[0]["style"] == "left: 25.00%; top: 50.00%; width: 12.50%; height: 20.00%"
    assert [box["aria-label"] for box in boxes] == ["box of Mass", "box of Nodule"]
    assert "Boxes: 1 Mass, 2 Nodule" in page.text


def test_whatever_a_source_says_stays_text(show):
    evil = "</svg></style><script>alert('1')</script>\"&$x_{1}$\x0b 肺炎\udcff"
    film = SheetFilm(evil, "val", np.zeros((8, 8), np.uint8), [evil], [(evil, 0, 0, 1, 1)])
    page = show(
        make_rows([[1, 1]] * 3, image_id=[evil, "b", "c"]),
        [evil, "$x_{1}$ <b>\x0b肺炎\udcff"],  # short enough for the figures
        make_quarantine((evil, evil, evil + ": more")),
        [film],
        source=evil,
        source_sha256={evil: evil},
        settings={"source": evil, evil: evil},
        delta_table_id=evil,
    )
    assert not page.texts("script")
    assert len(page.texts("style")) == 1 + sum(tag == "svg" for tag, _, _ in page.elements)
    assert page.text.count("<script>alert('1')</script>") >= 12
    assert "$x_{1}$ <b> 肺炎 " in page.figure("Bars: images with each finding")
    alt = next(attributes["alt"] for tag, attributes, _ in page.elements if tag == "img")
    assert alt == f"{evil}, val: {evil}".replace("\udcff", r"\udcff")


@pytest.fixture(scope="module")
def full_page(tmp_path_factory) -> Page:
    """A page with every section and figure."""
    rows = make_rows([[1, 1, 0], [0, 0, np.nan], [1, 0, 1]] * 3)
    path = tmp_path_factory.mktemp("page") / "card.html"
    film = SheetFilm("a.png", "val", np.zeros((8, 8), np.uint8), [], [])
    write_card_page(path, make_card(rows, list("ABC")), rows, make_quarantine(("x", "y", "too small: z")), [film])
    return Page(path.read_text(encoding="utf-8"))


def test_the_page_needs_nothing_from_outside(full_page):
    page = full_page
    ids = [attributes["id"] for _, attributes, _ in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes, _ in page.elements:
        assert tag not in ("script", "link", "iframe", "object")
        assert "data:image/" in attributes.get("src", "data:image/")
        for key in ("href", "xlink:href"):
            assert attributes.get(key, "#" + ids[0])[1:] in ids
        for name in re.findall(r"url\((.*?)\)", " ".join(value or "" for value in attributes.values())):
            assert name.removeprefix("#") in ids
    assert "@import" not in page.html
    assert "url(" not in page.texts("style")[0]


def test_the_page_is_made_of_landmarks_and_described_figures(full_page):
    page = full_page
    assert len(page.texts("h1")) == len(page.texts("main")) == 1
    assert page.texts("h2") == ["The table", "Findings", "Patients and films", "Quarantine", "Contact sheet"]
    for tag, attributes, _ in page.elements:
        if tag == "svg":
            assert attributes["role"] == "img"
            assert attributes["aria-label"]
        if tag == "th":
            assert attributes["scope"] in ("col", "row")
    captions = [caption for caption in page.texts("figcaption") if "films, table version 7; " in caption]
    assert len(captions) == sum(tag == "svg" for tag, _, _ in page.elements) == 9
    assert "too small" in page.figure("Bars: images in quarantine")
    assert "#010203" not in page.html


@pytest.mark.usefixtures("without_figures")
def test_phantoms_and_only_phantoms_are_called_phantoms(show):
    banner = "Phantoms: the images are generated, and nothing here says anything about real patients."
    rows = make_rows([[0]] * 3)
    assert banner in show(rows, ["Mass"], settings={"source": "phantoms"}).text
    assert banner not in show(rows, ["Mass"], source="/data/phantoms").text


@pytest.mark.usefixtures("without_figures")
def test_the_page_shows_what_each_of_several_sources_has(show):
    rows = make_rows([[1, np.nan], [0, np.nan], [1, np.nan], [np.nan, 1], [np.nan, 0], [np.nan, 0]])
    sources = {
        name: {"settings": {"format": name, "columns": {"patient": "<p>"}}, **count_labels(part, ["Mass", "Fracture"])}
        for name, part in (("one", rows[:3]), ("a & b", rows[3:]))
    }
    page = show(rows, ["Mass", "Fracture"], sources=sources, settings={"source": ""})
    assert "one + a & b, table version 7" in page.text
    assert ["one", "1", "1", "1", "3", "3"] in page.rows
    assert ["Mass", "66.7", "\u2013"] in page.rows and ["Fracture", "\u2013", "33.3"] in page.rows
    assert ["columns.patient", "<p>"] in page.rows
    assert "Phantoms" not in page.text
    assert "Percentages of each source" not in show(rows, ["Mass", "Fracture"]).text


def test_of_many_classes_the_most_frequent_are_shown_and_the_rest_listed(show):
    number = 200
    # Classes 195 to 199 have 39 images each, 5 to 9 have one, 0 to 4 none.
    labels = [row for index in range(number) for row in [np.eye(number)[index]] * (index // 5)]
    names = [f"class {index:03d}" for index in range(number)]
    names[199] = "class 199 " + "long " * 30
    page = show(make_rows(labels), names)
    assert "The vocabulary has 200 findings. The figures show the 30 most frequent." in page.text
    assert "The other 170 findings" in page.text
    assert ["class 000", "0", "0.0", "0.0", "0.0"] in page.rows
    assert len({row[0] for row in page.rows if row[0].startswith("class")}) == number
    figure = page.figure("Bars: images with each finding")
    assert figure.count("class") == 30
    assert "class 170" in figure
    assert "class 199 long long long …" in figure
    assert "No image has two of the shown findings." in page.text


def test_a_page_of_many_rows_is_small(show):
    rng = np.random.default_rng(0)
    page = show(make_rows((rng.random((20_000, 14)) < 0.1).tolist()), [f"finding {index}" for index in range(14)])
    assert len(page.html) < 500_000


@pytest.mark.usefixtures("without_figures")
def test_an_error_leaves_the_page_before(tmp_path, monkeypatch):
    path = tmp_path / "card.html"
    rows = make_rows([[0]] * 3)
    write_card_page(path, make_card(rows, ["Mass"]), rows, make_quarantine(), [])
    before = path.read_bytes()
    monkeypatch.setattr("conf.writing.os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError, match="disk"):
        write_card_page(path, make_card(rows, ["Mass"], delta_version=8), rows, make_quarantine(), [])
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["card.html"]
