"""A real Kerberos KDC (Debian: krb5-kdc, krb5-admin-server, krb5-user) on loopback, ended by pid."""

from __future__ import annotations

import base64
import os
import shutil
import socket
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from real_oidc import missing, wait_until

from mlflow_plugkit_testing.server import free_port

REALM = "TEST.LOCAL"
PROGRAMS = ("krb5kdc", "kdb5_util", "kadmin.local", "kinit")


def _program(name: str) -> str:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin") or ""


class Kdc:
    """A realm with the user `ada` and the service `HTTP/localhost`."""

    password = "ada's kerberos password"

    def __init__(self, folder: Path) -> None:
        pytest.importorskip("gssapi", reason="the extra 'kerberos' is not installed (it compiles against libkrb5-dev)")
        absent = [name for name in PROGRAMS if not _program(name)]
        if absent:
            missing(f"a real KDC needs {', '.join(absent)} (Debian: krb5-kdc krb5-admin-server krb5-user)")
        self.folder = folder
        self.port = free_port()
        self.config = folder / "krb5.conf"
        self.keytab = folder / "http.keytab"
        self.client_keytab = folder / "ada.keytab"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def env(self) -> dict[str, str]:
        return os.environ | {"KRB5_CONFIG": str(self.config), "KRB5_KDC_PROFILE": str(self.folder / "kdc.conf")}

    def __enter__(self) -> Kdc:
        self.config.write_text(
            f"[libdefaults]\ndefault_realm={REALM}\ndns_lookup_kdc=false\ndns_lookup_realm=false\nrdns=false\n"
            f"dns_canonicalize_hostname=false\nudp_preference_limit=1\n"
            f"[realms]\n{REALM}={{\nkdc=127.0.0.1:{self.port}\n}}\n[domain_realm]\nlocalhost={REALM}\n"
        )
        (self.folder / "kdc.conf").write_text(
            f"[kdcdefaults]\nkdc_listen=127.0.0.1:{self.port}\nkdc_tcp_listen=127.0.0.1:{self.port}\n"
            f"[realms]\n{REALM}={{\ndatabase_name={self.folder}/principal\nkey_stash_file={self.folder}/stash\n"
            f"acl_file={self.folder}/kadm5.acl\n}}\n"
        )
        self._run("kdb5_util", "create", "-s", "-r", REALM, "-P", "master")
        for query in (
            f'addprinc -pw "{self.password}" ada',
            "addprinc -randkey HTTP/localhost",
            f"ktadd -k {self.keytab} HTTP/localhost",
            f"ktadd -norandkey -k {self.client_keytab} ada",
        ):
            self._run("kadmin.local", "-q", query)
        self.process = subprocess.Popen([_program("krb5kdc"), "-n"], env=self.env, stderr=subprocess.DEVNULL)
        wait_until(self._listens)
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)

    def kinit(self, folder: Path) -> Path:
        """A credential cache with a ticket of `ada`."""
        cache = folder / "krb5cc"
        subprocess.run(
            [_program("kinit"), "-c", f"FILE:{cache}", "ada"], input=f"{self.password}\n", env=self.env, text=True,
            check=True, capture_output=True, timeout=30,
        )  # fmt: skip
        return cache

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run([_program(program), *arguments], env=self.env, check=True, capture_output=True, timeout=60)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


class NegotiatingServer:
    """A web server that lets in who brings a ticket for HTTP/localhost, as MLflow behind Apache's mod_auth_gssapi."""

    def __init__(self, kdc: Kdc) -> None:
        import gssapi

        service = self
        self.users: list[str] = []
        self.refused = 0
        self.refuse_next = 0

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                scheme, _, token = self.headers.get("Authorization", "").partition(" ")
                user = None
                if scheme == "Negotiate" and not service.refuse_next:
                    credentials = gssapi.Credentials(usage="accept", store={"keytab": str(kdc.keytab)})
                    context = gssapi.SecurityContext(creds=credentials, usage="accept")
                    context.step(base64.b64decode(token))
                    user = str(context.initiator_name) if context.complete else None
                service.refuse_next = max(service.refuse_next - 1, 0)
                if user:
                    service.users.append(user)
                else:
                    service.refused += 1
                self.send_response(200 if user else 401)
                if not user:
                    self.send_header("WWW-Authenticate", "Negotiate")
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            do_POST = do_PUT = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self.uri = f"http://localhost:{self._http.server_address[1]}"

    def __enter__(self) -> NegotiatingServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join(10)
        self._http.server_close()
