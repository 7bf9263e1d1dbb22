"""What a location and the environment say, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from mlflow_s3_artifacts.settings import S3Settings


def settings(uri: str, **environ: str) -> S3Settings:
    return S3Settings.from_uri(uri, environ)


def refusal(uri: str, **environ: str) -> str:
    with pytest.raises(MlflowException) as caught:
        settings(uri, **environ)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    return str(caught.value)


@pytest.mark.parametrize(
    ("uri", "endpoint", "bucket", "prefix"),
    [
        ("s3+https://minio.example:9000/mlflow/a/b", "https://minio.example:9000", "mlflow", "a/b"),
        ("s3+http://127.0.0.1:8333/mlflow", "http://127.0.0.1:8333", "mlflow", ""),
        ("s3+https://[2001:db8::1]:9000/mlflow/", "https://[2001:db8::1]:9000", "mlflow", ""),
        ("S3+HTTPS://Ceph.Example/mlflow/x", "https://ceph.example", "mlflow", "x"),
        ("s3+https://h/mlflow/with%20blank/x?region=eu-west-1", "https://h", "mlflow", "with blank/x"),
        ("s3://mlflow/a", None, "mlflow", "a"),
    ],
)
def test_a_location_names_endpoint_bucket_and_prefix(uri: str, endpoint: Any, bucket: str, prefix: str) -> None:
    found = settings(uri)
    assert (found.endpoint, found.bucket, found.prefix) == (endpoint, bucket, prefix)


def test_the_root_is_the_location_without_options() -> None:
    assert settings("s3+https://h:9000/bucket/a?region=eu-west-1").root == "s3+https://h:9000/bucket/a"
    assert settings("s3://bucket/").root == "s3://bucket"


def test_plain_s3_takes_its_endpoint_from_the_environment_and_others_do_not() -> None:
    environ = {"MLFLOW_S3_ENDPOINT_URL": "https://global.example"}
    assert settings("s3://bucket/a", **environ).endpoint == "https://global.example"
    assert settings("s3+https://own.example/bucket/a", **environ).endpoint == "https://own.example"


def test_an_endpoint_of_ones_own_is_addressed_by_path_and_amazon_as_boto3_chooses() -> None:
    assert settings("s3+https://h/bucket").style == "path"
    assert settings("s3://bucket").style == "auto"
    assert settings("s3+https://h/bucket?addressing_style=virtual").style == "virtual"


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("s3+https:///bucket", "names no endpoint"),
        ("s3+https://h", "names no bucket"),
        ("s3+https://h/", "names no bucket"),
        ("s3://", "names no bucket"),
        ("s3://bucket:9000/a", "s3+https://endpoint:port"),
        ("s3+https://h/ab", "no valid bucket name"),
        ("s3+https://h/-bucket", "no valid bucket name"),
        ("s3+https://h/192.168.0.1", "no valid bucket name"),
        ("s3+https://h/bu..ket", "no valid bucket name"),
        ("s3+https://h/bucket/../other", "climbs out"),
        ("s3+https://h/Bucket?addressing_style=virtual", "lower case"),
        ("s3+https://h:port/bucket", "not a valid URI"),
        ("s3+ftp://h/bucket", "does not start with"),
        ("s3+https://h/bucket?regio=x", "Did you mean 'region'?"),
        ("s3+https://h/bucket?addressing_style=flat", "no `auto` or `path` or `virtual`"),
    ],
)
def test_a_malformed_location_is_refused_with_what_to_write(uri: str, says: str) -> None:
    assert says in refusal(uri)


def test_other_services_have_names_that_amazon_refuses() -> None:
    assert settings("s3+https://h/My_Bucket").bucket == "My_Bucket"


@pytest.mark.parametrize(
    "uri",
    ["s3+https://KEY1234:SECRET1234@h/bucket", "s3://KEY1234:SECRET1234@bucket/a", "s3+https://KEY1234@h/bucket"],
)
def test_credentials_in_a_location_are_refused_and_not_repeated(uri: str) -> None:
    message = refusal(uri)
    assert "holds credentials" in message
    assert "SECRET1234" not in message
    assert "KEY1234" not in message


@pytest.mark.parametrize(
    "name",
    ["profile", "profiles", "acl", "upload_extra_args", "expected_bucket_owner", "endpoint_url", "ca_bundle",
     "ignore_tls", "anonymous", "checksums", "upload_check", "data_plane", "part_size", "parallel"],
)  # fmt: skip
def test_what_decides_about_trust_cannot_be_set_in_a_location(name: str) -> None:
    assert "cannot be set in a URI" in refusal(f"s3+https://h/bucket?{name}=x")


def test_each_endpoint_has_its_profile() -> None:
    environ = {
        "MLFLOW_S3_ARTIFACTS_PROFILE": "fallback",
        "MLFLOW_S3_ARTIFACTS_PROFILES": "minio.example:9000=minio, ceph.example=ceph",
    }
    assert settings("s3+https://minio.example:9000/bucket", **environ).profile_name == "minio"
    assert settings("s3+https://ceph.example:8443/bucket", **environ).profile_name == "ceph"
    assert settings("s3+https://minio.example/bucket", **environ).profile_name == "fallback"
    assert settings("s3://bucket", **environ).profile_name == "fallback"
    assert "host[:port]=profile" in refusal("s3+https://h/bucket", MLFLOW_S3_ARTIFACTS_PROFILES="minio")


def test_the_variables_of_mlflows_own_repository_are_understood() -> None:
    found = settings(
        "s3://bucket",
        MLFLOW_S3_UPLOAD_EXTRA_ARGS='{"StorageClass": "STANDARD_IA"}',
        MLFLOW_S3_EXPECTED_BUCKET_OWNER="123456789012",
        MLFLOW_S3_IGNORE_TLS="true",
        MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE="virtual",
    )
    assert found.extra_args == {"StorageClass": "STANDARD_IA"}
    assert found.owner_args == {"ExpectedBucketOwner": "123456789012"}
    assert found.ignore_tls
    assert found.style == "virtual"


def test_encryption_and_storage_class_are_arguments_of_each_upload() -> None:
    found = settings("s3+https://h/bucket?sse_kms_key_id=alias/a&storage_class=STANDARD_IA")
    assert found.extra_args == {
        "ServerSideEncryption": "aws:kms",
        "SSEKMSKeyId": "alias/a",
        "StorageClass": "STANDARD_IA",
    }


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("PART_SIZE", "1", "not between 5"),
        ("PARALLEL", "0", "not between 1"),
        ("READ_TIMEOUT", "-1", "not between"),
        ("RETRIES", "0", "not between 1"),
        ("UPLOAD_EXTRA_ARGS", "{", "no JSON"),
        ("UPLOAD_EXTRA_ARGS", "[1]", "no JSON object"),
    ],
)
def test_a_number_out_of_range_and_bad_json_are_refused(variable: str, value: str, says: str) -> None:
    assert says in refusal("s3+https://h/bucket", **{f"MLFLOW_S3_ARTIFACTS_{variable}": value})
