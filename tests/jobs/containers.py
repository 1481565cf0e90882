"""Builds and runs the images of jobs/container by podman, on a base of Debian's packages, without a registry."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from conf.writing import atomic_path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "jobs" / "container"
NEEDED = ("podman", "runc", "mmdebstrap")
BASE = "localhost/chexscale-test-base"
KEY = "0123456789abcdef"
CONF = """\
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=20000:20000"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
"""
"""for machines where root may not raise limits, and without systemd"""

Podman = Callable[..., str]


@pytest.fixture
def podman(tmp_path, monkeypatch) -> Podman:
    """Runs podman, which has the base image; returns its output."""
    absent = [name for name in NEEDED if not shutil.which(name)]
    if absent or os.geteuid() != 0:
        pytest.skip(f"needs root and {', '.join(NEEDED)}; absent: {', '.join(absent) or 'root'}")
    configuration = CONF
    if shutil.which("netavark", path="/usr/lib/podman:/usr/libexec/podman"):
        # It lets containers of one network find each other by name.
        configuration += '[network]\nnetwork_backend = "netavark"\n'
    (tmp_path / "containers.conf").write_text(configuration)
    monkeypatch.setenv("CONTAINERS_CONF", str(tmp_path / "containers.conf"))

    def run(*arguments: str, **options) -> str:
        done = subprocess.run(["podman", *arguments], capture_output=True, text=True, cwd=ROOT, **options)
        assert done.returncode == 0, f"podman {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
        return done.stdout.strip()

    try:
        if not run("images", "--quiet", BASE):
            # An existing one stays: imported anew, it would be another image, and all layers would be built again.
            import_base(run)
        run("run", "--rm", "--network=host", BASE, "true")
    except (AssertionError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this machine cannot run a container of Debian's packages: {error}")
    return run


@pytest.fixture
def networks(podman) -> None:
    """Skips where containers cannot have a network of their own, for which netavark calls iptables."""
    try:
        podman("run", "--rm", "--network=bridge", BASE, "true")
    except AssertionError as error:
        pytest.skip(f"this machine cannot give containers a network (it needs netavark and iptables): {error}")


def import_base(podman: Podman) -> None:
    """Makes the base image, whose archive the cache keeps."""
    archive = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "chexscale", "debian-bookworm.tar")
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(archive) as building:
            skip = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("man", "locale", "doc")]
            command = ["mmdebstrap", "--quiet", "--variant=apt", "--format=tar", *skip, "bookworm", str(building)]
            subprocess.run(command, check=True)
    podman("import", "--quiet", str(archive), BASE)


def image_of(target: str) -> str:
    """The name of a target's image in the tests, which leave those that people build as they are."""
    return f"localhost/chexscale-test-{target}"


def build(podman: Podman, target: str) -> str:
    """Builds a target of the Containerfile, and returns the image's name."""
    arguments = ["--build-arg", f"BASE={BASE}"]
    # As behind a hospital's proxy that inspects TLS.
    if certificates := os.environ.get("SSL_CERT_FILE"):
        arguments += ["--volume", f"{certificates}:/ca.crt:ro"]
        arguments += ["--build-arg", "SSL_CERT_FILE=/ca.crt", "--build-arg", "PIP_CERT=/ca.crt"]
    image, file = image_of(target), str(FOLDER / "Containerfile")
    podman("build", "--network=host", *arguments, "--file", file, f"--target={target}", "--tag", image, ".")
    return image
