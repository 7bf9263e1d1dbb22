"""How the client proves its identity to the token endpoint; authlib signs and encodes."""

from __future__ import annotations

import base64
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

from authlib.common.urls import add_params_to_qs
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from joserfc.jwk import ECKey, RSAKey
from requests.adapters import HTTPAdapter

from mlflow_plugkit.errors import mlflow_error
from mlflow_request_auth.settings import OAuth2Settings, check_header_value

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ASSERTION_LIFE = 300
BACKDATED = 30
"""Seconds by which an assertion is dated back, so that a provider whose clock is behind does not refuse it."""
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
Method = Callable[[Any, str, str, Any, str], tuple[str, Any, str]]


def method_for(settings: OAuth2Settings, token_url: str, clock_offset: float) -> str | Method:
    """What authlib takes as a token endpoint's authentication method.

    Args:
        settings: which method, with its secret, key or file.
        token_url: the default audience of a signed assertion.
        clock_offset: seconds by which the provider's clock is ahead of this machine's.

    Raises:
        MlflowException: a key or file cannot be used.
    """
    name = settings.client_auth_method
    if name == "client_secret_basic":
        return _basic
    if name == "private_key_jwt":
        return _signed(settings, token_url, clock_offset)
    if name == "client_assertion_file":
        return _assertion(read_token_file(settings.client_assertion_file, "MLFLOW_AUTH_CLIENT_ASSERTION_FILE"))
    return "none" if name == "tls_client_auth" else name


def secret_for(settings: OAuth2Settings) -> Any:
    """What authlib takes as the client's secret: the secret, or the private key that signs."""
    if settings.client_auth_method == "private_key_jwt":
        return load_key(settings).jwk
    return settings.client_secret.get_secret_value() if settings.client_secret else None


def _basic(auth: Any, method: str, uri: str, headers: Any, body: str) -> tuple[str, Any, str]:
    """HTTP Basic with id and secret form-encoded first, as RFC 6749, 2.3.1 has it (authlib leaves that out)."""
    pair = f"{quote_plus(auth.client_id)}:{quote_plus(auth.client_secret)}"
    headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    return uri, headers, body


def _signed(settings: OAuth2Settings, token_url: str, clock_offset: float) -> Method:
    key = load_key(settings)
    now = int(time.time() + clock_offset)
    # A new object for each assertion: authlib keeps the `jti` in the claims that it was given.
    signer: Method = PrivateKeyJWT(
        settings.assertion_audience or token_url,
        claims={"iat": now - BACKDATED, "exp": now + ASSERTION_LIFE},
        headers=dict(key.headers),
        alg=key.algorithm,
    )

    def with_client_id(auth: Any, method: str, uri: str, headers: Any, body: str) -> tuple[str, Any, str]:
        uri, headers, body = signer(auth, method, uri, headers, body)
        return uri, headers, add_params_to_qs(body, [("client_id", auth.client_id)])

    return with_client_id


def _assertion(assertion: str) -> Method:
    def add(auth: Any, method: str, uri: str, headers: Any, body: str) -> tuple[str, Any, str]:
        fields = [
            ("client_id", auth.client_id),
            ("client_assertion_type", ASSERTION_TYPE),
            ("client_assertion", assertion),
        ]
        return uri, headers, add_params_to_qs(body or "", fields)

    return add


@dataclass(frozen=True, repr=False)
class SigningKey:
    """A private key for assertions: authlib's key object, the `alg` it signs with, and the headers that name it."""

    jwk: Any
    algorithm: str
    headers: dict[str, str]


def load_key(settings: OAuth2Settings) -> SigningKey:
    """The client's private key, from its own PEM file or the certificate's.

    The assertion names it by `kid` where MLFLOW_AUTH_CLIENT_KEY_ID is set, and by the certificate's
    thumbprints (`x5t`, `x5t#S256`; RFC 7515, 4.1.7) where there is a certificate.

    Raises:
        MlflowException: a file cannot be read, the passphrase is wrong, or the key's kind is unknown.
    """
    key = read_private_key(
        settings.client_key_path or str(settings.client_certificate_path),
        settings.client_key_passphrase.get_secret_value() if settings.client_key_passphrase else None,
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    headers = {"kid": settings.client_key_id} if settings.client_key_id else {}
    if settings.client_certificate_path:
        headers |= _thumbprints(settings.client_certificate_path)
    if isinstance(key, rsa.RSAPrivateKey):
        return SigningKey(RSAKey.import_key(pem), "RS256", headers)
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return SigningKey(ECKey.import_key(pem), _CURVES[key.curve.name], headers)
    raise mlflow_error("The client's private key must be RSA, or EC on P-256, P-384 or P-521.")


def read_private_key(path: str, passphrase: str | None) -> Any:
    """A private key of a PEM file.

    Raises:
        MlflowException: the file cannot be read, holds no key, or needs another passphrase.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as exc:
        raise mlflow_error(f"The key file {path!r} cannot be read: {exc.strerror}.") from None
    try:
        return serialization.load_pem_private_key(data, passphrase.encode() if passphrase else None)
    except TypeError:
        needed = "is encrypted: give its passphrase" if passphrase is None else "is not encrypted: give no passphrase"
        raise mlflow_error(f"The private key in {path!r} {needed}.") from None
    except ValueError:
        raise mlflow_error(f"{path!r} holds no private key in PEM form, or its passphrase is another one.") from None


def _thumbprints(path: str) -> dict[str, str]:
    try:
        certificate = x509.load_pem_x509_certificate(Path(path).read_bytes())
    except (OSError, ValueError):
        raise mlflow_error(f"The file {path!r} of MLFLOW_AUTH_CLIENT_CERTIFICATE holds no PEM certificate.") from None

    def encoded(algorithm: hashes.HashAlgorithm) -> str:
        return base64.urlsafe_b64encode(certificate.fingerprint(algorithm)).rstrip(b"=").decode()

    return {"x5t": encoded(hashes.SHA1()), "x5t#S256": encoded(hashes.SHA256())}  # noqa: S303 # RFC 7515 names SHA-1


def read_token_file(path: str | None, variable: str) -> str:
    """The one token in a file.

    Raises:
        MlflowException: `UNAUTHENTICATED`: it cannot be read or is empty.
    """
    try:
        text = Path(str(path)).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8 text"
        raise mlflow_error(f"The file {path!r} of {variable} cannot be read: {reason}.", "UNAUTHENTICATED") from None
    return check_header_value(text, f"The file {path!r} of {variable}")


class TLSClientAdapter(HTTPAdapter):
    """Presents a client certificate whose key may be in a file of its own and have a passphrase (RFC 8705, 2)."""

    def __init__(self, settings: OAuth2Settings) -> None:
        passphrase = settings.client_key_passphrase
        try:
            self._context = ssl.create_default_context(cafile=settings.ca_bundle)
            self._context.load_cert_chain(
                str(settings.client_certificate_path),
                settings.client_key_path,
                # Without a passphrase OpenSSL would ask for one on the terminal.
                passphrase.get_secret_value() if passphrase else lambda: "",
            )
        except (OSError, ValueError) as exc:
            reason = getattr(exc, "strerror", None) or getattr(exc, "reason", None) or "unusable"
            raise mlflow_error(
                "MLFLOW_AUTH_CLIENT_CERTIFICATE, MLFLOW_AUTH_CLIENT_KEY or MLFLOW_AUTH_CA_BUNDLE cannot be used: "
                f"{reason}."
            ) from None
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, ssl_context=self._context, **kwargs)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        return super().proxy_manager_for(*args, ssl_context=self._context, **kwargs)
