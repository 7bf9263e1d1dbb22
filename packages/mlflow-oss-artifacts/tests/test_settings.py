"""Settings: what URI and environment mean."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from mlflow_oss_artifacts.settings import OssSettings

KEYS = {"MLFLOW_OSS_KEY_ID": "AnId", "MLFLOW_OSS_KEY_SECRET": "aSecret"}
HANGZHOU = {"MLFLOW_OSS_ENDPOINT_URL": "https://oss-cn-hangzhou.aliyuncs.com"}


def settings(uri: str = "oss://bucket/path", **environ: str) -> OssSettings:
    return OssSettings.from_uri(uri, environ)


def refusal(uri: str = "oss://bucket/path", **environ: str) -> str:
    with pytest.raises(MlflowException) as caught:
        OssSettings.from_uri(uri, environ)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    return str(caught.value)


@pytest.mark.parametrize(
    ("uri", "bucket", "prefix"),
    [
        ("oss://bucket/path/to", "bucket", "path/to"),
        ("oss://bucket/path/", "bucket", "path"),
        ("oss://bucket", "bucket", ""),
        ("oss://bucket/", "bucket", ""),
        ("oss://bucket/a%20b/c", "bucket", "a%20b/c"),
        ("oss://bucket/two words/c?part_size=200000", "bucket", "two words/c"),
    ],
)
def test_the_uri_names_bucket_and_prefix_as_aliyunstoreplugin_reads_them(uri: str, bucket: str, prefix: str) -> None:
    found = settings(uri, **HANGZHOU)
    assert (found.bucket, found.prefix) == (bucket, prefix)


@pytest.mark.parametrize("uri", ["oss:///path", "oss://Ab_c/x", "oss://ab/x", "oss://-bucket/x", "s3://bucket/x"])
def test_a_uri_without_a_good_bucket_is_refused(uri: str) -> None:
    refusal(uri, **HANGZHOU)


@pytest.mark.parametrize("uri", ["oss://user@bucket/x", "oss://bucket:8080/x"])
def test_user_and_port_have_no_place_in_the_uri(uri: str) -> None:
    assert "MLFLOW_OSS_ENDPOINT_URL" in refusal(uri, **HANGZHOU)


@pytest.mark.filterwarnings("ignore:.*holds a secret")
def test_a_password_in_the_uri_is_refused_and_not_shown() -> None:
    assert "hunter2xyz" not in refusal("oss://user:hunter2xyz@bucket/x", **HANGZHOU)


@pytest.mark.parametrize(
    "name", ["endpoint", "key_id", "key_secret", "ca_file", "credentials_uri", "metadata_url", "sdk"]
)
def test_what_a_client_must_not_choose_for_a_server_is_refused_in_the_uri(name: str) -> None:
    assert "cannot be set in a URI" in refusal(f"oss://bucket/path?{name}=x", **HANGZHOU)


def test_an_unknown_option_names_the_nearest_known_one() -> None:
    assert "part_size" in refusal("oss://bucket/path?partsize=1", **HANGZHOU)


@pytest.mark.parametrize(
    ("endpoint", "url", "region"),
    [
        ("oss-cn-hangzhou.aliyuncs.com", "https://oss-cn-hangzhou.aliyuncs.com", "cn-hangzhou"),
        ("http://oss-cn-beijing.aliyuncs.com/", "http://oss-cn-beijing.aliyuncs.com", "cn-beijing"),
        (
            "https://oss-cn-shanghai-internal.aliyuncs.com",
            "https://oss-cn-shanghai-internal.aliyuncs.com",
            "cn-shanghai",
        ),
        ("https://oss-us-west-1.aliyuncs.com", "https://oss-us-west-1.aliyuncs.com", "us-west-1"),
        ("https://oss-cn-shanghai-finance-1.aliyuncs.com", None, "cn-shanghai-finance-1"),
        ("https://oss-cn-shanghai-finance-1-internal.aliyuncs.com", None, "cn-shanghai-finance-1"),
        ("https://cn-hangzhou.oss.aliyuncs.com", "https://cn-hangzhou.oss.aliyuncs.com", "cn-hangzhou"),
        ("https://s3.oss-cn-hangzhou.aliyuncs.com", "https://s3.oss-cn-hangzhou.aliyuncs.com", "cn-hangzhou"),
    ],
)
def test_the_region_is_read_from_a_public_or_internal_endpoint(endpoint: str, url: str | None, region: str) -> None:
    found = settings(MLFLOW_OSS_ENDPOINT_URL=endpoint)
    assert found.signing_region == region
    assert found.endpoint_url == (url or endpoint)


def test_an_endpoint_that_hides_the_region_needs_it_for_v4_signatures_alone() -> None:
    assert "OSS_REGION" in refusal(MLFLOW_OSS_ENDPOINT_URL="https://files.example.com")
    assert (
        settings(OSS_ENDPOINT="https://files.example.com", OSS_REGION="oss-cn-beijing").signing_region == "cn-beijing"
    )
    assert settings(OSS_ENDPOINT="https://files.example.com", MLFLOW_OSS_SIGNATURE="v1").signing_region is None
    assert "OSS_REGION" in refusal(OSS_ENDPOINT="https://oss-cn-hangzhou.aliyuncs.com.evil.example")


@pytest.mark.parametrize(
    ("network", "url"),
    [
        ("public", "https://oss-cn-hangzhou.aliyuncs.com"),
        ("internal", "https://oss-cn-hangzhou-internal.aliyuncs.com"),
        ("accelerate", "https://oss-accelerate.aliyuncs.com"),
    ],
)
def test_a_region_alone_gives_the_endpoint_of_the_network(network: str, url: str) -> None:
    found = settings(OSS_REGION="cn-hangzhou", MLFLOW_OSS_NETWORK=network)
    assert (found.endpoint_url, found.signing_region, found.address_style) == (url, "cn-hangzhou", "virtual")


@pytest.mark.parametrize("region", ["evil.example/", "cn-x@evil", "cn", ".."])
def test_a_region_that_is_no_name_does_not_become_a_host(region: str) -> None:
    assert "region" in refusal(OSS_REGION=region)


def test_neither_endpoint_nor_region_says_what_to_set() -> None:
    assert "MLFLOW_OSS_ENDPOINT_URL" in refusal()


@pytest.mark.parametrize(
    "endpoint", ["https://h/path", "ftp://h", "https://u:p@h", "https://h?x=1", "https://", "h:x", "[h"]
)
def test_an_endpoint_that_is_no_host_is_refused(endpoint: str) -> None:
    refusal(MLFLOW_OSS_ENDPOINT_URL=endpoint, OSS_REGION="cn-hangzhou")


def test_the_bucket_stands_in_the_path_for_addresses_and_where_it_is_asked() -> None:
    region = {"OSS_REGION": "cn-test"}
    assert settings(OSS_ENDPOINT="http://127.0.0.1:9000", **region).address_style == "path"
    assert settings(OSS_ENDPOINT="http://[::1]:9000", **region).address_style == "path"
    assert settings(OSS_ENDPOINT="http://localhost:9000", **region).address_style == "path"
    assert settings(OSS_ENDPOINT="https://h.example", MLFLOW_OSS_ADDRESSING="path", **region).address_style == "path"
    assert settings(OSS_ENDPOINT="https://h.example", MLFLOW_OSS_ADDRESSING="cname", **region).address_style == "cname"


def test_the_variables_of_mlflow_win_over_those_of_the_vendor() -> None:
    found = settings(
        **HANGZHOU, **KEYS, OSS_ENDPOINT="https://oss-cn-beijing.aliyuncs.com", OSS_ACCESS_KEY_ID="other",
        OSS_ACCESS_KEY_SECRET="otherSecret", OSS_SESSION_TOKEN="otherToken",
    )  # fmt: skip
    assert found.signing_region == "cn-hangzhou"
    assert found.key_id is not None
    assert found.key_id.get_secret_value() == "AnId"
    assert found.session_token is None, "the token belongs to the other key"


def test_the_vendors_variables_are_enough() -> None:
    found = settings(
        OSS_ENDPOINT="oss-cn-beijing.aliyuncs.com",
        OSS_ACCESS_KEY_ID="id",
        OSS_ACCESS_KEY_SECRET="secret",
        OSS_SESSION_TOKEN="t",
    )
    assert (found.key_id and found.key_secret and found.session_token) is not None


def test_a_secret_can_be_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("fromFile\n")
    found = settings(**HANGZHOU, MLFLOW_OSS_KEY_ID="id", MLFLOW_OSS_KEY_SECRET_FILE=str(tmp_path / "key"))
    assert found.key_secret is not None
    assert found.key_secret.get_secret_value() == "fromFile"


def test_half_a_key_says_which_half_is_missing() -> None:
    assert "MLFLOW_OSS_KEY_SECRET" in refusal(**HANGZHOU, MLFLOW_OSS_KEY_ID="id")
    assert "MLFLOW_OSS_KEY_ID" in refusal(**HANGZHOU, MLFLOW_OSS_KEY_SECRET="secret")


@pytest.mark.parametrize(
    "environ",
    [{"MLFLOW_OSS_PART_SIZE": "1000"}, {"MLFLOW_OSS_PARALLEL": "0"}, {"MLFLOW_OSS_READ_TIMEOUT": "-1"},
     {"MLFLOW_OSS_KMS_KEY_ID": "k"}, {"MLFLOW_OSS_ENCRYPTION": "ROT13"}, {"MLFLOW_OSS_SDK": "v3"}],
)  # fmt: skip
def test_values_that_cannot_work_are_refused(environ: dict[str, str]) -> None:
    refusal(**HANGZHOU, **environ)


def test_no_repr_shows_a_secret() -> None:
    found = settings(**HANGZHOU, **KEYS, MLFLOW_OSS_SESSION_TOKEN="aToken")
    assert not any(secret in f"{found!r}{found}" for secret in ("AnId", "aSecret", "aToken"))
