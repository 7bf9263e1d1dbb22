"""Indices: made once however many come first, described by templates, and never touched where they are newer."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from things import THINGS

from mlflow_plugkit_elasticsearch import Action, Documents, Index, bulk
from mlflow_plugkit_elasticsearch.queries import MATCH_ALL, equals, key_equals, term
from mlflow_plugkit_elasticsearch.upgrade import state_of, upgrade
from mlflow_plugkit_testing.stores import refused, together

pytestmark = pytest.mark.once

OLD = Index("old", {"number": {"type": "long"}, "name": {"type": "keyword"}})
MORE = dataclasses.replace(OLD, version=2, properties={**OLD.properties, "further": {"type": "keyword"}})
OTHER = dataclasses.replace(
    OLD,
    version=3,
    properties={**OLD.properties, "number": {"type": "keyword"}, "tokens": {"type": "keyword", "doc_values": False}},
    derived=("tokens",),
    rebuild="things:with_tokens",
)
FIRST_USE = """
import sys
from mlflow_plugkit_elasticsearch import Documents, ElasticsearchSettings
sys.path.insert(0, sys.argv[2])
from things import THINGS
docs = Documents.of(ElasticsearchSettings.from_uri(sys.argv[1]))
docs.create(THINGS, sys.argv[3], {"number": 1})
print("made")
"""


def again(docs: Documents, **changes: Any) -> Documents:
    """The same prefix as a process that has just started sees it."""
    return Documents(dataclasses.replace(docs.cluster.settings, **changes))


def stored(docs: Documents, index: Index) -> Any:
    answer = docs.cluster.request("GET", f"/{docs.schema.alias(index)}", "look")
    return next(iter(answer.body.items()))


def test_an_index_is_made_by_the_first_write(docs: Documents) -> None:
    """Reading where there is none finds nothing and makes nothing."""
    assert docs.get(THINGS, "x") is None
    assert docs.get_many(THINGS, ["x"]) == {}
    assert docs.get_each([(THINGS, "x"), (OLD, "x")]) == [None, None]
    assert docs.count(THINGS, MATCH_ALL) == 0
    assert docs.delete_where(THINGS, MATCH_ALL, "number") == 0
    assert docs.delete(THINGS, "x") is False
    assert docs.schema.stored_version(THINGS) is None
    docs.create(THINGS, "x", {"number": 1})
    assert docs.schema.stored_version(THINGS) == 1


def test_an_index_is_as_it_is_described(docs: Documents) -> None:
    """Alias, mapping, settings and template; nothing is mapped by itself."""
    docs.create(THINGS, "x", {"number": 1, "unknown": {"a": 1}, "tokens": ["t"], "kept": {".": 1, "a..b": 2}})
    name, found = stored(docs, THINGS)
    prefix = docs.cluster.settings.prefix
    assert name == f"{prefix}-things-v1"
    assert found["aliases"] == {f"{prefix}-things": {"is_write_index": True}}
    assert found["mappings"]["dynamic"] == "false"
    assert set(found["mappings"]["properties"]) == set(THINGS.properties)
    assert found["settings"]["index"]["number_of_shards"] == "1"
    read = docs.get(THINGS, "x")
    assert read is not None
    assert "tokens" not in read.source
    assert read.source["kept"] == {".": 1, "a..b": 2}
    assert docs.count(THINGS, equals("tokens", "t")) == 1
    template = docs.cluster.request("GET", f"/_index_template/{prefix}-things", "look").body["index_templates"][0]
    assert template["index_template"]["index_patterns"] == [f"{prefix}-things-v*"]
    assert template["index_template"]["template"]["mappings"]["_meta"] == {"plugkit_schema": 1}


def test_shards_and_replicas_are_settings(docs: Documents) -> None:
    """A number of replicas is set as it is; a range expands with the nodes."""
    docs.create(OLD, "x", {"number": 1})
    assert stored(docs, OLD)[1]["settings"]["index"]["auto_expand_replicas"] == "0-1"
    other = again(docs, shards=3, replicas="0")
    other.create(THINGS, "x", {"number": 1})
    settings = stored(docs, THINGS)[1]["settings"]["index"]
    assert (settings["number_of_shards"], settings["number_of_replicas"]) == ("3", "0")


def test_processes_and_threads_may_come_first_together(docs: Documents, uri: str) -> None:
    """Whoever loses the race finds the index there; nobody fails."""
    command = [sys.executable, "-c", FIRST_USE, uri, __file__.rpartition("/")[0]]
    started = [
        subprocess.Popen([*command, f"p{n}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for n in range(3)
    ]
    stores = [again(docs) for _ in range(8)]
    made = together(8, lambda n: stores[n].create(THINGS, f"t{n}", {"number": n}).id)
    assert made == [f"t{n}" for n in range(8)]
    for process in started:
        out, error = process.communicate(timeout=120)
        assert out == "made\n", error
    docs.written(THINGS)
    assert docs.count(THINGS, MATCH_ALL) == 11


def test_an_index_that_was_deleted_is_made_anew(docs: Documents) -> None:
    """An alias is required of every write, so that no index of guessed mappings takes its name."""
    docs.create(THINGS, "x", {"number": 1})
    docs.cluster.request("DELETE", f"/{docs.schema.alias(THINGS)}-v1", "delete it behind its back")
    docs.create(THINGS, "y", {"number": 2})
    assert set(stored(docs, THINGS)[1]["mappings"]["properties"]) == set(THINGS.properties)


def test_a_newer_schema_is_refused(docs: Documents) -> None:
    """Reading is refused by `check`, writing by first use, upgrading at once; nothing is changed."""
    docs.create(MORE, "x", {"number": 1})
    for call in (
        lambda: again(docs).create(OLD, "y", {"number": 2}),
        lambda: again(docs).schema.check(OLD),
        lambda: upgrade(again(docs), OLD),
    ):
        with refused("INVALID_STATE", "a newer schema"):
            call()
    assert state_of(docs, OLD).verdict == "newer"
    assert docs.count(MORE, MATCH_ALL) == 1


def test_additions_are_made_at_first_use(docs: Documents) -> None:
    """A server of the new version needs no command for them."""
    docs.create(OLD, "x", {"number": 1})
    assert state_of(docs, MORE).verdict == "older"
    new = again(docs)
    new.create(MORE, "y", {"number": 2, "further": "f"})
    assert new.count(MORE, term("further", "f")) == 1
    assert state_of(new, MORE).verdict == "current"


def test_the_upgrade_extends_or_rebuilds(docs: Documents) -> None:
    """Version 2 only adds; version 3 changes a type and derives a field, and so gets a new index behind the alias."""
    bulk(docs, [Action("create", OLD, f"d{n}", {"number": n, "name": f"name{n % 7}"}) for n in range(2_500)])
    said: list[str] = []
    assert upgrade(again(docs), OLD) is False
    assert upgrade(again(docs), MORE, said.append) is True
    assert stored(docs, OLD)[0].endswith("-old-v1")
    with refused("INVALID_STATE", "a write that needs a rebuilt index"):
        again(docs).create(OTHER, "z", {"number": "1"})
    assert upgrade(again(docs), OTHER, said.append) is True
    assert upgrade(again(docs), OTHER, said.append) is False
    name, found = stored(docs, OTHER)
    assert name.endswith("-old-v3")
    assert found["mappings"]["properties"]["number"] == {"type": "keyword"}
    new = again(docs)
    assert new.count(OTHER, key_equals("tokens", "name", "name3")) == 357
    read = new.get(OTHER, "d2499")
    assert read is not None
    assert (read.source["number"], "tokens" in read.source) == ("2499", False)
    new.put(OTHER, "d0", {"number": "0", "name": "changed"})
    assert [line.split(":")[0] for line in said] == ["old", "old"]
    assert "2500 documents were copied" in said[1]


def test_an_upgrade_that_was_cut_off_goes_on(docs: Documents, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the alias has moved, the old index serves readers; running it again finishes it."""
    bulk(docs, [Action("create", OLD, f"d{n}", {"number": n, "name": "x"}) for n in range(1_200)])
    request = docs.cluster.request
    sent: list[str] = []

    def cut(method: str, path: str, *args: Any, **kwargs: Any) -> Any:
        sent.append(path)
        if sent.count("/_bulk") == 2:
            raise KeyboardInterrupt
        return request(method, path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(docs.cluster, "request", cut)
        with pytest.raises(KeyboardInterrupt):
            upgrade(docs, OTHER)
    survivor = again(docs)
    assert survivor.count(OLD, MATCH_ALL) == 1_200
    with refused("TEMPORARILY_UNAVAILABLE", "a write while the index is closed to them"):
        survivor.put(OLD, "d0", {"number": 0})
    assert upgrade(survivor, OTHER)
    assert again(docs).count(OTHER, MATCH_ALL) == 1_200


def test_an_index_whose_derived_fields_nobody_computes_is_not_rebuilt(docs: Documents) -> None:
    """Copying would lose them, so nothing is touched."""
    docs.create(OLD, "x", {"number": 1})
    with refused("INVALID_STATE", "an index without a rebuild function"):
        upgrade(docs, dataclasses.replace(OTHER, rebuild=""))
    docs.put(OLD, "x", {"number": 2})


def test_without_leave_to_create_a_missing_index_is_named(docs: Documents) -> None:
    """The message says who can make it; reading stays possible."""
    closed = again(docs, create=False)
    assert closed.count(THINGS, MATCH_ALL) == 0
    with pytest.raises(MlflowException, match="mlflow-elasticsearch bootstrap") as error:
        closed.create(THINGS, "x", {"number": 1})
    assert error.value.error_code == "RESOURCE_DOES_NOT_EXIST"
    docs.create(THINGS, "x", {"number": 1})
    assert closed.put(THINGS, "x", {"number": 2}).source["number"] == 2


@pytest.mark.parametrize("body", [{"properties": {"a": {"type": "nonsense"}}}, {"settings": {"nonsense": 1}}])
def test_a_refused_index_has_a_name(docs: Documents, body: dict[str, Any]) -> None:
    """It says which index could not be made, and why."""
    wrong = Index("wrong", body.get("properties", {}), settings=body.get("settings", {}))
    with pytest.raises(MlflowException) as error:
        docs.create(wrong, "x", {})
    assert error.value.error_code == "INTERNAL_ERROR"
    assert "wrong" in str(error.value)


def test_a_security_role_of_the_least_privileges_is_enough(
    docs: Documents,
) -> None:
    """A key restricted to what `mlflow-elasticsearch role` prints may do everything a store does, and nothing else."""
    from mlflow_plugkit_elasticsearch.roles import role

    answer = docs.cluster.request("GET", "/_security/_authenticate", "look", accepted=(400, 405))
    if answer.status != 200:
        pytest.skip("this node has no security (x-pack): ELASTICSEARCH_URL may name one that has")
    prefix = docs.cluster.settings.prefix
    again(docs, api_key=_key(docs, role(prefix, manages=True))).create(THINGS, "x", {"number": 1})
    using = again(docs, api_key=_key(docs, role(prefix, manages=False)))
    using.update(THINGS, "x", lambda s: s | {"number": 2})
    assert using.count(THINGS, MATCH_ALL) == 1
    assert using.get_each([(THINGS, "x")])[0] is not None
    assert using.delete(THINGS, "x")
    with refused("PERMISSION_DENIED", "an index beside the prefix"):
        using.cluster.request("GET", "/other-index/_search", "look")


def _key(docs: Documents, role: dict[str, Any]) -> Any:
    from pydantic import SecretStr

    body = {"name": "plugkit-test", "expiration": "10m", "role_descriptors": {"r": json.loads(json.dumps(role))}}
    return SecretStr(docs.cluster.request("POST", "/_security/api_key", "make a key", body).body["encoded"])
