"""Models that take more than grey pixels, from a checkpoint to answers: age, sex and view, and colour images."""

import csv
import io
import json
from pathlib import Path

import cv2
import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from deltalake import DeltaTable

from conf.errors import InputError
from conf.settings import Etl
from conf.workspace import Workspace
from etl.contract.table import read_pixels
from etl.contract.version import TableVersion
from etl.writing.shard_file import load_squares
from inference.batch.listing import list_images
from inference.batch.run import score_new
from inference.candidate.making.layer_search import LayerSearch
from inference.candidate.making.quantize import Work, keep_sensitive_layers, layers_in_fp32
from inference.candidate.making.time_limit import NO_LIMIT
from inference.film.films import load_film
from inference.film.known_boxes import key_of, load_boxes
from inference.model.graphs import compile_graph, open_graph, signature_of
from inference.model.inputs import Attributes, attributes_of, codes_of
from inference.model.model_files import find_model
from inference.model.served_model import ServedModel, open_served
from inference.model.ten_crop import ten_crops, with_ten_crops
from inference.service.engine.model import open_model
from tests.conftest import png
from tests.etl.dicom_files import build, written
from tests.in_process import Ended, run_here
from tests.inference.conftest import (
    FINDINGS,
    REPOSITORY,
    SIZE_PX,
    coloured,
    planted_images,
    write_table,
)
from tests.inference.test_predict import map_in_arrow
from training.network.attributes import encode_attributes
from training.network.checkpoint import BEST, Checkpoint
from training.record.store import use_store

pytestmark = pytest.mark.usefixtures("ready_decoders")
PEOPLE = [Attributes(25.0, "F", "PA"), Attributes(75.0, "M", "AP"), Attributes(), Attributes(50.5, None, "LATERAL")]


def opened(workspace: Workspace, mode: str = "int8") -> ServedModel:
    return open_served(find_model(workspace, "chexscale"), mode)


def run(name: str, workspace: Workspace, *arguments: object) -> Ended:
    return run_here(REPOSITORY / "inference" / f"{name}.py", f"--workspace={workspace.root}", *arguments)


def answers(ended: Ended) -> list[dict]:
    assert ended.code == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


def probabilities(answer: dict) -> list[float]:
    return [finding["probability"] for finding in answer["findings"]]


def a_film() -> np.ndarray:
    """A film of the planted kind, large enough for the ETL's checks; the model gets the planted pixels themselves."""
    (image,), _, _ = planted_images(1, np.random.default_rng(8))
    return np.kron(image, np.ones((4, 4), np.uint8))


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> dict[str, Path]:
    """The same film as a picture, which states nothing, and as a DICOM file."""
    folder = tmp_path_factory.mktemp("films")
    tags = {"PatientAge": "095Y", "PatientSex": "F", "ViewPosition": "LL", "Modality": "DX"}
    # Its greys are shown as they are.
    tags |= {"WindowCenter": 128, "WindowWidth": 256}
    contents = {"film.png": png(a_film()), "film.dcm": written(build(a_film(), **tags))}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in contents}


@pytest.mark.parametrize(("mode", "tolerance"), [("fp32", 1e-4), ("onnx", 1e-4), ("torch", 1e-4), ("fp16", 1e-2)])
def test_every_form_answers_as_the_trained_network_with_the_training_s_encoding(mode, tolerance, tabular_champion):
    model, checkpoint = opened(tabular_champion, mode), Checkpoint.load(tabular_champion.checkpoints / BEST)
    pixels = planted_images(len(PEOPLE), np.random.default_rng(7))[0]
    encoded = encode_attributes(*zip(*((one.age_years, one.sex, one.view) for one in PEOPLE), strict=True))
    with torch.inference_mode():
        logits = checkpoint.build()(torch.from_numpy(pixels), torch.from_numpy(encoded)).numpy()
    properties = model.properties
    expected = 1 / (1 + np.exp(-(logits + properties.shifts) / properties.temperatures))
    got = model.predict(pixels, codes_of(PEOPLE))
    np.testing.assert_allclose(got.probabilities, expected, atol=tolerance)
    assert np.ptp(model.predict(pixels[[0] * 4], codes_of(PEOPLE)).probabilities[:, 0]) > 0.01


def test_eight_bits_leave_the_branch_as_it_was(tabular_champion):
    """What age, sex and view add to the maps of one film is the same in INT8 and FP32, though the maps are not."""
    pixels = planted_images(1, np.random.default_rng(7))[0][[0] * len(PEOPLE)]
    maps = {mode: opened(tabular_champion, mode).predict(pixels, codes_of(PEOPLE)).maps for mode in ("fp32", "int8")}
    added = {mode: every - every[2] for mode, every in maps.items()}
    np.testing.assert_allclose(added["int8"], added["fp32"], atol=1e-4)
    assert not np.allclose(maps["int8"], maps["fp32"], atol=1e-3)


def test_layers_are_searched_with_both_inputs(tabular_champion):
    """The most careful way of quantising, which the gate did not need here."""
    fp32, drops = find_model(tabular_champion, "chexscale").variant("fp32"), iter([0.05, -0.01])
    inputs = planted_images(len(PEOPLE), np.random.default_rng(7))[0], codes_of(PEOPLE)
    reference = compile_graph(open_graph(fp32))
    search = LayerSearch(inputs, reference, lambda _: next(drops), -0.1, 0.1, 0, NO_LIMIT, "INT8")
    graph = keep_sensitive_layers(fp32, inputs, work=Work(search=search))
    assert layers_in_fp32(graph)
    got, expected = compile_graph(graph)(*inputs), reference(*inputs)
    np.testing.assert_allclose(got.probabilities, expected.probabilities, atol=0.02)


def test_ten_crops_are_of_the_film_alone(tabular_champion):
    model = opened(tabular_champion, "fp32")
    pixels = planted_images(1, np.random.default_rng(7))[0]
    averaged = with_ten_crops(model.predict)(pixels, codes_of(PEOPLE[:1]))
    each = [model.predict(crop[None], codes_of(PEOPLE[:1])).probabilities for crop in ten_crops(pixels)]
    np.testing.assert_allclose(averaged.probabilities, np.mean(each, axis=0), atol=1e-6)


def test_a_graph_says_what_it_takes_and_on_what_it_was_trained(tabular_champion):
    found = find_model(tabular_champion, "chexscale")
    graph = open_graph(found.variant("int8"))
    assert [(one["name"], one["dtype"], one["shape"]) for one in signature_of(graph)["inputs"]] == [
        ("pixels", "uint8", [-1, SIZE_PX, SIZE_PX]),
        ("attributes", "float32", [-1, 3]),
    ]
    described = opened(tabular_champion).properties.attributes
    rows = TableVersion.of(tabular_champion).rows("train")
    ages = {"low": rows.age_years.min(), "high": rows.age_years.max(), "unknown": 0}
    assert described["trained_on"]["age_years"] == ages
    numbers = rows["sex"].value_counts()
    assert described["trained_on"]["sex"] == {"F": numbers["F"], "M": numbers["M"], "unknown": 0}
    assert (described["unknown"], described["codes"]["view"]) == (-1, ["PA", "AP", "LATERAL"])
    for page in ("model_card.md", "reporting.md"):
        text = (found.folder / page).read_text()
        assert "64 x 64 grey pixels, made square by `pad`; age in years, sex and view position, each known" in text
    assert "ages of 20 to 79 years, and 0 films of unknown age; sex: F" in text
    report = json.loads((found.folder / "report.json").read_text())
    assert report["attributes"] == described and "sex and view position" in report["input"]


def test_the_command_line_takes_tags_and_what_is_given_wins(tabular_champion, films):
    model = opened(tabular_champion)
    unknown, tagged = answers(run("infer", tabular_champion, "--format=json", films["film.png"], films["film.dcm"]))
    assert unknown["attributes"] == {"age_years": None, "sex": None, "view": None, "given": []}
    assert tagged["attributes"] == {"age_years": 95.0, "sex": "F", "view": "LATERAL", "given": []}
    assert "age and sex and view unknown, but known for every film of the training split" in unknown["warnings"]
    said = ["age 95 years is outside the ages of the training split, 20 to 79 years"]
    assert tagged["warnings"] == [*said, "view LATERAL: no film of the training split has it"]

    ended = run("infer", tabular_champion, "--format=json", "--age=40", "--view=AP", films["film.dcm"])
    (given,) = answers(ended)
    assert given["attributes"] == {"age_years": 40.0, "sex": "F", "view": "AP", "given": ["age_years", "view"]}
    assert given["warnings"] == []
    assert "Given for all files, whatever their tags say: age 40 years, view AP" in ended.stderr
    assert "1 film: age is unknown for 0, sex for 0, view for 0" in ended.stderr
    film = load_film(films["film.dcm"].read_bytes(), model.properties)
    for answer, who in ((tagged, Attributes(95.0, "F", "LATERAL")), (given, Attributes(40.0, "F", "AP"))):
        expected = model.predict(film.pixels[None], codes_of([who])).probabilities[0]
        np.testing.assert_allclose(probabilities(answer), expected, atol=1e-5)

    table = run("infer", tabular_champion, "--sex=m", films["film.png"])
    assert "read with age unknown, sex M (given), view unknown" in table.stdout
    lines = list(csv.DictReader(io.StringIO(run("infer", tabular_champion, "--format=csv", films["film.dcm"]).stdout)))
    assert [lines[0][name] for name in ("age_years", "sex", "view")] == ["95.0", "F", "LATERAL"]


def test_what_cannot_be_given_is_refused_before_any_answer(tabular_champion, colour_champion, films):
    for workspace, option, message in (
        (tabular_champion, "--age=121", "error: age is '121', expected years from 0 to 120 such as 64"),
        (tabular_champion, "--sex=X", "error: sex is 'X', expected F, M or unknown"),
        (colour_champion, "--age=64", "error: age given, but the model takes pixels alone: leave it out"),
    ):
        ended = run("infer", workspace, option, films["film.png"])
        assert (ended.code, ended.stdout) == (2, "")
        assert message in ended.stderr and "Traceback" not in ended.stderr


def rows_in(output: Path) -> list[dict]:
    files = DeltaTable(str(output)).file_uris()
    return pa.concat_tables(map(pq.read_table, files), promote_options="default").to_pylist()


def test_a_batch_takes_the_values_of_the_table_or_of_the_tags(tabular_champion, films, tmp_path):
    model = opened(tabular_champion)
    listing = list_images("", tabular_champion, model.properties)
    score_new(model, listing, str(tmp_path / "scores"), 16, map_in_arrow)
    scores = {row["image_id"]: row for row in rows_in(tmp_path / "scores")}
    rows = TableVersion.of(tabular_champion).rows("test")
    table = {row["image_id"]: row for row in rows.to_dict("records")}
    chosen = list(table)[:5]
    stored = pq.read_table(rows.file.iloc[0], columns=["image_id", f"image_{SIZE_PX}"]).to_pylist()
    pixels = {row["image_id"]: np.frombuffer(row[f"image_{SIZE_PX}"], np.uint8) for row in stored}
    square = np.stack([pixels[name].reshape(SIZE_PX, SIZE_PX) for name in chosen])
    expected = model.predict(square, codes_of(attributes_of(rows.set_index("image_id").loc[chosen])))
    for place, name in enumerate(chosen):
        row, of_table = scores[name], table[name]
        assert [row[key] for key in ("age_years", "sex", "view")] == [of_table[k] for k in ("age_years", "sex", "view")]
        version = f"{of_table['pixel_hash']} {of_table['age_years']} {of_table['sex']} {of_table['view']}"
        assert (row["image_version"], row["doubts"]) == (version, None)
        if row["familiar"]:
            got = [row[f"probability_{finding}"] for finding in FINDINGS]
            np.testing.assert_allclose(got, expected.probabilities[place], atol=1e-4)

    folder = list_images(str(films["film.dcm"].parent), tabular_champion, model.properties)
    score_new(model, folder, str(tmp_path / "files"), 16, map_in_arrow)
    of_file = {row["image_id"]: row for row in rows_in(tmp_path / "files")}
    assert [of_file["film.dcm"][key] for key in ("age_years", "sex", "view")] == [95.0, "F", "LATERAL"]
    assert of_file["film.png"]["age_years"] is None and "age and sex and view unknown" in of_file["film.png"]["doubts"]


def test_mlflow_and_the_service_open_it_with_both_inputs(tabular_champion):
    model = opened(tabular_champion)
    pixels = planted_images(len(PEOPLE), np.random.default_rng(7))[0]
    inputs = pixels, codes_of(PEOPLE)
    expected = model.predict(*inputs).probabilities
    use_store(tabular_champion)
    loaded = mlflow.pyfunc.load_model("models:/chexscale@champion")
    got = loaded.predict(dict(zip(("pixels", "attributes"), inputs, strict=True)))
    np.testing.assert_allclose(got[FINDINGS], expected, atol=1e-6)
    with pytest.raises(mlflow.exceptions.MlflowException):
        loaded.predict({"pixels": pixels})
    served = open_model(find_model(tabular_champion, "chexscale"), "int8")
    np.testing.assert_allclose(served.compute(*inputs, alone=True).probabilities, expected, atol=1e-4)


def test_films_of_another_hospital_are_tested_with_their_own_values(tabular_champion, tmp_path):
    other = Workspace.at(str(tmp_path / "hospital-b"))
    write_table(other, 5, FINDINGS, "b-", delta_table_id="elsewhere")
    ended = run("validate", tabular_champion, f"--scoring.source={other.root}")
    assert ended.code == 0, ended.stderr
    assert "448 films: age is unknown for 0, sex for 0, view for 0" in ended.stdout
    folder = tabular_champion.external("hospital-b")
    report = json.loads((folder / "report.json").read_text())
    assert report["attributes"] == {"films": 448, "unknown": {"age_years": 0, "sex": 0, "view": 0}, "doubts": {}}
    assert "Age, sex and view are inputs of the model. 448 films: age is unknown" in (folder / "report.md").read_text()


def test_a_colour_model_gets_films_as_its_table_has_them(colour_champion, served, films, tmp_path):
    """And a model of grey films gets a colour file's luminance, as its table would."""
    colour = tmp_path / "colour.png"
    colour.write_bytes(png(coloured(a_film())[..., ::-1]))
    kinds = {3: opened(colour_champion).properties, 1: served.properties}
    for path in (colour, *films.values()):
        for channels, properties in kinds.items():
            content = path.read_bytes()
            (square,), *_ = load_squares(lambda content=content: content, Etl(sizes_px=[SIZE_PX]), channels)
            film = load_film(content, properties, shown_px=100)
            np.testing.assert_array_equal(film.pixels, square)
            assert film.pixels.shape == properties.image_shape
            assert film.shown.shape == (100, 100, *film.pixels.shape[2:])
    # The ETL checks no colour image.
    dark = png(np.zeros((200, 200), np.uint8))
    assert load_film(dark, kinds[3]).fault is None and "constant" in load_film(dark, kinds[1]).fault


def test_a_package_of_a_colour_model_answers_and_paints_in_colour(colour_champion, films, tmp_path):
    package, pictures, colour = tmp_path / "model.zip", tmp_path / "heat maps", tmp_path / "colour.png"
    colour.write_bytes(png(coloured(a_film())[..., ::-1]))
    assert run("package", colour_champion, f"--output={package}").code == 0
    options = (f"--model={package}", "--format=json", f"--heatmaps={pictures}")
    ended = run("infer", Workspace.at(str(tmp_path / "nowhere")), *options, colour, films["film.png"])
    answer, _ = answers(ended)
    model = opened(colour_champion)
    (image,) = planted_images(1, np.random.default_rng(8))[0]
    expected = model.predict(coloured(image)[None]).probabilities[0]
    np.testing.assert_allclose(probabilities(answer), expected, atol=1e-5)
    assert answer["attributes"] is None and answer["fault"] is None
    picture = cv2.imread(answer["heatmaps"][0])
    blue, _, red = picture[:200].reshape(-1, 3).mean(axis=0)
    assert red > 2 * blue


def test_known_boxes_of_colour_films_are_found_again(colour_champion):
    found = find_model(colour_champion, "chexscale")
    rows = TableVersion.of(colour_champion).rows("test")
    row = rows[rows.boxes.map(len) > 0].iloc[0]
    pixels = read_pixels(rows[rows.image_id == row.image_id], f"image_{SIZE_PX}")[row.image_id]
    square = np.frombuffer(pixels, np.uint8).reshape(SIZE_PX, SIZE_PX, 3)
    assert np.ravel(load_boxes(found.folder)[key_of(square)]) == pytest.approx(row.boxes)


def test_a_table_of_the_other_colour_is_refused(colour_champion, tabular_champion):
    for model, table, message in (
        (colour_champion, tabular_champion, "are grey, those that the model takes are in colour"),
        (tabular_champion, colour_champion, "are in colour, those that the model takes are grey"),
    ):
        with pytest.raises(InputError, match=message):
            list_images(str(table.root), model, opened(model).properties)
