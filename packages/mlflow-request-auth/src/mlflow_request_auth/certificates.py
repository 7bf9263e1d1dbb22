"""Certificate, key and passphrase become the one PEM file that MLFLOW_TRACKING_CLIENT_CERT_PATH names.

MLflow hands that path to requests, which reads certificate and key from one file and cannot be given a
passphrase. So the key has to lie there unencrypted: in a file that only its owner can read.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from mlflow_plugkit.errors import mlflow_error
from mlflow_request_auth.client_auth import read_private_key
from mlflow_request_auth.store import write_private_file


def compose(certificate: Path, key: Path | None, passphrase: str | None, output: Path) -> x509.Certificate:
    """Write certificate, chain and unencrypted key into one file of mode 0600, and return the certificate.

    Args:
        certificate: PEM with the certificate first and its chain after it, or PKCS #12 (`.p12`, `.pfx`).
        key: PEM of the key; None where it is in the certificate's file.
        passphrase: of the key or the PKCS #12 file.
        output: the file to write; replaced in one step.

    Raises:
        MlflowException: a file cannot be read or written, key and certificate do not belong together, or
            the passphrase is wrong.
    """
    if certificate.suffix.lower() in (".p12", ".pfx"):
        private, chain = _from_pkcs12(certificate, passphrase)
    else:
        private, chain = read_private_key(str(key or certificate), passphrase), _chain(certificate)
    if _public(private.public_key()) != _public(chain[0].public_key()):
        raise mlflow_error(f"The key does not belong to the certificate in {str(certificate)!r}.")
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_private_file(output, (pem + b"".join(c.public_bytes(serialization.Encoding.PEM) for c in chain)).decode())
    _check_loads(output)
    return chain[0]


def _chain(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as exc:
        raise mlflow_error(f"The certificate file {str(path)!r} cannot be read: {exc.strerror}.") from None
    except ValueError:
        raise mlflow_error(f"{str(path)!r} holds no certificate in PEM form.") from None


def _from_pkcs12(path: Path, passphrase: str | None) -> tuple[Any, list[x509.Certificate]]:
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise mlflow_error(f"The file {str(path)!r} cannot be read: {exc.strerror}.") from None
    try:
        key, certificate, others = pkcs12.load_key_and_certificates(data, passphrase.encode() if passphrase else None)
    except ValueError:
        raise mlflow_error(f"{str(path)!r} is no PKCS #12 file, or its passphrase is another one.") from None
    if key is None or certificate is None:
        raise mlflow_error(f"{str(path)!r} holds no key with its certificate.")
    return key, [certificate, *others]


def _public(key: Any) -> bytes:
    encoded: bytes = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return encoded


def _check_loads(path: Path) -> None:
    """What Python's ssl cannot load now would fail in the middle of training."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(path)
    except ssl.SSLError as exc:
        path.unlink(missing_ok=True)
        raise mlflow_error(f"OpenSSL does not take the certificate: {exc.reason}.") from None
