"""URIs, paths and redaction."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException

from mlflow_plugkit.uri import HIDDEN, clean_path, join_path, parse_uri, redact_text, redact_uri, validate_path

SECRET = "hunter2-Zq8"


def test_a_uri_is_split_and_decoded() -> None:
    uri = parse_uri("Demo+TLS://ann:p%40ss@Host.example:9200/a%20b/c?timeout=5&name=x%26y")
    assert (uri.scheme, uri.username, uri.password) == ("demo+tls", "ann", "p@ss")
    assert (uri.host, uri.port, uri.path) == ("host.example", 9200, "/a b/c")
    assert uri.query == (("timeout", "5"), ("name", "x&y"))


def test_a_parsed_uri_shows_no_secret() -> None:
    uri = parse_uri(f"demo://ann:{SECRET}@host/path?token={SECRET}")
    assert SECRET not in repr(uri) + str(uri) + f"{uri!r}"
    assert str(uri) == "demo://ann:***@host/path?token=***"


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("/srv/data", "has no scheme"),
        ("demo://host:port/x", "not a valid URI"),
        ("demo://[::1/x", "not a valid URI"),
        ("demo://host/a#b", "%23"),
        ("demo://host/?a=", "has no value"),
        ("demo://host/?a=1&a=2", "stands twice"),
        ("demo://host/a/../b", "climbs out"),
        ("demo://host/%2e%2e/b", "climbs out"),
        ("demo://host/%252e%252e/b", "climbs out"),
        ("demo://host/a%5cb", "backslash"),
        ("demo://host/a%00b", "control character"),
        ("demo://host/%ff", "not valid UTF-8"),
        ("demo://host/\udcff", "not valid UTF-8"),
        ("demo://host/a//b", "empty or '.' part"),
    ],
)
def test_a_malformed_uri_is_refused_with_the_reason(uri: str, says: str) -> None:
    with pytest.raises(MlflowException, match="(?s)" + says.replace(".", r"\.")) as refusal:
        parse_uri(uri)
    assert refusal.value.error_code == "INVALID_PARAMETER_VALUE"
    assert refusal.value.get_http_status_code() == 400


def test_a_refusal_shows_no_password() -> None:
    with pytest.raises(MlflowException) as refusal:
        parse_uri(f"demo://ann:{SECRET}@host/a/../b?password={SECRET}")
    assert SECRET not in str(refusal.value)


@pytest.mark.parametrize("path", ["a", "a/b.txt", "models/é ü/100%.txt", "a..b/...", "a b/+&=", "%41"])
def test_a_clean_relative_path_is_returned_unchanged(path: str) -> None:
    assert validate_path(path) == path


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("", "is empty"),
        ("/etc/passwd", "is absolute"),
        ("%2fetc/passwd", "is absolute"),
        ("..", "climbs out"),
        ("a/../../b", "climbs out"),
        ("%2e%2e/b", "climbs out"),
        ("%2E%2E%2Fb", "climbs out"),
        ("%25252e%25252e/b", "climbs out"),
        ("%2525252525252525252e", "too many times"),
        ("a\\b", "backslash"),
        ("..%5c..%5cb", "backslash"),
        ("a\x00b", "control character"),
        ("a%00b", "control character"),
        ("a\nb", "control character"),
        ("./a", "'.' part"),
        ("a//b", "empty"),
        ("a/", "empty"),
        ("caf\udce9.txt", "not valid UTF-8"),
    ],
)
def test_a_path_that_would_not_stay_in_its_folder_is_refused(path: str, says: str) -> None:
    with pytest.raises(MlflowException, match=says.replace(".", r"\.")) as refusal:
        validate_path(path)
    assert refusal.value.error_code == "INVALID_PARAMETER_VALUE"
    str(refusal.value).encode()


@given(st.text())
def test_a_path_that_passes_never_leads_outside(path: str) -> None:
    import posixpath

    try:
        validate_path(path)
    except MlflowException:
        return
    assert posixpath.normpath(posixpath.join("/root", path)).startswith("/root/")


@pytest.mark.parametrize(("path", "clean"), [(None, ""), ("", ""), ("a", "a"), ("a/b/", "a/b")])
def test_a_path_is_cleaned_of_what_mlflow_adds(path: str | None, clean: str) -> None:
    assert clean_path(path) == clean


@pytest.mark.parametrize("path", ["/", "//", "a//", "/a", "../", "%2e%2e/"])
def test_cleaning_lets_no_bad_path_pass(path: str) -> None:
    with pytest.raises(MlflowException):
        clean_path(path)


def test_parts_are_joined_without_empty_ones() -> None:
    assert join_path(None, "a/", "", "/b", "c") == "a/b/c"
    assert join_path(None, "", "/") == ""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"postgresql://ann:{SECRET}@db:5432/mlflow", "postgresql://ann:***@db:5432/mlflow"),
        (f"mssql+pyodbc://ann:{SECRET}/?@db/mlflow", "mssql+pyodbc://ann:***@db/mlflow"),
        (f"demo://:{SECRET}@db", "demo://:***@db"),
        (f"see x://u:{SECRET}@h and y://u:{SECRET}@h.", "see x://u:***@h and y://u:***@h."),
        (f"demo://h/p?password={SECRET}&x=1", "demo://h/p?password=***&x=1"),
        (f"https://h/k?X-Amz-Signature={SECRET}&X-Amz-Date=1", "https://h/k?X-Amz-Signature=***&X-Amz-Date=1"),
        (f"https://h/k?sig={SECRET}", "https://h/k?sig=***"),
        (f"The password={SECRET}. Change it.", "The password=***. Change it."),
        (f"AWS_SECRET_ACCESS_KEY={SECRET}", "AWS_SECRET_ACCESS_KEY=***"),
        (f'{{"client_secret": "{SECRET}", "a": 1}}', '{"client_secret": ***, "a": 1}'),
        (f"Authorization: Bearer {SECRET}", "Authorization: Bearer ***"),
        (f"'authorization': 'Basic {SECRET}'", "'authorization': 'Basic ***'"),
        (f"sent bearer {SECRET}", "sent bearer ***"),
        ("token hf_" + "a" * 30 + " refused", "token *** refused"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-_", "***"),
    ],
)
def test_secrets_are_hidden_wherever_they_stand(text: str, shown: str) -> None:
    assert redact_text(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "http://host:8080/path@version",
        "xet://user/repo@abc123",
        "basic authentication is used",
        "author=me, monkey=1",
        "the token is missing",
        "file-plugin:/srv/mlflow?create=true",
    ],
)
def test_plain_text_is_left_alone(text: str) -> None:
    assert redact_text(text) == text


def test_known_secrets_are_hidden_also_where_they_are_percent_encoded() -> None:
    assert redact_text("a=p%40ss%2Fword b=p@ss/word", ["p@ss/word"]) == f"a={HIDDEN} b={HIDDEN}"
    assert redact_text("a cat", ["a"]) == "a cat"


@given(
    st.text("abcXYZ019-_.~!@:%é ", min_size=4, max_size=20).filter(lambda s: s.strip(" .") == s),
    st.sampled_from(["demo://ann:{}@host/p", "demo://host/p?api_key={}"]),
)
def test_no_part_of_an_encoded_password_is_left_in_a_redacted_uri(secret: str, form: str) -> None:
    from urllib.parse import quote

    encoded = quote(secret, safe="")
    assert redact_uri(form.format(encoded)) == form.format(HIDDEN)
