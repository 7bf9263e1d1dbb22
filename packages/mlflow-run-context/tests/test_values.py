"""What may stand in a tag."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import _validate_tag_name

from mlflow_plugkit.uri import redact_text
from mlflow_run_context.values import LONGEST_VALUE, MARKER, is_secret_name, scrub, tag_key, tag_value

SECRETS = [
    ("https://ann:hunter2@host/x", "hunter2"),
    ("https://ghp_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@host/x", "ghp_"),
    ("postgresql+psycopg2://ann:p%40ss@host/db", "p%40ss"),
    ("password=hunter2", "hunter2"),
    ("--api-key: hunter2x", "hunter2x"),
    ("Authorization: Bearer abc.def-123456", "abc.def"),
    ("AKIAIOSFODNN7EXAMPLE", "AKIA"),
    ("AIzaSyA-1234567890abcdefghijklmnopqrstu", "AIza"),
    ("sk-proj-abcdefghijklmnopqrstuvwx", "abcdefghij"),
    ("wJalrXUtnFEMI1K7MDENG2bPxRfiCYEXAMPLEKEY3", "wJalr"),
    ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abc", "eyJzdWIi"),
    ("-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----", "MIIEow"),
    ("glpat-abcdefghijklmnopqrst", "abcdefghijk"),
]
HARMLESS = [
    "2f1c7f0e9a3b5d6c8e7f00112233445566778899",
    f"sha256:{'0a' * 32}",
    f"registry.example.com:5000/team/train@sha256:{'0a' * 32}",
    "123e4567-e89b-12d3-a456-426614174000",
    "trainer-7d4b9c6f5-x2x9z",
    "manual__2024-01-01T00:00:00.123456+00:00",
    "feature/JIRA-1234-Add-a-Very-Long-Description-Of-The-Change",
    "git@github.com:team/repository.git",
    "https://github.com/team/repository/actions/runs/123456789",
    "arn:aws:sagemaker:eu-west-1:123456789012:training-job/pytorch-2024-01-01",
    "Linux 6.1.0-18-amd64",
    "node[001-128]",
]


@pytest.mark.parametrize(("text", "secret"), SECRETS)
def test_a_secret_is_taken_out_wherever_it_stands(text: str, secret: str) -> None:
    for form in (text, f"before {text} after", f"{'x ' * 200}{text}"):
        assert secret not in tag_value(form)
        assert secret not in tag_value(form, lines=True)


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_secret_stays(text: str) -> None:
    assert tag_value(text) == text


@given(st.text(max_size=300))
def test_scrubbing_twice_changes_nothing(text: str) -> None:
    once = scrub(text)
    assert scrub(once) == once == redact_text(once)


@given(st.text(max_size=200), st.integers(0, 9000))
def test_each_value_can_be_sent(text: str, times: int) -> None:
    value = tag_value(text + "x " * times)
    assert len(value) <= LONGEST_VALUE
    assert value.encode().decode() == value
    assert "\x00" not in value
    assert redact_text(value) == value
    if len(text) + 2 * times > 2 * LONGEST_VALUE:
        assert value.endswith(MARKER)


def test_a_value_at_the_limit_is_whole_and_one_beyond_is_cut() -> None:
    assert tag_value("x" * LONGEST_VALUE) == "x" * LONGEST_VALUE
    assert tag_value("x" * (LONGEST_VALUE + 1)) == "x" * (LONGEST_VALUE - len(MARKER)) + MARKER


@given(st.text(max_size=300))
def test_each_key_is_one_that_mlflow_takes(text: str) -> None:
    key = tag_key(text)
    if key is not None:
        assert len(key) <= 250
        try:
            _validate_tag_name(key)
        except MlflowException:
            pytest.fail(f"MLflow refuses {key!a}")


@pytest.mark.parametrize("key", ["", " ", "a//b", "../a", "/a", "a/./b", "mlflow.runName", "a\nb", "a:b", "a=b"])
def test_a_key_that_mlflow_refuses_or_owns_is_left_out(key: str) -> None:
    assert tag_key(key) is None


def test_a_long_key_is_cut_with_a_marker() -> None:
    assert tag_key("k" * 250) == "k" * 250
    cut = tag_key("k" * 251)
    assert cut is not None
    assert len(cut) == 250
    assert cut.endswith(".truncated")


def test_names_of_secrets() -> None:
    assert all(
        map(is_secret_name, ("AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "DB_PASSWORD", "OPENAI_API_KEY", "PGPASSWD"))
    )
    assert not any(map(is_secret_name, ("TICKET", "SLURM_JOB_ID", "COST_CENTRE", "CI_JOB_URL")))
