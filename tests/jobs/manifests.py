"""The manifests of jobs/kubernetes: as files, and as kustomize renders a site with one of the components."""

import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

KUBERNETES = Path(__file__).parents[2] / "jobs" / "kubernetes"
SITES = {"site": [], "trainer": ["trainer"], "spark": ["spark"], "spark-operator": ["spark-operator"]}
"""components of a site, beside mlflow"""
TOOLS = "CHEXSCALE_KUBERNETES"


def tool(name: str) -> str:
    """A program of the folder that .ci/run makes; the test is skipped if there is none."""
    path = Path(os.environ.get(TOOLS, ""), "bin", name)
    if TOOLS not in os.environ or not path.exists():
        pytest.skip(f"needs {TOOLS}, a folder with bin/{name}, which .ci/run makes")
    return str(path)


def files() -> list[Path]:
    """All files with objects of Kubernetes."""
    return [file for file in sorted(KUBERNETES.glob("*/*.yaml")) if "\nkind: " in file.read_text()]


def documents(file: Path) -> list[dict]:
    return list(yaml.safe_load_all(file.read_text(encoding="utf-8")))


@functools.cache
def rendered(name: str) -> str:
    """A site of SITES, with an API key, as kustomize renders it: YAML."""
    kustomize = tool("kustomize")
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(KUBERNETES, folder, dirs_exist_ok=True)
        site = Path(folder, "site")
        (site / "secret.env").write_text("api-key=0123456789abcdef\n")
        file = site / "kustomization.yaml"
        text = yaml.safe_load(file.read_text())
        text["components"] += [f"../{component}" for component in SITES[name]]
        file.write_text(yaml.safe_dump(text))
        done = subprocess.run([kustomize, "build", str(site)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects(name: str) -> list[dict]:
    return list(yaml.safe_load_all(rendered(name)))


def inside(tree, key: str) -> Iterator:
    """Every value under this key, however deep."""
    if isinstance(tree, dict):
        if key in tree:
            yield tree[key]
        tree = list(tree.values())
    if isinstance(tree, list):
        for part in tree:
            yield from inside(part, key)


def pods(tree) -> list[dict]:
    """Every template of a pod in these objects, also the one that is text in the ConfigMap of Spark's executors."""
    texts = [text for name, text in _texts(tree) if name == "executor.yaml"]
    found = [spec for spec in (*inside(tree, "template"), *map(yaml.safe_load, texts)) if "containers" in spec["spec"]]
    return found if found or not isinstance(tree, dict) or tree.get("kind") != "Pod" else [tree]


def _texts(tree) -> Iterator[tuple[str, str]]:
    for data in inside(tree, "data"):
        yield from data.items()
