"""A correct request header provider passes every rule."""

from __future__ import annotations

import os
import re

import pytest

from mlflow_plugkit_testing.headers import RequestHeaderProviderConformance


class TeamHeaders:
    def in_context(self):
        return bool(self._team())

    def request_headers(self):
        return {"X-Team": self._team(), "User-Agent": "team/1"}

    def _team(self):
        return re.sub(r"[^\x21-\x7e]+", "", os.environ.get("GOOD_TEAM", ""))[:200]


class TestTeamHeaders(RequestHeaderProviderConformance):
    provider_class = TeamHeaders
    variables = ("GOOD_TEAM",)

    @pytest.fixture
    def configured(self, monkeypatch):
        monkeypatch.setenv("GOOD_TEAM", "vision")
        return {"X-Team": "vision"}


class TestHeadersThatTheTestCannotKnow(TestTeamHeaders):
    @pytest.fixture
    def configured(self, monkeypatch):
        monkeypatch.setenv("GOOD_TEAM", "vision")
