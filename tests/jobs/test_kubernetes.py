"""The manifests, the compose file and the images' commands: what a schema and the product's own parser say of them."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
JOBS = ROOT / "jobs"
MANIFESTS = sorted((JOBS / "kubernetes").glob("*.yaml"))
VERSIONS = ("1.25.0", "1.31.0", "1.37.0")
LAUNCHERS = {"python", "torchrun", "spark-submit"}


def containers(tree) -> Iterator[dict]:
    """Every container, however deep in a manifest."""
    if isinstance(tree, dict):
        yield from tree.get("containers", [])
        tree = list(tree.values())
    if isinstance(tree, list):
        for part in tree:
            yield from containers(part)


def commands() -> dict[str, list[str]]:
    """Every command that starts a script of the product, by the file that has it."""
    found = {}
    for file in MANIFESTS:
        for number, container in enumerate(containers(list(yaml.safe_load_all(file.read_text(encoding="utf-8"))))):
            found[f"{file.name} {number}"] = container["args"]
    for name, service in yaml.safe_load((JOBS / "container" / "compose.yaml").read_text())["services"].items():
        found[f"compose.yaml {name}"] = service.get("command", [])
    lines = re.findall(r"^ *CMD (\[.*\])$", (JOBS / "container" / "Containerfile").read_text(), re.MULTILINE)
    found |= {f"Containerfile {number}": json.loads(line) for number, line in enumerate(lines)}
    return {name: words for name, words in found.items() if any(word.endswith(".py") for word in words)}


def test_every_file_has_a_command():
    assert {name.partition(" ")[0] for name in commands()} == {
        *(file.name for file in MANIFESTS),
        "compose.yaml",
        "Containerfile",
    }


@pytest.mark.parametrize("name", commands())
def test_the_product_understands_the_command(name):
    words = commands()[name]
    assert words[0] in LAUNCHERS
    (script,) = [number for number, word in enumerate(words) if word.endswith(".py")]
    command = [sys.executable, *words[script:], "--print_config"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for word in words[script + 1 :]:
        if word.startswith("--workspace="):
            assert yaml.safe_load(done.stdout)["workspace"] == word.partition("=")[2]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_manifests_fit_the_schema_of_kubernetes(version):
    tool = os.environ.get("CHEXSCALE_KUBERNETES_VALIDATE") or shutil.which("kubernetes-validate")
    if not tool:
        pytest.skip("needs kubernetes-validate on the PATH, or its path in CHEXSCALE_KUBERNETES_VALIDATE")
    command = [tool, "--strict", "-k", version, *map(str, MANIFESTS)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_pod_runs_as_root_or_reads_the_cluster():
    for file in MANIFESTS:
        for document in yaml.safe_load_all(file.read_text(encoding="utf-8")):
            for pod in pods(document):
                assert pod["securityContext"]["runAsNonRoot"] is True, file
                assert pod["automountServiceAccountToken"] is False, file


def pods(tree) -> Iterator[dict]:
    """Every specification of a pod in a manifest."""
    if isinstance(tree, dict):
        if "containers" in tree:
            yield tree
        for part in tree.values():
            yield from pods(part)
