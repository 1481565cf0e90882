"""Builds Horovod's wheel: its last release, changed so that it compiles against today's torch.

Horovod 0.28.1 is released as source only and asks for C++14, but torch 2.15's headers need C++20. Its ranks also wait
for each other in a loop without pause, which takes the cores from the ranks that compute. Here they sleep instead. Its
launcher ends with a traceback if a rank has failed. Here it says so in three lines.
"""

import os
import re
import tarfile
from pathlib import Path

from jobs.setup.commands import SetupError, run_logged, step
from jobs.setup.installer import PYPI_ADVICE, find_uv, uv_environment
from jobs.setup.places import HERE, LOGS, PYTHON, new_folder

REQUIREMENT = HERE / "horovod.txt"
BUILD_FLAGS = {
    "HOROVOD_WITH_PYTORCH": "1",
    "HOROVOD_WITH_GLOO": "1",
    "HOROVOD_WITHOUT_MPI": "1",
    "HOROVOD_WITHOUT_TENSORFLOW": "1",
    "HOROVOD_WITHOUT_MXNET": "1",
}
PIP_DOWNLOAD = (
    "-m",
    "pip",
    "download",
    "--no-deps",
    "--no-binary",
    ":all:",
    "--no-build-isolation",
    "--require-hashes",
)
Replacement = tuple[str, str, str]  # file, old text, new text
CXX_STANDARD: tuple[Replacement, ...] = (
    ("CMakeLists.txt", "set(CMAKE_CXX_STANDARD 14)", "set(CMAKE_CXX_STANDARD 20)"),
    ("horovod/torch/CMakeLists.txt", "set(CMAKE_CXX_STANDARD 14)", "set(CMAKE_CXX_STANDARD 20)"),
)
# A tenth of a millisecond is nothing beside a training step, and yield() alone frees no core on today's Linux.
SLEEP_WHILE_WAITING: tuple[Replacement, ...] = (
    (
        "horovod/torch/mpi_ops_v2.cc",
        "std::this_thread::yield();",
        "std::this_thread::sleep_for(std::chrono::microseconds(100));",
    ),
)
# The failed rank has said why. A traceback of the launcher would push that message off the screen.
NO_TRACEBACK: tuple[Replacement, ...] = (
    (
        "horovod/runner/launch.py",
        "\n    _run(args)\n",
        "\n    try:\n        _run(args)\n"
        "    except RuntimeError as error:\n        sys.exit(f'horovodrun: {error}'.rstrip())\n",
    ),
)
CHANGES = CXX_STANDARD + SLEEP_WHILE_WAITING + NO_TRACEBACK
# If nvcc is installed without the CUDA runtime, CMake would ask for the whole toolkit and fail.
NO_CUDA: tuple[Replacement, ...] = (("cmake/Modules/FindPytorch.cmake", "(CUDA_HOME is not None)", "(False)"),)
GB_PER_COMPILER = 2  # for torch's headers; the most seen was 1.3 GB


def replacements(options: dict[str, str]) -> tuple[Replacement, ...]:
    """Returns the changes to the source; CUDA is looked for only if an option asks for it."""
    for_gpu = any(name.startswith("HOROVOD_GPU") for name in options)
    return CHANGES if for_gpu else CHANGES + NO_CUDA


def build(folder: Path, options: dict[str, str]) -> None:
    """Builds the wheel into `folder`, which appears in one step when the wheel is complete."""
    with new_folder(folder.parent) as temporary:
        source = fetch_source(temporary)
        change_source(source, replacements(options))
        said = " ".join(f"{name}={value}" for name, value in options.items()) or "for the CPU; a few minutes, once"
        with step(f"building Horovod's wheel ({said})"):
            run_logged(
                [
                    find_uv(),
                    "build",
                    "--wheel",
                    "--no-build-isolation",
                    "-p",
                    PYTHON,
                    "-o",
                    temporary / "wheel",
                    source,
                ],
                LOGS / "horovod-build.log",
                "fix what the first error names, then run set-up again (docs/environment.md, Horovod's wheel)",
                status_of=progress_of,
                env=build_environment(options),
            )
            (temporary / "wheel").replace(folder)


def fetch_source(folder: Path) -> Path:
    """Downloads the source release into `folder`, has pip check its hash, and unpacks it."""
    with step("Horovod's source"):
        # pip runs the source's setup.py. Without the environment's setuptools it would save nothing and report nothing.
        run_logged(
            [PYTHON, *PIP_DOWNLOAD, "-r", REQUIREMENT, "-d", folder],
            LOGS / "horovod-source.log",
            PYPI_ADVICE,
            env={**os.environ, "PATH": build_path()},
        )
        archives = list(folder.glob("horovod-*.tar.gz"))
        if len(archives) != 1:
            raise SetupError(
                f"pip reported no error but saved {archives} in {folder}\n  whole log: {LOGS}/horovod-source.log"
            )
        with tarfile.open(archives[0]) as archive:
            archive.extractall(folder, filter="data")
        return archives[0].with_name(archives[0].name.removesuffix(".tar.gz"))


def change_source(source: Path, changes: tuple[Replacement, ...]) -> None:
    """Makes each replacement; raises SetupError if a file does not have exactly one place for it."""
    for name, old, new in changes:
        file = source / name
        text = file.read_text(encoding="utf-8")
        if text.count(old) != 1:
            raise SetupError(
                f"{file}: {text.count(old)} places with {old!r}, expected 1; this is not the source that set-up knows"
            )
        file.write_text(text.replace(old, new), encoding="utf-8")


def build_path() -> str:
    """Returns PATH with the environment first, as CMake asks the first `python` there for torch."""
    return f"{PYTHON.parent}:{os.environ['PATH']}"


def build_environment(options: dict[str, str]) -> dict[str, str]:
    """Returns the build's environment, whose only HOROVOD_* variables are ours, the options and the choice of CMake."""
    kept = {name: value for name, value in uv_environment().items() if not name.startswith("HOROVOD_")}
    if "HOROVOD_CMAKE" in os.environ:
        kept["HOROVOD_CMAKE"] = os.environ["HOROVOD_CMAKE"]
    return {**kept, **BUILD_FLAGS, **options, "PATH": build_path(), "MAKEFLAGS": f"-j{num_compilers()}"}


def num_compilers() -> int:
    """Returns the number of compilers at a time: one per core that this process may use, fewer if memory is short."""
    memory_gb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    return max(1, min(len(os.sched_getaffinity(0)), int(memory_gb / GB_PER_COMPILER)))


def progress_of(line: str) -> str | None:
    """Turns a line of make or CMake into progress; None for other lines.

    `[ 45%] Building CXX object .../allreduce.cc.o` becomes `45 %  allreduce.cc`; CMake's `-- ` lines are 0 %.
    """
    if line.startswith("-- "):
        return f"0 %  {line[3:]}"
    found = re.match(r"\[ *(\d+)%\] \w+ \w+ (?:\w+ )*(?:\S*/)?(\S+)", line)
    return f"{found.group(1)} %  {found.group(2).removesuffix('.o')}" if found else None
