"""Names in the rendered manifests: whatever an object refers to exists, as no schema can say."""

import re

import pytest
import yaml

from tests.jobs.manifests import SITES, inside, objects, pods

# The chart of the Spark operator makes this account.
OF_OTHERS = {("ServiceAccount", "spark-operator-spark")}
KEYS = {
    "configMap": ("ConfigMap", "name"),
    "secretKeyRef": ("Secret", "name"),
    "persistentVolumeClaim": ("PersistentVolumeClaim", "claimName"),
    "scaleTargetRef": ("Deployment", "name"),
    "roleRef": ("Role", "name"),
}


@pytest.fixture(params=SITES)
def site(request) -> list[dict]:
    return objects(request.param)


def named(site: list[dict]) -> set[tuple[str, str]]:
    return {(thing["kind"], thing["metadata"]["name"]) for thing in site}


def of_kind(site: list[dict], kind: str) -> list[dict]:
    return [thing for thing in site if thing["kind"] == kind]


def labels(site: list[dict]) -> list[dict]:
    """The labels of every pod that may run."""
    return [pod["metadata"]["labels"] for pod in pods(site)]


def test_all_objects_are_in_the_namespace_and_have_a_stage(site):
    stages = {"", "-films", "-etl", "-training", "-register", "-serving", "-batch"}
    for thing in site:
        assert thing["metadata"]["namespace"] == "chexscale"
        app = thing["metadata"]["labels"]["app"]
        assert app == "mlflow" or app.removeprefix("chexscale") in stages


def test_every_name_that_is_referred_to_exists(site):
    wanted = {(kind, value[name]) for key, (kind, name) in KEYS.items() for value in inside([*site, *pods(site)], key)}
    for pod in pods(site):
        wanted |= {("ServiceAccount", account) for account in inside(pod, "serviceAccountName")}
    wanted |= {("ServiceAccount", account) for account in inside(site, "serviceAccount")}
    wanted |= {(ref["kind"], ref["name"]) for ref in inside(site, "runtimeRef")}
    wanted |= {(one["kind"], one["name"]) for subjects in inside(site, "subjects") for one in subjects}
    assert wanted - named(site) - OF_OTHERS == set()
    assert {kind for kind, _ in wanted} >= {"ConfigMap", "Secret", "PersistentVolumeClaim", "Deployment"}


def test_the_secret_and_the_scenario_have_what_the_pods_read(site):
    (secret,) = of_kind(site, "Secret")
    assert {ref["key"] for ref in inside(site, "secretKeyRef")} == set(secret["data"])
    # The ConfigMap of Spark's executors has no settings.
    (scenario,) = [thing for thing in of_kind(site, "ConfigMap") if "scenario.yaml" in thing["data"]]
    settings = yaml.safe_load(scenario["data"]["scenario.yaml"])
    host, port = re.fullmatch(r"http://(.+):(\d+)", settings["tracking_server"]).groups()
    ports = {thing["metadata"]["name"]: thing["spec"].get("ports", []) for thing in of_kind(site, "Service")}
    assert int(port) in [port["port"] for port in ports[host]]
    assert set(settings["serving"]["allowed_hosts"]) <= set(ports)


def test_every_pod_mounts_volumes_that_it_has_at_the_paths_of_the_scenario(site):
    for pod in pods(site):
        volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
        for container in pod["spec"]["containers"]:
            mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            assert set(mounts.values()) <= volumes
            assert {path for path in ("/scenario", "/source", "/workspace") if path in mounts} == {
                f"/{name}" for name in volumes & {"scenario", "source", "workspace"}
            }


def test_selectors_choose_pods_and_ports_that_exist(site):
    for thing in of_kind(site, "Service"):
        selector = thing["spec"]["selector"]
        chosen = [pod for pod in pods(site) if selector.items() <= pod["metadata"]["labels"].items()]
        assert len(chosen) == 1, selector
        ports = {port["name"] for ports in inside(chosen, "ports") for port in ports}
        assert {port.get("targetPort") for port in thing["spec"].get("ports", [])} <= ports | {None}
    for policy in (*of_kind(site, "NetworkPolicy"), *of_kind(site, "PodDisruptionBudget")):
        for selector in (*inside(policy, "podSelector"), *inside(policy, "selector")):
            # A site labels its own clients.
            wanted = selector["matchLabels"].items()
            assert "chexscale-client" in selector["matchLabels"] or any(wanted <= one.items() for one in labels(site))
    for pod in pods(site):
        ports = {port["name"] for ports in inside(pod, "ports") for port in ports}
        assert {probe["port"] for probe in inside(pod, "httpGet")} <= ports


def test_whoever_calls_mlflow_is_let_in(site):
    (policy,) = [one for one in of_kind(site, "NetworkPolicy") if one["metadata"]["name"] == "mlflow"]
    (admitted,) = inside(policy["spec"]["ingress"], "podSelector")
    assert all(admitted["matchLabels"].items() <= one.items() for one in labels(site) if one["app"] != "mlflow")


def test_the_number_of_pods_of_a_training_is_the_same_wherever_it_stands(site):
    if jobs := of_kind(site, "TrainJob"):
        (runtime,) = of_kind(site, "TrainingRuntime")
        assert jobs[0]["spec"]["trainer"]["numNodes"] == runtime["spec"]["mlPolicy"]["numNodes"]
        return
    (job,) = [one for one in of_kind(site, "Job") if one["metadata"]["name"] == "chexscale-training"]
    (pod,) = pods(job)
    (number,) = [one["value"] for one in pod["spec"]["containers"][0]["env"] if one["name"] == "PET_NNODES"]
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == int(number)
    (endpoint,) = [word for word in pod["spec"]["containers"][0]["args"] if word.startswith("--rdzv_endpoint=")]
    host = f"{job['metadata']['name']}-0.{pod['spec']['subdomain']}"
    assert endpoint == f"--rdzv_endpoint={host}:29400"
    assert ("Service", pod["spec"]["subdomain"]) in named(objects("site"))


def test_the_executors_of_spark_take_the_drivers_image_and_ports():
    site = objects("spark")
    (job,) = [one for one in of_kind(site, "Job") if one["metadata"]["name"] == "chexscale-etl"]
    (container,) = pods(job)[0]["spec"]["containers"]
    assert {"name": "EXECUTOR_IMAGE", "value": container["image"]} in container["env"]
    assert container["image"].startswith("registry.example.org/")
    words = dict(word.removeprefix("--conf=").split("=", 1) for word in container["args"] if word[:7] == "--conf=")
    (service,) = [one for one in of_kind(site, "Service") if one["metadata"]["name"] == words["spark.driver.host"]]
    ports = [words["spark.driver.port"], words["spark.driver.blockManager.port"]]
    assert ports == [str(port["port"]) for port in service["spec"]["ports"]]
    variables = {name for value in words.values() for name in re.findall(r"\$\((\w+)\)", value)}
    assert variables == {one["name"] for one in container["env"]}


@pytest.mark.parametrize("name", ["spark", "spark-operator"])
def test_spark_knows_the_volume_of_its_pods_for_its_own_files(name):
    started = [
        pod for pod in pods(objects(name)) if pod["spec"]["containers"][0]["name"].startswith("spark-kubernetes-")
    ]
    assert len(started) == {"spark": 1, "spark-operator": 2}[name]
    for pod in started:
        (tmp,) = [mount for mount in pod["spec"]["containers"][0]["volumeMounts"] if mount["mountPath"] == "/tmp"]
        # Spark mounts another volume at its SPARK_LOCAL_DIRS, /tmp, unless there is one of such a name.
        assert tmp["name"].startswith("spark-local-dir-")
