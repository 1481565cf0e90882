"""Runs pods of the rendered manifests by `podman kube play`, which knows neither Service, Job nor probe."""

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import yaml

from tests.jobs.containers import Podman, image_of
from tests.jobs.manifests import inside, objects

MINE = f"chexscale-test-{os.getpid()}"
PAUSE = "localhost/chexscale-test-pause"
Play = Callable[..., str]


@pytest.fixture
def play(podman: Podman, networks, tmp_path) -> Iterator[Play]:
    """Runs the pod of one object of the site, and returns its address."""
    configuration = Path(os.environ["CONTAINERS_CONF"])
    configuration.write_text(configuration.read_text().replace("[engine]", f'[engine]\ninfra_image = "{PAUSE}"'))
    # The process that holds a pod together.
    (tmp_path / "Containerfile").write_text('FROM localhost/chexscale-test-base\nENTRYPOINT ["sleep", "infinity"]\n')
    podman("build", "--tag", PAUSE, str(tmp_path))
    with ExitStack() as undo:
        podman("network", "create", MINE)
        undo.callback(podman, "network", "rm", MINE)
        undo.callback(remove_volumes, podman)
        undo.enter_context(secrets(podman))

        def play(thing: dict, alias: str, name: str = "", ports: dict[str, int] | None = None) -> str:
            """alias: the host name that other pods use. name: the pod's name, by default its alias.

            ports: name of a port of the pod -> port of this machine that leads there.
            """
            file = tmp_path / f"{name or alias}.yaml"
            file.write_text(yaml.safe_dump_all(playable(thing, name or alias, ports or {})))
            undo.callback(podman, "pod", "rm", "--force", "--ignore", "--time=1", f"{MINE}-{name or alias}")
            podman("kube", "play", "--network", f"{MINE}:alias={alias}", str(file))
            infra = podman("pod", "inspect", "--format={{.InfraContainerID}}", f"{MINE}-{name or alias}")
            form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
            return podman("inspect", f"--format={form}", infra)

        yield play


def remove_volumes(podman: Podman) -> None:
    for volume in podman("volume", "ls", "--quiet", f"--filter=name={MINE}").split():
        podman("volume", "rm", volume)


@contextmanager
def secrets(podman: Podman) -> Iterator[None]:
    """The site's Secrets, which podman does not read from a manifest."""
    found = {thing["metadata"]["name"]: thing["data"] for thing in objects("site") if thing["kind"] == "Secret"}
    # A killed test may have left some, and podman 4.3 replaces none.
    left = podman("secret", "ls", "--format={{.Name}}").split()
    try:
        for name, data in found.items():
            if name in left:
                podman("secret", "rm", name)
            podman("secret", "create", name, "-", input=json.dumps(data))
        yield
    finally:
        podman("secret", "rm", *found)


def playable(thing: dict, name: str, ports: dict[str, int]) -> list[dict]:
    """The scenario, and a pod of the object's template, as podman runs them.

    Podman keeps volumes of all pods under their names in one place, and would call curl for a probe.
    """
    template = next(part for part in inside(thing, "template") if "containers" in part["spec"])
    pod = json.loads(json.dumps(template["spec"]))
    for volume in pod["volumes"]:
        if "configMap" not in volume:
            claim = volume.pop("persistentVolumeClaim", {}).get("claimName")
            volume.pop("emptyDir", None)
            volume["persistentVolumeClaim"] = {"claimName": f"{MINE}-{claim or name + '-' + volume['name']}"}
    for container in pod["containers"]:
        container["image"] = re.sub(
            r"registry.example.org/chexscale-(.+):1", lambda found: image_of(found[1]), container["image"]
        )
        for probe in [key for key in container if key.endswith("Probe")]:
            del container[probe]
        for port in container.get("ports", []):
            port |= {"hostPort": ports[port["name"]]} if port["name"] in ports else {}
    (scenario,) = [one for one in objects("site") if one["kind"] == "ConfigMap"]
    metadata = {"name": f"{MINE}-{name}", "labels": template["metadata"]["labels"]}
    both = json.dumps([scenario, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod}])
    return json.loads(both.replace(scenario["metadata"]["name"], f"{MINE}-scenario"))
