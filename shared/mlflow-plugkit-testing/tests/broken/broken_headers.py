"""Request header providers that are wrong, each in the way that its name says."""

from __future__ import annotations

import os
import socket
import threading
import time

import pytest

from mlflow_plugkit_testing.headers import RequestHeaderProviderConformance


class Provider:
    def in_context(self):
        return bool(os.environ.get("BROKEN_TEAM", "").isalnum())

    def request_headers(self):
        return {"X-Team": os.environ["BROKEN_TEAM"]}


class Rules(RequestHeaderProviderConformance):
    provider_class = Provider
    variables = ("BROKEN_TEAM",)

    @pytest.fixture
    def configured(self, monkeypatch):
        monkeypatch.setenv("BROKEN_TEAM", "vision")
        return {"X-Team": "vision"}


class TestAlwaysActive(Rules):
    breaks = {"test_inactive_when_unconfigured": "although nothing is configured"}

    class provider_class(Provider):
        def in_context(self):
            return True


class TestNeverActive(Rules):
    breaks = {
        "test_active_when_configured": "with the configuration present; MLflow expects True",
        "test_headers_reach_the_server": "headers that did not reach the server: ['X-Team']",
    }

    class provider_class(Provider):
        def in_context(self):
            return False


class TestValueOfNone(Rules):
    breaks = {"test_headers_are_text": "leave a header out instead of None"}

    class provider_class(Provider):
        def request_headers(self):
            return {"X-Team": None}


class TestPairsInsteadOfADictionary(Rules):
    breaks = {"test_headers_are_text": "not a dict"}

    class provider_class(Provider):
        def request_headers(self):
            return [("X-Team", "vision")]


class TestValuesTakenAsTheyCome(Rules):
    breaks = {"test_headers_are_legal": "illegal headers, which requests refuses"}

    class provider_class(Provider):
        def in_context(self):
            return "BROKEN_TEAM" in os.environ


class TestNameWithABlank(Rules):
    breaks = {"test_headers_are_legal": "name 'X Team'"}

    class provider_class(Provider):
        def request_headers(self):
            return {"X Team": "vision"}


class TestAuthorizationFromAHeaderProvider(Rules):
    breaks = {"test_no_reserved_headers": "reserved headers ['Authorization']"}

    class provider_class(Provider):
        def request_headers(self):
            return {"Authorization": "Bearer x"}


class TestConnectionHeader(Rules):
    breaks = {"test_no_reserved_headers": "reserved headers ['transfer-encoding']"}

    class provider_class(Provider):
        def request_headers(self):
            return {"transfer-encoding": "chunked"}


class TestUserAgentInAnotherCase(Rules):
    breaks = {"test_mlflows_headers_survive": "spell the name as MLflow does"}

    class provider_class(Provider):
        def request_headers(self):
            return {"user-agent": "team/1"}


class TestHeaderOfMlflow(Rules):
    breaks = {"test_mlflows_headers_survive": "headers that MLflow itself sets: ['Content-Type']"}

    class provider_class(Provider):
        def request_headers(self):
            return {"Content-Type": "text/plain"}


class TestProviderThatRaises(Rules):
    breaks = {"test_never_raises": "raised with BROKEN_TEAM="}

    class provider_class(Provider):
        def in_context(self):
            return os.environ.get("BROKEN_TEAM", "").encode("ascii").isalnum()


class TestSlowHeaders(Rules):
    breaks = {"test_calls_are_cheap": "to each HTTP request of MLflow"}

    class provider_class(Provider):
        def request_headers(self):
            time.sleep(0.01)
            return super().request_headers()


class TestHeadersFetchedEachTime(Rules):
    breaks = {"test_calls_connect_nowhere": "fetched anew for each HTTP request"}

    class provider_class(Provider):
        def request_headers(self):
            with socket.socket() as s:
                s.connect_ex(("127.0.0.1", 9))
            return super().request_headers()


class TestHeadersThatDifferBetweenThreads(Rules):
    breaks = {"test_threads_share_the_provider": "parallel threads get different headers"}

    class provider_class(Provider):
        def request_headers(self):
            return {f"X-Thread-{threading.get_ident()}": "1"}


class TestHeadersOfTheFirstThreadOnly(Rules):
    breaks = {"test_threads_share_the_provider": "a thread failed while another one used the provider"}

    class provider_class(Provider):
        def __init__(self):
            self.local = threading.local()
            self.local.team = "vision"

        def request_headers(self):
            return {"X-Team": self.local.team}
