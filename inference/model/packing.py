"""Writes a model as a package (see package.py), or in the layout that OpenVINO Model Server and KServe read."""

import hashlib
import json
import zipfile
from dataclasses import asdict
from pathlib import Path

from conf.errors import InputError
from conf.words import RESEARCH_USE
from conf.writing import atomic_folder, atomic_path, locked, write_json
from inference.model.card_pages import PAGES, pages_of
from inference.model.card_text import TEXT_FILE
from inference.model.graphs import COMPILE_OPTIONS, open_graph, properties_of, signature_of
from inference.model.model_files import ModelFiles
from inference.model.package import FORMAT, KIND, MANIFEST
from inference.model.properties import CARD_FILE, LUNGS
from inference.model.reference import FILE as REFERENCE

BASE_MODE = "int8"
ABOUT = (CARD_FILE, *PAGES, "report.json", "boxes.json", REFERENCE)
"""files beside the graphs that travel too, if the model has them"""
# The earliest time that a ZIP archive can hold, so that the bytes do not depend on when it was made.
TIME = (1980, 1, 1, 0, 0, 0)

README = """\
# {title}

**{research_use}** No output may guide the care of a patient. Read model_card.md first.
reporting.md, which models of older releases lack, is for whoever reports a study of the model.

A model package of CheXScale: findings on frontal chest radiographs. It needs no registry:

    python inference/infer.py --model PACKAGE film.png
    python inference/serve.py --model PACKAGE
    spark-submit inference/predict.py --model PACKAGE --scoring.source FOLDER --scoring.output FOLDER

PACKAGE is the file, or the folder into which it was unpacked. manifest.json lists every file with its SHA-256, which
is checked whenever the package is opened, and the model's inputs, outputs, thresholds, calibration and origin.
"""
SERVER_README = """\
# {name}, for OpenVINO Model Server and KServe

**{research_use}** No output may guide the care of a patient. model_card-VERSION.md describes each version.

Input `pixels`: (batch, S, S) uint8, squares of grey as CheXScale's ETL makes them, or (batch, S, S, 3) of RGB if the
graph takes colour. A graph that takes age, sex and view has the input `attributes` too, (batch, 3) float32: age in
years, and the places of sex and view in the lists `codes`; -1 is unknown. The server decodes no film, checks nothing,
and calls no finding: the thresholds, the distance above which `probabilities` mean nothing, and `codes` are in
model.xml, in the element `chexscale`. Compute with the option INFERENCE_PRECISION_HINT of ../config.json.
"""


def write_package(files: ModelFiles, modes: list[str], output: Path, tests: list[dict] | None = None) -> str:
    """Writes a package, atomically; returns its identity, the SHA-256 of the manifest. The same model, the
    same bytes, as long as nobody tests it elsewhere.

    modes: precisions besides INT8. tests: summaries of external tests, which the card in the package names. Raises
    InputError if the model lacks a mode, or if `output` cannot be written.
    """
    contents = _contents(files, [BASE_MODE, *modes])
    if tests and CARD_FILE in contents:
        card = json.loads(contents[CARD_FILE]) | {"tested_at": tests}
        contents[CARD_FILE] = json.dumps(card, indent=2, ensure_ascii=False).encode() + b"\n"
        contents |= {name: text.encode() for name, text in pages_of(card).items()}
    manifest = json.dumps(_manifest(files, contents), indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"
    try:
        with atomic_path(output) as temporary, zipfile.ZipFile(temporary, "w", strict_timestamps=True) as archive:
            for path, content in {MANIFEST: manifest, **contents}.items():
                archive.writestr(_entry(path), content)
    except OSError as error:
        raise InputError(
            f"--output {output} cannot be written ({error.strerror or error}): choose another file"
        ) from error
    return hashlib.sha256(manifest).hexdigest()


def write_model_server(files: ModelFiles, mode: str, root: Path) -> Path:
    """Adds the model to a repository of OpenVINO Model Server: NAME/VERSION with one graph, and config.json.

    root: the repository, made if missing; other models and versions in it stay. Returns the folder NAME. It is what
    --model_path, and the storageUri of a KServe InferenceService, name. Raises InputError if the model lacks the mode.
    """
    graphs = {Path(path).name: content for path, content in _graphs(files, mode).items()}
    model = root / files.name
    try:
        with locked(root, wait=True):
            with atomic_folder(model / str(files.version)) as building:
                for name, content in graphs.items():
                    (building / name).write_bytes(content)
            # Beside the versions' folders, in which the server looks for nothing but a graph.
            for name, content in _server_pages(files).items():
                with atomic_path(model / name) as temporary:
                    temporary.write_bytes(content)
            _add_to_config(root / "config.json", files.name)
    except OSError as error:
        raise InputError(
            f"--model_server {root} cannot be written ({error.strerror}): choose another folder"
        ) from error
    return model


def _server_pages(files: ModelFiles) -> dict[str, bytes]:
    """Pages for readers: a README for all versions, and the model card of this one."""
    pages = {"README.md": SERVER_README.format(name=files.name, research_use=RESEARCH_USE).encode()}
    card = files.folder / TEXT_FILE
    return pages | ({f"model_card-{files.version}.md": card.read_bytes()} if card.exists() else {})


def _add_to_config(path: Path, name: str) -> None:
    """Names the model in the server's config.json, whose other entries stay."""
    try:
        config = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"model_config_list": []}
        others = [one for one in config["model_config_list"] if one["config"]["name"] != name]
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{path} is no configuration of OpenVINO Model Server ({error!r:.200}): choose another --model_server"
        ) from error
    # Without the precision, a CPU with AMX would compute in bf16 what was measured in single precision.
    precision = "INFERENCE_PRECISION_HINT"
    plugin = {precision: COMPILE_OPTIONS[precision]}
    # A relative path is relative to config.json, so the folder may be mounted anywhere.
    own = {"name": name, "base_path": name, "plugin_config": plugin}
    write_json(path, {**config, "model_config_list": [*others, {"config": own}]})


def _contents(files: ModelFiles, modes: list[str]) -> dict[str, bytes]:
    """Path in the package -> content, in the order of the paths."""
    readme = README.format(title=f"{files.name} version {files.version}", research_use=RESEARCH_USE)
    contents = {"README.md": readme.encode(), **_about(files)}
    for folder in [*modes, *([LUNGS] if (files.folder / LUNGS).is_dir() else [])]:
        contents |= _graphs(files, folder)
    return dict(sorted(contents.items()))


def _about(files: ModelFiles) -> dict[str, bytes]:
    return {name: (files.folder / name).read_bytes() for name in ABOUT if (files.folder / name).exists()}


def _graphs(files: ModelFiles, mode: str) -> dict[str, bytes]:
    folder = files.folder / mode
    if not folder.is_dir():
        there = ", ".join(sorted(path.name for path in files.folder.iterdir() if path.is_dir()))
        raise InputError(f"{files.title} has no mode {mode}, it has {there}: choose among these with --modes")
    return {f"{mode}/{file.name}": file.read_bytes() for file in sorted(folder.iterdir()) if file.name[0] != "."}


def _manifest(files: ModelFiles, contents: dict[str, bytes]) -> dict:
    graph = open_graph(files.folder / BASE_MODE)
    facts = {
        path: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for path, content in contents.items()
    }
    about = {"kind": KIND, "format": FORMAT, "intended_use": RESEARCH_USE, "name": files.name}
    # Thresholds, calibration and lineage for readers; programs take them from each graph, which has its own.
    about |= {"version": files.version, "signature": signature_of(graph), "properties": asdict(properties_of(graph))}
    return {**about, "files": facts}


def _entry(path: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(path, TIME)
    # A file of Unix with mode 644, on every system.
    entry.create_system, entry.external_attr = 3, 0o100644 << 16
    return entry
