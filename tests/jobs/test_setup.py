"""Set-up without a network or a build: fake machines, fake environments, real files."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import horovod
import pytest

from jobs.setup import (
    commands,
    delta_jars,
    environment,
    horovod_build,
    horovod_wheel,
    installer,
    places,
    spark_conf,
    steps,
)


@pytest.fixture
def venv(tmp_path, monkeypatch):
    """A fake environment of two packages, in which every file that set-up looks at is real."""
    root = tmp_path / "project"
    site_packages = root / ".venv" / "lib" / f"python{places.PYTHON_VERSION}" / "site-packages"
    site_packages.mkdir(parents=True)
    (root / ".venv" / "bin").mkdir()
    (root / ".venv" / "bin" / "python").touch()
    for name in ("setup.py", "pyproject.toml"):
        (root / name).write_text(name)
    (root / "requirements.lock").write_text("PyYAML==6.0.3 \\\n    --hash=sha256:00\ntorch==2.15.0\n")
    for name in ("PyYAML-6.0.3", "torch-2.15.0"):
        (site_packages / f"{name}.dist-info").mkdir()
    new = {
        "ROOT": root,
        "LOCK": root / "requirements.lock",
        "VENV": root / ".venv",
        "PYTHON": root / ".venv" / "bin" / "python",
        "SITE_PACKAGES": site_packages,
        "PYSPARK": site_packages / "pyspark",
        "STATE": root / ".venv" / "state.json",
        "CACHE": tmp_path / "cache",
        "LOGS": tmp_path / "cache" / "logs",
        "JARS": tmp_path / "cache" / "jars",
        "WHEELS": tmp_path / "cache" / "horovod",
    }
    for module in (places, environment, horovod_wheel, horovod_build, delta_jars, spark_conf, installer, steps):
        for name, path in new.items():
            if hasattr(module, name):
                monkeypatch.setattr(module, name, path)
    for name in list(os.environ):
        if name.startswith("HOROVOD_"):
            monkeypatch.delenv(name)
    return root


def test_packages_are_done_only_with_this_lock_in_this_folder_and_every_package_present(venv):
    assert not environment.are_packages_installed()
    places.write_state({"packages": environment.lock_key()})
    assert environment.are_packages_installed()
    (environment.SITE_PACKAGES / "torch-2.15.0.dist-info").rename(environment.SITE_PACKAGES / "torch-2.14.0.dist-info")
    assert not environment.are_packages_installed()


def test_an_environment_that_was_moved_is_not_done(venv, monkeypatch):
    places.write_state({"packages": environment.lock_key()})
    monkeypatch.setattr(environment, "ROOT", venv / "elsewhere")
    assert not environment.are_packages_installed()


def test_a_changed_lock_a_lost_python_and_a_torn_state_are_noticed(venv):
    places.write_state({"packages": environment.lock_key()})
    environment.LOCK.write_text(environment.LOCK.read_text().replace("sha256:00", "sha256:01"))
    assert not environment.are_packages_installed()
    places.write_state({"packages": environment.lock_key()})
    environment.PYTHON.unlink()
    assert not environment.are_packages_installed()
    places.STATE.write_text('{"packages": "12')
    assert places.read_state() == {}


@pytest.fixture
def uv_calls(venv, monkeypatch):
    """Fakes every command and records its first two words."""
    calls = []

    def run(command, *args, **kwargs):
        calls.append(" ".join(str(word) for word in command[1:3]))
        if command[1] == "venv":
            environment.PYTHON.parent.mkdir(parents=True)
            environment.PYTHON.touch()

    monkeypatch.setattr(environment, "run_logged", run)
    monkeypatch.setattr(environment, "find_uv", lambda: Path("uv"))
    return calls


def test_an_unfinished_environment_is_rebuilt(venv, uv_calls):
    (venv / ".venv" / "half").touch()
    environment.install_packages()
    assert not (venv / ".venv" / "half").exists()
    assert [call.split()[0] for call in uv_calls] == ["venv", "pip"]
    assert places.read_state() == {"packages": environment.lock_key()}


def test_a_finished_environment_is_updated_in_place_and_later_steps_run_again(venv, uv_calls):
    (venv / ".venv" / "mine").touch()
    places.write_state({"packages": "an older lock", "horovod": "wheel", "project": "key"})
    environment.install_packages()
    assert (venv / ".venv" / "mine").exists()
    assert uv_calls == ["pip sync"]
    assert places.read_state() == {"packages": environment.lock_key()}


def test_an_environment_of_another_python_is_rebuilt_for_this_one(venv, uv_calls, capsys):
    places.write_state({"packages": environment.lock_key()})
    assert environment.are_packages_installed()
    environment.SITE_PACKAGES.parent.rename(environment.SITE_PACKAGES.parents[1] / "python3.10")
    assert not environment.are_packages_installed()
    environment.install_packages()
    assert [call.split()[0] for call in uv_calls] == ["venv", "pip"]
    assert f"not of Python {places.PYTHON_VERSION}" in capsys.readouterr().out


def test_a_sync_that_fails_leaves_no_state(venv, monkeypatch):
    def refuse(command, *args, **kwargs):
        raise commands.SetupError("no network")

    monkeypatch.setattr(environment, "run_logged", refuse)
    monkeypatch.setattr(environment, "find_uv", lambda: Path("uv"))
    places.write_state({"packages": "an older lock"})
    with pytest.raises(commands.SetupError):
        environment.install_packages()
    assert places.read_state() == {}


def test_the_lock_of_the_project_names_what_setup_reads_from_it():
    locked = environment.locked_packages(places.LOCK.read_text(encoding="utf-8"))
    assert {"torch", "pyspark", "pip", "setuptools", "wheel", "cffi", "cloudpickle"} <= locked.keys()
    assert "horovod" not in locked


def test_the_wheels_key_changes_with_torch_python_and_options(venv, monkeypatch):
    on_cpu = horovod_wheel.wheel_name()
    assert "torch-2.15.0" in on_cpu
    monkeypatch.setenv("HOROVOD_TIMELINE", "/tmp/timeline.json")
    assert horovod_wheel.wheel_name() == on_cpu
    monkeypatch.setenv("HOROVOD_GPU_OPERATIONS", "NCCL")
    with_nccl = horovod_wheel.wheel_name()
    monkeypatch.setenv("HOROVOD_NCCL_HOME", "/opt/nccl")
    assert len({on_cpu, with_nccl, horovod_wheel.wheel_name()}) == 3
    horovod_wheel.LOCK.write_text("torch==2.16.0\n")
    assert "torch-2.16.0" in horovod_wheel.wheel_name()
    monkeypatch.setattr(horovod_wheel, "PYTHON_VERSION", "3.99")
    assert "-cp399-" in horovod_wheel.wheel_name()


def test_options_given_once_are_kept_in_a_shell_without_them(venv, monkeypatch):
    places.write_state({"horovod_options": {"HOROVOD_GPU_OPERATIONS": "NCCL"}})
    assert horovod_wheel.build_options() == {"HOROVOD_GPU_OPERATIONS": "NCCL"}
    monkeypatch.setenv("HOROVOD_GPU_OPERATIONS", "MPI")
    assert horovod_wheel.build_options() == {"HOROVOD_GPU_OPERATIONS": "MPI"}


def test_the_build_sees_its_own_variables_and_the_options_only(venv, monkeypatch):
    monkeypatch.setenv("HOROVOD_WITH_TENSORFLOW", "1")
    monkeypatch.setenv("HOROVOD_CMAKE", "/usr/bin/cmake")
    built_with = horovod_build.build_environment({"HOROVOD_NCCL_HOME": "/opt/nccl"})
    ours = {name: value for name, value in built_with.items() if name.startswith("HOROVOD_")}
    kept = {"HOROVOD_NCCL_HOME": "/opt/nccl", "HOROVOD_CMAKE": "/usr/bin/cmake"}
    assert ours == {**horovod_build.BUILD_FLAGS, **kept}
    assert built_with["PATH"].split(":")[0] == str(venv / ".venv" / "bin")


def test_cuda_is_looked_for_only_when_an_option_asks_for_it():
    assert horovod_build.NO_CUDA[0] in horovod_build.replacements({})
    assert horovod_build.NO_CUDA[0] not in horovod_build.replacements({"HOROVOD_GPU_OPERATIONS": "NCCL"})


def test_the_source_is_changed_in_its_one_place(tmp_path):
    (tmp_path / "CMakeLists.txt").write_text("a\nset(CMAKE_CXX_STANDARD 14)\nb\n")
    horovod_build.change_source(tmp_path, horovod_build.CXX_STANDARD[:1])
    assert (tmp_path / "CMakeLists.txt").read_text() == "a\nset(CMAKE_CXX_STANDARD 20)\nb\n"


def test_horovodrun_reports_a_failed_rank_without_a_traceback(tmp_path):
    installed = Path(horovod.__file__).parent
    # Links instead of copies, except for the file that is changed.
    shutil.copytree(installed, tmp_path / "horovod", copy_function=os.symlink, ignore=shutil.ignore_patterns("*.pyc"))
    ((name, old, new),) = horovod_build.NO_TRACEBACK
    changed = tmp_path / name
    changed.unlink()
    changed.write_text((installed.parent / name).read_text().replace(new, old))
    horovod_build.change_source(tmp_path, horovod_build.NO_TRACEBACK)
    command = [sys.executable, "-m", "horovod.runner.launch", "--gloo", "-np", "2", "sh", "-c", "exit 3"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert finished.returncode == 1
    assert "Traceback" not in finished.stderr
    assert finished.stderr.endswith("Exit code: 3\n")


@pytest.mark.parametrize("text", ["set(CMAKE_CXX_STANDARD 17)\n", "set(CMAKE_CXX_STANDARD 14)\n" * 2])
def test_a_source_that_is_not_the_known_one_is_refused(tmp_path, text):
    (tmp_path / "CMakeLists.txt").write_text(text)
    with pytest.raises(commands.SetupError, match=r"CMakeLists\.txt.*expected 1"):
        horovod_build.change_source(tmp_path, horovod_build.CXX_STANDARD[:1])
    assert (tmp_path / "CMakeLists.txt").read_text() == text


def test_progress_is_read_from_makes_lines():
    line = "[  7%] Building CXX object third_party/gloo/gloo/CMakeFiles/gloo.dir/allreduce_local.cc.o"
    assert horovod_build.progress_of(line) == "7 %  allreduce_local.cc"
    assert horovod_build.progress_of("[100%] Linking CXX shared library ../../mpi_lib_v2.so") == "100 %  mpi_lib_v2.so"
    assert horovod_build.progress_of("-- Found Pytorch: 2.15.0") == "0 %  Found Pytorch: 2.15.0"
    assert horovod_build.progress_of("make[2]: Entering directory") is None


@pytest.fixture
def jars(venv, monkeypatch):
    """Delta's jars as four tiny files with correct hashes in the cache; Maven Central cannot be reached."""
    contents = {artifact: artifact.encode() for artifact in delta_jars.SHA256}
    sums = {artifact: hashlib.sha256(content).hexdigest() for artifact, content in contents.items()}
    monkeypatch.setattr(delta_jars, "SHA256", sums)
    monkeypatch.setattr(delta_jars, "fetch", lambda *args: pytest.fail("went to the network"))
    delta_jars.JARS.mkdir(parents=True)
    (delta_jars.PYSPARK / "jars").mkdir(parents=True)
    for artifact, content in contents.items():
        (delta_jars.JARS / delta_jars.jar_name(artifact)).write_bytes(content)
    return delta_jars.PYSPARK / "jars"


def test_a_lost_or_damaged_jar_is_restored_from_the_cache(jars):
    delta_jars.install()
    assert delta_jars.are_installed()
    first, second, *_ = sorted(jars.iterdir())
    first.unlink()
    second.write_bytes(b"half")
    assert not delta_jars.are_installed()
    delta_jars.install()
    assert delta_jars.are_installed()
    assert len(list(jars.iterdir())) == 4


def test_a_jar_with_another_hash_is_refused_and_not_kept(tmp_path):
    fetched, target = tmp_path / "a.jar", tmp_path / "cache.jar"
    fetched.write_bytes(b"not the jar")
    with pytest.raises(commands.SetupError, match="expected 00ff"):
        delta_jars.keep_if_sound(fetched, "00ff", target)
    assert not target.exists()


def test_sparks_defaults_are_written_again_when_changed(venv):
    spark_conf.PYSPARK.mkdir()
    assert not spark_conf.is_written()
    spark_conf.write()
    assert spark_conf.is_written()
    (spark_conf.PYSPARK / "conf" / "spark-defaults.conf").write_text("spark.master yarn\n")
    assert not spark_conf.is_written()


def test_only_unfinished_steps_run(venv, monkeypatch):
    ran, done = [], {"a": True, "b": False, "c": False}

    def run(name):
        ran.append(name)
        done[name] = True

    fakes = tuple(steps.Step(lambda n=name: done[n], lambda n=name: run(n)) for name in done)
    monkeypatch.setattr(steps, "STEPS", fakes)
    assert (steps.run_pending(), ran) == (2, ["b", "c"])
    assert (steps.run_pending(), ran) == (0, ["b", "c"])


def test_a_second_setup_waits_for_the_first(tmp_path):
    wait = "from pathlib import Path; from jobs.setup.places import only_one\nwith only_one(Path('lock')): print('in')"
    with places.only_one(tmp_path / "lock"):
        second = subprocess.Popen(
            [sys.executable, "-u", "-c", wait], cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=project_on_path()
        )
        assert "waiting" in second.stdout.readline()
        assert second.poll() is None
    assert second.communicate(timeout=30)[0] == "in\n"


def project_on_path() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(places.ROOT)}


def test_a_failing_command_shows_its_last_lines_its_log_and_the_next_step(tmp_path):
    script = "for i in $(seq 100); do echo line $i; done; exit 3"
    with pytest.raises(commands.SetupError) as failed:
        commands.run_logged(["/bin/sh", "-c", script], tmp_path / "step.log", "buy a new disk")
    message = str(failed.value)
    assert "ended with exit code 3" in message
    assert "line 61\n" in message
    assert "line 60\n" not in message
    assert str(tmp_path / "step.log") in message
    assert "buy a new disk" in message
    assert (tmp_path / "step.log").read_text().startswith("line 1\n")


def test_the_first_error_is_shown_if_it_is_above_the_last_lines():
    shown = commands.telling_lines("fine\nCMake Error at FindNCCL.cmake:30\n" + "  in a traceback\n" * 100)
    assert "CMake Error at FindNCCL.cmake:30" in shown
    assert "fine" not in shown
    assert shown.count("traceback") < 50


def test_a_killed_setup_takes_its_command_with_it(tmp_path):
    run = "from pathlib import Path; from jobs.setup.commands import run_logged\n"
    run += "run_logged(['/bin/sh', '-c', 'echo $$ > pid; exec sleep 60'], Path('log'), '')"
    setup = subprocess.Popen([sys.executable, "-c", run], cwd=tmp_path, env=project_on_path())
    pid_file = tmp_path / "pid"
    until(lambda: pid_file.exists() and pid_file.read_text().strip())
    setup.send_signal(signal.SIGKILL)
    setup.wait()
    until(lambda: has_ended(int(pid_file.read_text())))


def has_ended(pid: int) -> bool:
    """True if a process is gone, or dead and not yet collected by the process that inherited it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def until(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("name", "value", "drawn"), [("TERM", "xterm", True), ("TERM", "dumb", False), ("CI", "1", False)]
)
def test_a_line_is_drawn_again_only_on_a_terminal_that_can(name, value, drawn, monkeypatch, capsys):
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    source, sink = os.pipe()
    os.close(sink)
    commands.show_progress(source, lambda chunk: len(chunk), lambda line: None)
    os.close(source)
    assert ("\r" in capsys.readouterr().out) == drawn
