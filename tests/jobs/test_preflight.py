"""The preflight on fake machines, whose PATH has only what a test puts there."""

import ast
from pathlib import Path

import pytest

from jobs.setup import __main__, distributions, places, preflight, steps

JAVA_17 = 'openjdk version "17.0.15" 2025-04-15'


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Returns a function that puts a fake command with the given answer on an otherwise empty PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    for name in ("JAVA_HOME", "HOROVOD_CMAKE"):
        monkeypatch.delenv(name, raising=False)

    def put(name: str, answer: str, folder: Path = folder) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        command = folder / name
        command.write_text(f"#!/bin/sh\n{answer}\n")
        command.chmod(0o755)
        return command

    return put


def version(text: str) -> str:
    return f"echo '{text}' >&2"


def put_good_tools(machine) -> None:
    machine("java", version(JAVA_17))
    machine("g++", ":")
    machine("make", ":")
    machine("cmake", version("cmake version 3.25.1"))


def subjects(problems) -> list[str]:
    return [problem.what.split(":")[0] for problem in problems]


def test_a_good_machine_has_no_problems(machine, tmp_path, monkeypatch):
    put_good_tools(machine)
    monkeypatch.setattr(preflight, "DISK_NEEDED_GB", 0)
    monkeypatch.setattr(preflight, "check_headers", lambda: None)
    monkeypatch.setattr(preflight, "base_python", lambda: str(machine("python3.11", "echo pip 26.3")))
    assert preflight.find_problems(tmp_path, fetching=True, installing=True, building=True) == []


def test_everything_missing_is_named_at_once_with_one_command(machine, tmp_path, monkeypatch):
    monkeypatch.setattr(preflight, "PYTHONS", ((3, 99),))
    on(monkeypatch, tmp_path, "debian", "12")
    monkeypatch.setattr(preflight, "DISK_NEEDED_GB", 10**9)
    monkeypatch.setattr(preflight, "base_python", lambda: str(machine("python3.11", "echo No module named pip")))
    monkeypatch.setattr(preflight.sysconfig, "get_path", lambda name: str(tmp_path / "no-headers"))
    problems = preflight.find_problems(tmp_path, fetching=True, installing=True, building=True)
    assert subjects(problems) == ["Python", "Java", "pip", "g++", "make", "CMake", "Python's headers", "disk"]
    apt = [line for line in preflight.report(problems).splitlines() if "apt-get install" in line]
    assert len(apt) == 1
    assert apt[0].endswith("install -y python3.11 python3.11-dev openjdk-17-jre-headless python3-pip g++ make cmake")


def on(monkeypatch, tmp_path, name: str, version: str, like: str = "") -> None:
    """Makes this machine one of a distribution."""
    file = tmp_path / "os-release"
    file.write_text(f'PRETTY_NAME="A = B"\nID="{name}"\nID_LIKE="{like}"\nVERSION_ID="{version}"\n')
    monkeypatch.setattr(distributions, "OS_RELEASE", file)


@pytest.mark.parametrize(
    ("name", "version", "like", "command"),
    [
        ("debian", "12", "", "apt-get install -y python3.11 python3.11-dev openjdk-17-jre-headless g++"),
        ("debian", "13", "", "apt-get install -y openjdk-21-jre-headless g++"),
        ("ubuntu", "24.04", "debian", "apt-get install -y python3.12 python3.12-dev openjdk-17-jre-headless g++"),
        ("rhel", "9.6", "fedora", "dnf install -y python3.11 python3.11-devel java-17-openjdk-headless gcc-c++"),
        (
            "rocky",
            "10.0",
            "rhel centos fedora",
            "dnf install -y python3 python3-devel java-21-openjdk-headless ",
        ),
        ("void", "", "", "on Debian 12 the command would be "),
    ],
)
def test_the_command_has_the_names_of_this_distribution(monkeypatch, tmp_path, name, version, like, command):
    on(monkeypatch, tmp_path, name, version, like)
    monkeypatch.setattr(preflight, "PYTHONS", ((3, 99),))
    kinds = ("python", "headers", "java", "g++")
    assert command in preflight.report([preflight.Missing("all of it", kinds)])


def test_the_headers_to_install_are_those_of_the_python_that_set_up_uses(monkeypatch, tmp_path):
    on(monkeypatch, tmp_path, "ubuntu", "24.04")
    monkeypatch.setattr(preflight.sys, "version_info", (3, 11, 9))
    assert "apt-get install -y python3.11-dev\n" in preflight.report([preflight.Missing("no Python.h", ("headers",))])


@pytest.mark.parametrize(("version", "right"), [((3, 10), False), ((3, 11), True), ((3, 12), True), ((3, 13), False)])
def test_python_is_3_11_or_3_12(monkeypatch, version, right):
    monkeypatch.setattr(preflight.sys, "version_info", (*version, 0))
    assert (preflight.check_python() is None) == right


def test_compiler_and_disk_are_not_needed_if_there_is_nothing_to_build(machine, tmp_path, monkeypatch):
    monkeypatch.setattr(preflight, "DISK_NEEDED_GB", 10**9)
    machine("java", version(JAVA_17))
    assert preflight.find_problems(tmp_path, fetching=False, installing=False, building=False) == []


@pytest.mark.parametrize(
    ("said", "right"),
    [
        (JAVA_17, True),
        ('openjdk version "21" 2023-09-19', True),
        ('java version "1.8.0_402"', False),
        ('openjdk version "11.0.2" 2019-01-15', False),
        ('openjdk version "25" 2025-09-16', False),
        ("segmentation fault", False),
    ],
)
def test_java_is_17_or_21(machine, said, right):
    machine("java", version(said))
    problem = preflight.check_java()
    assert (problem is None) == right


def test_java_home_comes_before_path_as_it_does_for_spark(machine, tmp_path, monkeypatch):
    machine("java", version(JAVA_17))
    machine("java", version('openjdk version "11.0.2" 2019-01-15'), tmp_path / "jdk" / "bin")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    assert "11" in preflight.check_java().what


def test_a_java_without_the_vector_module_is_refused(machine):
    machine("java", f'[ "$1" = -version ] && {version(JAVA_17)} || exit 1')
    assert "jdk.incubator.vector" in preflight.check_java().what


@pytest.mark.parametrize(("number", "right"), [("3.25.1", True), ("3.13.0", True), ("3.5.0", False), ("4.0.1", False)])
def test_cmake_is_3(machine, number, right):
    machine("cmake", version(f"cmake version {number}"))
    assert (preflight.check_cmake() is None) == right


def test_the_cmake_that_horovod_will_use_is_the_one_that_is_checked(machine, tmp_path, monkeypatch):
    machine("cmake", version("cmake version 4.1.0"))
    monkeypatch.setenv("HOROVOD_CMAKE", str(machine("cmake", version("cmake version 3.25.1"), tmp_path / "older")))
    assert preflight.check_cmake() is None


def test_another_processor_is_refused(monkeypatch):
    monkeypatch.setattr(preflight.platform, "machine", lambda: "aarch64")
    assert "aarch64" in preflight.check_machine().what


OLD_PYTHON = ("__main__", "preflight", "distributions", "managed_python", "installer", "commands", "places")


@pytest.mark.parametrize("module", ["__init__.py", "../__init__.py", *(f"{name}.py" for name in OLD_PYTHON)])
def test_the_preflight_can_be_read_by_an_old_python(module):
    text = (places.HERE / module).read_text(encoding="utf-8")
    ast.parse(text, feature_version=(3, 7))


def test_a_machine_that_is_not_ready_ends_with_2_and_the_list(monkeypatch, capsys):
    problem = preflight.Missing("make: not on PATH", ("make",))
    monkeypatch.setattr(preflight, "find_problems", lambda *args, **kwargs: [problem])
    monkeypatch.setattr(steps, "run_pending", lambda: pytest.fail("ran on a machine that is not ready"))
    assert __main__.main() == 2
    assert "make: not on PATH" in capsys.readouterr().err
