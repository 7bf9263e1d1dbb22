"""Target URI, environment and configuration; and what stands in the README of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from mlflow_local_deploy.config import Config, keys_table
from mlflow_local_deploy.deployment import LocalDeploymentClient, target_help
from mlflow_local_deploy.keys import key_for
from mlflow_local_deploy.revision import changed, hashed
from mlflow_local_deploy.settings import LocalSettings


def test_the_state_folder_comes_from_the_target_or_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert LocalSettings.of_target("local").root == Path("~/.mlflow-local-deploy").expanduser()
    monkeypatch.setenv("MLFLOW_LOCAL_DEPLOY_FOLDER", "relative")
    assert LocalSettings.of_target("local").root == Path.cwd() / "relative"
    assert LocalSettings.of_target("local:/a/b").root == Path("/a/b")


@pytest.mark.parametrize("target", ["local://host/path", "local:relative", "local:?x=1", "other:/a"])
def test_other_targets_are_refused(target: str) -> None:
    with pytest.raises(MlflowException) as raised:
        LocalDeploymentClient(target)
    assert raised.value.error_code == "INVALID_PARAMETER_VALUE"


def test_nothing_is_made_by_making_a_client(tmp_path: Path) -> None:
    client = LocalDeploymentClient(f"local:{tmp_path}/state")
    assert client.list_deployments() == client.list_endpoints() == []
    client.delete_deployment("nothing")
    client.delete_endpoint("nothing")
    assert list(tmp_path.iterdir()) == []


def test_values_are_read_from_the_command_line_and_from_python() -> None:
    given = {"workers": "3", "timeout-seconds": "2.5", "access_log": "true", "env": "A=1,B=x=y", "traffic": "10"}
    read = Config.read(given, "deployment")
    assert (read.workers, read.timeout_seconds, read.access_log) == (3, 2.5, True)
    assert (read.env, read.traffic) == ({"A": "1", "B": "x=y"}, {"": 10.0})
    assert Config.read({"env": '{"A": "1"}', "workers": 3}, "deployment", read).env == {"A": "1"}
    assert Config.read({"traffic": "a=9,b=1", "shadow": {"c": 5}}, "endpoint").traffic == {"a": 9.0, "b": 1.0}
    assert Config.read(None, "deployment", read) == read


@pytest.mark.parametrize(
    ("given", "kind", "word"),
    [
        ({"worker": 1}, "deployment", "'workers'"),
        ({"zzz": 1}, "deployment", "Known keys"),
        ({"shadow": {"a": 1}}, "deployment", "none of deployments"),
        ({"env_manager": "local"}, "endpoint", "none of endpoints"),
        ({"workers": 0}, "deployment", "not in 1 to 256"),
        ({"workers": "many"}, "deployment", "workers"),
        ({"port": 70000}, "deployment", "port"),
        ({"env_manager": "docker"}, "deployment", "env_manager"),
        ({"env": "{"}, "deployment", "JSON"),
        ({"env": "A"}, "deployment", "A=1,B=2 or JSON"),
        ({"env": {"A=B": "x"}}, "deployment", "A=B"),
        ({"env": {"": "x"}}, "deployment", "variable ''"),
        ({"env": {"A": "x\0"}}, "deployment", "NUL"),
        ({"model_config": "file.json"}, "deployment", "JSON"),
        ({"timeout_seconds": "inf"}, "deployment", "inf"),
        ({"traffic": "a=inf"}, "endpoint", "inf"),
        ({"traffic": {"a": -1}}, "endpoint", "traffic"),
        ({"traffic": "a=much"}, "endpoint", "traffic"),
    ],
)
def test_bad_configurations_are_refused_and_the_nearest_key_named(
    given: dict[str, object], kind: str, word: str
) -> None:
    with pytest.raises(MlflowException, match=word) as raised:
        Config.read(given, kind)
    assert raised.value.error_code == "INVALID_PARAMETER_VALUE"


@pytest.mark.parametrize("name", ["", "a/b", "../a", ".hidden", "a b", "a" * 64, "\u00e4", "-a"])
def test_names_that_could_be_no_folder_are_refused(tmp_path: Path, name: str) -> None:
    client = LocalDeploymentClient(f"local:{tmp_path}")
    for call in (client.get_deployment, client.delete_deployment, client.create_endpoint):
        with pytest.raises(MlflowException, match="is no name") as raised:
            call(name)
        assert raised.value.error_code == "INVALID_PARAMETER_VALUE"


class TestTheKey:
    """Where it comes from, and how it is kept."""

    def settings(self, **environ: str) -> LocalSettings:
        return LocalSettings.from_env(environ)

    def test_it_comes_from_the_environment_or_a_file_without_a_word(self, tmp_path: Path) -> None:
        file = tmp_path / "key"
        file.write_text("0123456789abcdef\n")
        assert key_for(Config(), self.settings(MLFLOW_LOCAL_DEPLOY_API_KEY_FILE=str(file))) == "0123456789abcdef"
        assert key_for(Config(), self.settings()) is None
        assert (
            key_for(Config.read({"api_key": "none"}, "deployment"), self.settings(MLFLOW_LOCAL_DEPLOY_API_KEY="x"))
            is None
        )

    def test_in_the_configuration_it_is_warned_about(self, monkeypatch: pytest.MonkeyPatch) -> None:
        config = Config.read({"api_key": "0123456789abcdef"}, "deployment")
        assert "0123456789abcdef" not in repr(config)
        with pytest.warns(UserWarning, match="MLFLOW_LOCAL_DEPLOY_API_KEY_FILE"):
            assert key_for(config, self.settings()) == "0123456789abcdef"
        monkeypatch.setenv("MLFLOW_PLUGKIT_STRICT", "true")
        with pytest.raises(MlflowException, match="Refused"):
            key_for(config, self.settings())

    def test_a_deployment_open_to_the_network_without_one_is_warned_about(self) -> None:
        with pytest.warns(UserWarning, match="other machines"):
            key_for(Config.read({"host": "0.0.0.0"}, "deployment"), self.settings())

    def test_it_is_kept_so_that_it_cannot_be_had_back(self) -> None:
        stored = hashed("0123456789abcdef")
        assert stored is not None
        assert "0123456789abcdef" not in repr(stored)
        assert changed(stored, "0123456789abcdef") is stored
        assert changed(stored, "fedcba9876543210") != stored
        assert hashed("0123456789abcdef") != stored, "each has its own salt"
        with pytest.raises(MlflowException, match="16 characters"):
            hashed("short")


def test_a_flavor_that_mlflows_server_does_not_serve_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MlflowException, match="python_function"):
        LocalDeploymentClient(f"local:{tmp_path}").create_deployment("d", "models:/m/1", flavor="sklearn")


def test_the_readme_and_the_help_show_every_key() -> None:
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    assert keys_table() in readme
    assert keys_table() in target_help()
