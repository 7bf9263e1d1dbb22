"""Settings: what a URI and the environment say becomes one checked object; secrets stay out of sight."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from mlflow_plugkit_elasticsearch import ElasticsearchSettings

CLOUD = "demo:ZXhhbXBsZS5jb206NDQzJGFiYyRkZWY="


def read(uri: str, **environ: str) -> ElasticsearchSettings:
    return ElasticsearchSettings.from_uri(uri, {f"MLFLOW_ELASTICSEARCH_{n.upper()}": v for n, v in environ.items()})


@pytest.mark.parametrize(
    ("uri", "urls", "prefix", "location"),
    [
        ("elasticsearch://h", ["https://h:9200"], "mlflow", "elasticsearch://h/mlflow"),
        ("elasticsearch://h:9201/p/", ["https://h:9201"], "p", "elasticsearch://h:9201/p"),
        ("elasticsearch://localhost/p", ["http://localhost:9200"], "p", "elasticsearch://localhost/p"),
        ("elasticsearch://127.1.2.3/p", ["http://127.1.2.3:9200"], "p", "elasticsearch://127.1.2.3/p"),
        ("elasticsearch://[::1]:9200/p", ["http://[::1]:9200"], "p", "elasticsearch://[::1]:9200/p"),
        ("elasticsearch://h/p?tls=false", ["http://h:9200"], "p", "elasticsearch://h/p"),
        ("elasticsearch://localhost/p?tls=true", ["https://localhost:9200"], "p", "elasticsearch://localhost/p"),
        ("elasticsearch+https://h/p", ["https://h:443"], "p", "elasticsearch+https://h/p"),
        ("elasticsearch+http://h:80/p", ["http://h:80"], "p", "elasticsearch+http://h:80/p"),
    ],
)
def test_a_uri_names_nodes_and_a_prefix(uri: str, urls: list[str], prefix: str, location: str) -> None:
    """TLS is used unless the host is this machine or the URI says otherwise."""
    settings = read(uri)
    assert (settings.urls, settings.prefix, settings.location) == (urls, prefix, location)


@pytest.mark.parametrize(
    "uri",
    [
        "elasticsearch:///p",
        "elasticsearch://h/UPPER",
        "elasticsearch://h/a/b",
        "elasticsearch://h/-a",
        "elasticsearch://h/a*",
        "elasticsearch://h/a,b",
        "elasticsearch://h/.security",
        "elasticsearch://h/" + "a" * 61,
        "elasticsearch://h/p?tls=perhaps",
        "elasticsearch://h/p?tsl=true",
        "elasticsearch://h/p?timeout=5",
        "elasticsearch://h/p?ca_file=/etc/passwd",
        "elasticsearch+http://h/p?tls=true",
        "elasticsearch+https://h/p?tls=false",
        "elasticsearch://cloud/p",
        "elasticsearch://h:99999/p",
        "opensearch://h/p",
    ],
)
def test_a_uri_of_which_no_connection_can_be_made_is_refused(uri: str) -> None:
    """Hosts, prefixes and options are checked before anything is connected."""
    with pytest.raises(MlflowException) as error:
        read(uri)
    assert error.value.error_code == "INVALID_PARAMETER_VALUE"


@pytest.mark.parametrize(
    "environ",
    [
        {"api_key": "a", "bearer_token": "b"},
        {"api_key": "a", "username": "u", "password": "p"},
        {"username": "u"},
        {"password": "p"},
        {"fingerprint": "abc"},
        {"replicas": "many"},
        {"replicas": "1-"},
        {"timeout": "0"},
        {"timeout": "soon"},
        {"retry_for": "-1"},
        {"connections": "0"},
        {"shards": "0"},
    ],
)
def test_settings_that_contradict_each_other_are_refused(environ: dict[str, str]) -> None:
    """The message names the variable."""
    with pytest.raises(MlflowException) as error:
        read("elasticsearch://h/p", **environ)
    assert error.value.error_code == "INVALID_PARAMETER_VALUE"
    assert "MLFLOW_ELASTICSEARCH_" in str(error.value)


def test_credentials_come_from_the_environment_or_files(tmp_path: Path) -> None:
    """Each kind is read; a file's last newline is no part of the secret."""
    (tmp_path / "key").write_text("from-a-file\n")
    settings = read("elasticsearch://h/p", api_key_file=str(tmp_path / "key"))
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == "from-a-file"
    settings = read("elasticsearch://h/p", username="u", password="pass-4711")
    assert settings.secrets() == ("pass-4711",)
    assert read("elasticsearch://cloud/p", cloud_id=CLOUD, bearer_token="t-4711").secrets() == ("t-4711",)


def test_a_password_in_the_uri_works_with_a_warning() -> None:
    """MLflow stores URIs in clear, so the warning says how to take it out; strict mode refuses it."""
    with pytest.warns(UserWarning, match="MLFLOW_ELASTICSEARCH_PASSWORD"):
        settings = read("elasticsearch://u:pass-4711@h/p")
    assert settings.password is not None
    assert settings.password.get_secret_value() == "pass-4711"
    for shown in (repr(settings), str(settings), settings.location, str(settings.uri)):
        assert "pass-4711" not in shown
    with pytest.raises(MlflowException) as error:
        ElasticsearchSettings.from_uri("elasticsearch://u:pass-4711@h/p", {"MLFLOW_PLUGKIT_STRICT": "true"})
    assert "pass-4711" not in str(error.value)


def test_settings_are_a_key_and_can_be_pickled() -> None:
    """Equal settings are one cluster to a process."""
    one, two = (read("elasticsearch://h/p", api_key="k") for _ in range(2))
    assert one == two == pickle.loads(pickle.dumps(one))
    assert hash(one) == hash(two)
    assert one != read("elasticsearch://h/p", api_key="other")
