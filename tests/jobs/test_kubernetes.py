"""The manifests: their schemas, the operators' own models, the product's own parser, and the names that they use."""

import json
import re
import subprocess
from itertools import chain
from pathlib import Path

import pytest
import yaml

from tests.in_process import run_here
from tests.jobs.manifests import KUBERNETES, SITES, documents, files, inside, objects, pods, rendered, tool

ROOT = Path(__file__).parents[2]
CONTAINER = ROOT / "jobs" / "container"
VERSIONS = ("1.29.0", "1.33.0", "1.37.0")
LAUNCHERS = {"python", "torchrun", "spark-submit"}
SCENARIO = "/scenario/scenario.yaml"
MODELS = """
import sys, yaml
from kubeflow_spark_api.models import SparkV1beta2SparkApplication as SparkApplication
from kubeflow_trainer_api.models import TrainerV1alpha1TrainingRuntime as TrainingRuntime
from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob as TrainJob
for thing in yaml.safe_load_all(sys.stdin):
    if model := globals().get(thing["kind"]):
        known = model.from_dict(thing).to_dict()
        # The models drop unknown fields.
        assert known == thing, (known, thing)
        print(thing["kind"])
"""


def commands() -> dict[str, list[str]]:
    """Every command that starts a script of the product, by the file that has it."""
    found = {}
    for file in files():
        for number, container in enumerate(chain.from_iterable(inside(documents(file), "containers"))):
            found[f"{file.parent.name}/{file.name} {number}"] = container.get("args", [])
        for spec in (thing["spec"] for thing in documents(file) if thing["kind"] == "SparkApplication"):
            script = spec["mainApplicationFile"].removeprefix("local:///app/")
            found[f"{file.parent.name}/{file.name}"] = ["spark-submit", script, *spec["arguments"]]
    for name, service in yaml.safe_load((CONTAINER / "compose.yaml").read_text())["services"].items():
        found[f"compose.yaml {name}"] = service.get("command", [])
    lines = re.findall(r"^ *CMD (\[.*\])$", (CONTAINER / "Containerfile").read_text(), re.MULTILINE)
    found |= {f"Containerfile {number}": json.loads(line) for number, line in enumerate(lines)}
    return {name: words for name, words in found.items() if any(word.endswith(".py") for word in words)}


def test_every_stage_has_a_command():
    stages = ("etl", "training", "register", "serving", "batch")
    expected = {*(f"base/{stage}.yaml" for stage in stages), "trainer/trainjob.yaml", "spark/etl.yaml"}
    expected |= {"spark-operator/etl.yaml", "compose.yaml", "Containerfile"}
    assert {name.partition(" ")[0] for name in commands()} == expected


@pytest.mark.parametrize("name", commands())
def test_the_product_understands_the_command(name):
    words = commands()[name]
    assert words[0] in LAUNCHERS
    (script,) = [number for number, word in enumerate(words) if word.endswith(".py")]
    # Every pod finds the settings of its site there.
    assert "/" not in name.partition(" ")[0] or f"--config={SCENARIO}" in words
    scenario = KUBERNETES / "site" / "scenario.yaml"
    place, *given = (word.replace(SCENARIO, str(scenario)) for word in words[script:])
    done = run_here(ROOT / place, *given, "--print_config")
    assert done.code == 0, done.stderr
    for word in words[script + 1 :]:
        if word.startswith("--workspace="):
            assert yaml.safe_load(done.stdout)["workspace"] == word.partition("=")[2]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_objects_fit_the_schema_of_kubernetes(version, tmp_path):
    for site in SITES:
        (tmp_path / f"{site} objects.yaml").write_text(rendered(site))
        # Templates of pods within objects of operators, which only the operators check.
        spec = [{"apiVersion": "v1", "kind": "Pod", **_with_image(pod)} for pod in pods(objects(site))]
        (tmp_path / f"{site} pods.yaml").write_text(yaml.safe_dump_all(spec))
    command = [tool("kubernetes-validate"), "--strict", "-k", version, *map(str, sorted(tmp_path.iterdir()))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    unknown = sorted(re.findall(r"find schema for kind (\w+)", done.stdout + done.stderr))
    assert unknown == sorted(chain.from_iterable(OPERATED.values()))


OPERATED = {"trainer": ["TrainingRuntime", "TrainJob"], "spark-operator": ["SparkApplication"]}


@pytest.mark.parametrize("site", OPERATED)
def test_the_operators_own_models_understand_their_objects(site):
    command = [tool("python"), "-c", MODELS]
    done = subprocess.run(command, input=rendered(site), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == sorted(OPERATED[site])


def _with_image(pod: dict) -> dict:
    """The pod with an image and a name, which Spark adds to its containers."""
    containers = [{"image": "added", **container} for container in pod["spec"]["containers"]]
    return {"metadata": {"name": "pod", **pod.get("metadata", {})}, "spec": {**pod["spec"], "containers": containers}}


def test_pods_fit_the_restricted_standard_and_see_neither_the_cluster_nor_its_services():
    # spark/etl.yaml is a patch of base/etl.yaml.
    whole = [file for file in files() if file != KUBERNETES / "spark" / "etl.yaml"]
    templates = [pod for file in whole for document in documents(file) for pod in pods(document)]
    assert len(templates) == 11
    for pod in (template["spec"] for template in templates):
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["seccompProfile"]
        # The driver starts Spark's executors.
        is_driver = pod["containers"][0]["name"] == "spark-kubernetes-driver"
        assert is_driver or pod["automountServiceAccountToken"] is False
        # A Service named mlflow would set MLFLOW_PORT, which MLflow takes for a setting of its own.
        assert pod["enableServiceLinks"] is False
        for container in pod["containers"]:
            rights = container["securityContext"]
            assert rights["allowPrivilegeEscalation"] is False and rights["capabilities"] == {"drop": ["ALL"]}
