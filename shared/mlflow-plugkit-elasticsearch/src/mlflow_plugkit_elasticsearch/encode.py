"""Values as Elasticsearch terms: numbers that sort as numbers, keys that are safe as field names, bounded tokens.

A term of Lucene holds at most 32,766 bytes (org.apache.lucene.index.IndexWriter.MAX_TERM_LENGTH).
"""

from __future__ import annotations

import hashlib
import math
import struct
from functools import lru_cache
from urllib.parse import quote, unquote

from mlflow_plugkit.errors import mlflow_error

SEPARATOR = "\x00"
MAX_TERM_BYTES = 32_766
NAN = "f" * 16
#: Longer values keep this many bytes in front of their digest, so that a key of MLflow's length still fits.
_KEPT_BYTES = 31_000
_LONGEST_KEY = 250
_SIGN = 1 << 63
_ALL = (1 << 64) - 1
_SAFE_IN_KEYS = "!$&'()+,;=@:/ "


def sortable_float(value: float) -> str:
    """Sixteen hexadecimal digits that sort as the number does; ±Infinity at the ends, -0.0 as 0.0.

    Raises:
        ValueError: NaN, which has no place in an order.
    """
    if math.isnan(value):
        raise ValueError("NaN has no place in an order")
    (bits,) = struct.unpack(">Q", struct.pack(">d", value + 0.0))
    return f"{(~bits & _ALL) if bits & _SIGN else bits | _SIGN:016x}"


def float_of(text: str) -> float:
    """The number that `sortable_float` made the text of."""
    bits = int(text, 16)
    (value,) = struct.unpack(">d", struct.pack(">Q", bits ^ _SIGN if bits & _SIGN else ~bits & _ALL))
    return float(value)


def point(key: str, value: float) -> str:
    """A key and a number as one point of 128 bits, for ranges on the number of one key; NaN lies above +Infinity.

    It is written as the IPv6 address that a field of the type `ip` indexes: eight bytes of the key's SHA-256 digest
    and the eight of `sortable_float`. A range over it walks a tree of numbers, not the terms of every value.
    """
    return _address(_digest(key), NAN if math.isnan(value) else sortable_float(value))


def points(key: str) -> tuple[str, str]:
    """The lowest and the highest point of a key that a number has."""
    digest = _digest(key)
    return _address(digest, sortable_float(-math.inf)), _address(digest, sortable_float(math.inf))


@lru_cache(maxsize=8192)
def _digest(key: str) -> str:
    digest = hashlib.sha256(utf8(key)).hexdigest()
    return f"{digest[:4]}:{digest[4:8]}:{digest[8:12]}:{digest[12:16]}"


def _address(digest: str, number: str) -> str:
    return f"{digest}:{number[:4]}:{number[4:8]}:{number[8:12]}:{number[12:]}"


def field_key(key: str) -> str:
    """A key as a part of a field's name: no wildcard, dot, control character or empty name reaches Elasticsearch.

    Dots are encoded, too: a `flattened` field would read them as a path. `key_of` turns it back.
    """
    return quote(utf8(key), safe=_SAFE_IN_KEYS).replace(".", "%2E") if key else "%"


def key_of(field: str) -> str:
    """The key that `field_key` encoded."""
    return "" if field == "%" else unquote(field)


def bounded(value: str) -> str:
    """The value, or, where it is too long for a term, its first 31,000 bytes and its SHA-256 digest.

    Equal values stay equal and different ones different; what starts alike stays together in an order.
    """
    raw = utf8(value)
    if len(raw) <= _KEPT_BYTES:
        return value
    kept = raw[: _KEPT_BYTES - 64].decode(errors="ignore")
    return kept + hashlib.sha256(raw).hexdigest()


def token(key: str, value: str) -> str:
    """`key NUL value` as one term, for equality, prefix, wildcard and range queries on a single keyword field."""
    return token_prefix(key) + bounded(value)


def token_prefix(key: str) -> str:
    """How the tokens of a key begin."""
    return key_token(key) + SEPARATOR


def key_token(key: str) -> str:
    """The key alone as a term, which beside its `token` answers whether the key is there at all.

    Of a key beyond 250 bytes it is the digest: Lucene refuses prefixes of 1,000.
    """
    raw = utf8(key)
    return key if len(raw) <= _LONGEST_KEY else hashlib.sha256(raw).hexdigest()


def document_id(*parts: str) -> str:
    """A deterministic document id of at most 64 characters for a tuple of texts (an `_id` holds 512 bytes at most)."""
    return hashlib.sha256(utf8(SEPARATOR.join(f"{len(p)}:{p}" for p in parts))).hexdigest()


def utf8(text: str) -> bytes:
    """The text's bytes.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE` for half a surrogate pair, which nothing can store.
    """
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise mlflow_error(f"{text[:100]!a} is not valid Unicode text. Leave out lone surrogates.") from None
