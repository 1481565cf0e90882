"""Installs the four jars that Delta needs into the environment's Spark, so that no job needs --packages or a network.

The other 29 jars that Maven resolves are already part of Spark.
"""

import hashlib
import shutil
from pathlib import Path

from jobs.setup.commands import SetupError, run_logged, step
from jobs.setup.places import CACHE, LOGS, PYSPARK, new_folder
from jobs.setup.preflight import java_command

JARS = CACHE / "jars"
DELTA = "4.4.0"
IVY_OPTIONS = ("-notransitive", "-types", "jar")
SHA256 = {
    "delta-spark_4.0_2.13": "49e899667168b9412f83cbe894ce264107d7b896d6c5e12edca4e216845c1104",
    "delta-storage": "c46735481fa8e326b0957be02b4420cbcab4b325bb08009b7f2045a95133f1cc",
    "delta-kernel-api": "ee9b5a14ac3b7efdff4d61a58478fe8eb0e5a3fbca43889dca7290795fe79a11",
    "delta-kernel-defaults": "225c975199e4718b38ee5b7e6da7f19e9585024262b2cec2656b32151a856b0b",
}


def are_installed() -> bool:
    return all(has_sha256(PYSPARK / "jars" / jar_name(artifact), SHA256[artifact]) for artifact in SHA256)


def install() -> None:
    """Copies every jar that is missing or damaged to Spark's folder, from the cache or from Maven Central."""
    with step(f"Delta {DELTA} jars into the environment's Spark"):
        for artifact, sha256 in SHA256.items():
            cached, installed = JARS / jar_name(artifact), PYSPARK / "jars" / jar_name(artifact)
            if not has_sha256(cached, sha256):
                fetch(artifact, sha256, cached)
            if not has_sha256(installed, sha256):
                copy_whole(cached, installed)


def jar_name(artifact: str) -> str:
    return f"{artifact}-{DELTA}.jar"


def has_sha256(file: Path, sha256: str) -> bool:
    return file.is_file() and sha256_of(file) == sha256


def sha256_of(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def fetch(artifact: str, sha256: str, target: Path) -> None:
    """Fetches one jar with the Ivy that Spark ships; raises SetupError if its hash is not `sha256`."""
    (ivy,) = (PYSPARK / "jars").glob("ivy-*.jar")
    with new_folder(target.parent) as temporary:
        question = ("-cache", temporary / "cache", "-dependency", "io.delta", artifact, DELTA)
        answer = ("-retrieve", f"{temporary}/[artifact]-[revision].[ext]")
        run_logged(
            [java_command(), "-jar", ivy, *IVY_OPTIONS, *question, *answer],
            LOGS / f"{artifact}.log",
            "set-up needs Maven Central once; check the network (behind a proxy: JAVA_TOOL_OPTIONS="
            f"'-Dhttps.proxyHost=HOST -Dhttps.proxyPort=PORT'), or put {target.name} into {target.parent} by hand. "
            "Then run set-up again: it resumes where it stopped",
        )
        keep_if_sound(temporary / target.name, sha256, target)


def keep_if_sound(fetched: Path, sha256: str, target: Path) -> None:
    """Moves `fetched` to `target`; raises SetupError if it is absent or its hash is not `sha256`."""
    if not fetched.is_file():
        raise SetupError(f"{fetched.name}: Maven Central has no such file\n  next step: run set-up again")
    got = sha256_of(fetched)
    if got != sha256:
        raise SetupError(
            f"{fetched.name}: sha256 {got}, expected {sha256}; not installed\n"
            "  next step: run set-up again; if this repeats, a mirror or proxy on the way changes the file"
        )
    fetched.replace(target)


def copy_whole(source: Path, target: Path) -> None:
    """Copies beside the target and replaces the target in one step, so that a kill leaves no partial jar with Spark."""
    temporary = target.with_name(f".{target.name}.new")
    shutil.copyfile(source, temporary)
    temporary.replace(target)
