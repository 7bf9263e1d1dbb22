"""npm's oidc-provider as a child process: installed once into a cache folder, always ended by pid."""

from __future__ import annotations

import hashlib
import html
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
import requests
from filelock import FileLock
from platformdirs import user_cache_path

from mlflow_plugkit_testing.server import free_port

SOURCES = Path(__file__).parent / "oidc"
SECRET = "s3cret-of/the+client%20"
CLIENTS: list[dict[str, Any]] = [
    {
        "client_id": name,
        "client_secret": SECRET,
        "grant_types": ["client_credentials"],
        "redirect_uris": [],
        "response_types": [],
        "token_endpoint_auth_method": method,
        "scope": "mlflow",
    }
    for name, method in [("service", "client_secret_basic"), ("service-post", "client_secret_post")]
] + [
    {
        "client_id": "laptop",
        "token_endpoint_auth_method": "none",
        "application_type": "native",
        "grant_types": ["urn:ietf:params:oauth:grant-type:device_code", "authorization_code", "refresh_token"],
        "redirect_uris": ["http://127.0.0.1/callback"],
        "response_types": ["code"],
        "scope": "openid offline_access mlflow",
    },
    {
        "client_id": "exchange",
        "client_secret": SECRET,
        "grant_types": [
            "urn:ietf:params:oauth:grant-type:token-exchange",
            "urn:ietf:params:oauth:grant-type:jwt-bearer",
        ],
        "redirect_uris": [],
        "response_types": [],
        "scope": "mlflow",
    },
]


def missing(reason: str) -> None:
    """Skip, but fail where a run without the component would prove nothing."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def installed() -> Path:
    """The folder with the provider and its node_modules, outside the repository."""
    if not shutil.which("node") or not shutil.which("npm"):
        missing("node and npm are needed for a real OpenID Connect provider (Debian: apt install nodejs npm)")
    digest = hashlib.sha256((SOURCES / "package.json").read_bytes()).hexdigest()[:16]
    folder = user_cache_path("mlflow-request-auth-tests", appauthor=False) / digest
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock", timeout=300):
        if not (folder / "complete").exists():
            shutil.copy(SOURCES / "package.json", folder)
            command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False)
            if done.returncode != 0:
                missing(f"npm could not install oidc-provider: {done.stderr.strip()[-300:]}")
            (folder / "complete").touch()
        source = (SOURCES / "provider.mjs").read_bytes()
        target = folder / "provider.mjs"
        if not target.exists() or target.read_bytes() != source:
            target.write_bytes(source)
    return folder


class OidcProvider:
    """One provider process on a loopback port, which it keeps over a restart."""

    def __init__(self, clients: list[dict[str, Any]] = CLIENTS, **config: Any) -> None:
        self.folder = installed()
        self.config = {"clients": clients, "federation": {"keys": []}, **config}
        self.port = free_port()
        self.verify: str | bool = config["tls"]["ca"] if "tls" in config else True
        self.process: subprocess.Popen[str] | None = None

    @property
    def issuer(self) -> str:
        return f"{'https' if 'tls' in self.config else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> OidcProvider:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        config = json.dumps(self.config | {"port": self.port})
        self.process = subprocess.Popen(
            ["node", "provider.mjs", config], cwd=self.folder, stdout=subprocess.PIPE, text=True
        )
        out = self.process.stdout
        assert out is not None
        heard: list[str] = []
        reader = threading.Thread(target=lambda: heard.append(out.readline()), daemon=True)
        reader.start()
        reader.join(30)
        assert [line.strip() for line in heard] == ["listening"], "the OpenID Connect provider did not start"

    def stop(self) -> None:
        process, self.process = self.process, None
        if process is not None:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait(10)
            if process.stdout:
                process.stdout.close()

    def freeze(self) -> None:
        """Let connections open, and answer none."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)  # not Popen's method, which a forked child cannot use

    def grants(self, client: str) -> int:
        """How many tokens the client was given."""
        return int(requests.get(f"{self.issuer}/test/grants", timeout=10, verify=self.verify).json().get(client, 0))

    def is_active(self, token: str) -> bool:
        """The provider's own word on a token (RFC 7662)."""
        return bool(self._ask("token/introspection", token).json()["active"])

    def revoke(self, token: str) -> None:
        """Revoke a token (RFC 7009)."""
        assert self._ask("token/revocation", token).status_code == 200

    def _ask(self, path: str, token: str) -> requests.Response:
        auth = ("service-post", SECRET)
        data = {"token": token, "client_id": auth[0], "client_secret": auth[1]}
        return requests.post(f"{self.issuer}/{path}", data=data, timeout=10, verify=self.verify)


class Browser:
    """A person with a browser at the provider's development pages: logs in and agrees to everything."""

    def __init__(self, account: str = "ada") -> None:
        self.account = account
        self.session = requests.Session()

    def confirm_device(self, address: str) -> None:
        """Open the address of a device login, confirm the code, log in, consent."""
        self._through(self.session.get(address, timeout=10))

    def open(self, address: str) -> requests.Response:
        """Open a login page and follow it to its end, which is the client's loopback port."""
        return self._through(self.session.get(address, timeout=10))

    def _through(self, page: requests.Response) -> requests.Response:
        for _ in range(12):
            form = re.search(r"<form[^>]*action=\"([^\"]+)\"[^>]*>(.*?)</form>", page.text, re.DOTALL)
            if form is None:
                return page
            fields = {
                m[1]: html.unescape(m[2])
                for m in re.finditer(r"<input[^>]*name=\"([^\"]+)\"[^>]*?value=\"([^\"]*)\"", form[2])
            }
            if 'name="login"' in form[2]:
                fields |= {"login": self.account, "password": "any"}
            page = self.session.post(urljoin(page.url, html.unescape(form[1])), data=fields, timeout=10)
        raise AssertionError(f"the login does not end: {page.url}")


def wait_until(condition: Any, seconds: float = 20.0) -> None:
    """Wait for a condition, and fail when it does not come true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.02)
