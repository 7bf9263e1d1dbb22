"""Request auth providers that are wrong, each in the way that its name says."""

from __future__ import annotations

import base64
import logging
import os
import socket
import tempfile
import time

import pytest
import requests

from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_testing.auth import Credentials, RequestAuthProviderConformance

SECRET = "broken-s3cret-token"


class Auth(requests.auth.AuthBase):
    def __init__(self, token):
        self.token = token

    def __call__(self, request):
        request.headers["Authorization"] = f"Bearer {self.token}"
        return request


class Provider:
    auth = Auth

    def get_name(self):
        return "broken"

    def get_auth(self):
        return self.auth(self.token())

    def token(self):
        if "BROKEN_TOKEN" not in os.environ:
            raise mlflow_error("There is no token. Set BROKEN_TOKEN.")
        return os.environ["BROKEN_TOKEN"]


class Rules(RequestAuthProviderConformance):
    provider_class = Provider
    variables = ("BROKEN_TOKEN",)

    @pytest.fixture
    def configured(self, monkeypatch):
        monkeypatch.setenv("BROKEN_TOKEN", SECRET)
        return Credentials(secrets=(SECRET,), value=f"Bearer {SECRET}")


class TestConstructorWithAnArgument(Rules):
    breaks = {"test_constructor_takes_nothing": "cannot be constructed without arguments"}

    class provider_class(Provider):
        def __init__(self, token):
            self.token = token


class TestConstructorThatNeedsConfiguration(Rules):
    breaks = {"test_constructor_takes_nothing": "cannot be constructed without arguments"}

    class provider_class(Provider):
        def __init__(self):
            self.token()


class TestConstructorThatWritesAFile(Rules):
    breaks = {"test_constructor_does_no_io": "does input and output while MLflow is being imported"}

    class provider_class(Provider):
        def __init__(self):
            with tempfile.TemporaryFile() as f:
                f.write(b"x")


class TestConstructorThatConnects(Rules):
    breaks = {"test_constructor_does_no_io": "does input and output while MLflow is being imported"}

    class provider_class(Provider):
        def __init__(self):
            with socket.socket() as s:
                s.connect_ex(("127.0.0.1", 9))


class TestConstructorThatTakesItsTime(Rules):
    breaks = {"test_constructor_is_fast": "ms of everybody's import mlflow"}

    class provider_class(Provider):
        def __init__(self):
            time.sleep(0.06)


class TestNameWithABlank(Rules):
    breaks = {"test_name_selects_the_provider": "a name with blanks is easily mistyped"}

    class provider_class(Provider):
        def get_name(self):
            return "broken provider"


class TestOtherNameThanDocumented(Rules):
    breaks = {"test_name_selects_the_provider": "the documented name is 'documented'"}
    provider_name = "documented"


class TestNameOfABuiltIn(Rules):
    breaks = {"test_name_is_not_taken": "another provider is called 'kubernetes' as well"}

    class provider_class(Provider):
        def get_name(self):
            return "kubernetes"


class TestAuthThatIsADictionary(Rules):
    breaks = {"test_get_auth_is_an_auth_object": "which requests does not accept as auth"}

    class provider_class(Provider):
        def get_auth(self):
            return {"Authorization": "x"}


class TestHeaderUnderAnotherName(Rules):
    breaks = {"test_credentials_reach_the_server": "did not arrive in the header 'Authorization'"}

    class provider_class(Provider):
        class auth(Auth):
            def __call__(self, request):
                request.headers["X-Token"] = self.token
                return request


class TestPoliteProvider(Rules):
    """Leaves an Authorization header alone that is there already."""

    breaks = {"test_credentials_win_over_others": "won over the selected auth provider"}

    class provider_class(Provider):
        class auth(Auth):
            def __call__(self, request):
                request.headers.setdefault("Authorization", f"Bearer {self.token}")
                return request


class TestProviderThatReadsTheBody(Rules):
    """Hashes the body for a signature, and leaves an uploaded file at its end."""

    breaks = {"test_body_is_intact": "the provider changed the request's body"}

    class provider_class(Provider):
        class auth(Auth):
            def __call__(self, request):
                if hasattr(request.body, "read"):
                    request.body.read()
                return super().__call__(request)


def resending(limit):
    class Resending(Auth):
        def __call__(self, request):
            count = [0]

            def again(response, **kwargs):
                while response.status_code == 401 and count[0] < limit:
                    count[0] += 1
                    response.content  # noqa: B018
                    new = response.request.copy()
                    new.headers["Authorization"] = f"Bearer {self.token}"
                    response = response.connection.send(new, **kwargs)
                return response

            request.register_hook("response", again)
            return super().__call__(request)

    return Resending


class TestProviderThatResendsWithoutRewinding(Rules):
    breaks = {"test_body_is_intact": "the provider changed the request's body"}

    class provider_class(Provider):
        auth = resending(1)


class TestProviderThatNeverGivesUp(Rules):
    breaks = {"test_refusal_ends": "one call became"}

    class provider_class(Provider):
        auth = resending(8)


class TestProviderThatFollowsARedirect(Rules):
    """Its hook answers the 401 of any host with the credentials."""

    breaks = {"test_credentials_stay_with_their_host": "followed a redirect to another host"}

    class provider_class(Provider):
        class auth(Auth):
            def __call__(self, request):
                def again(response, **kwargs):
                    if response.status_code != 401 or "Authorization" in response.request.headers:
                        return response
                    new = response.request.copy()
                    new.url = response.url
                    new.headers["Authorization"] = f"Bearer {self.token}"
                    return response.connection.send(new, **kwargs)

                request.register_hook("response", again)
                return super().__call__(request)


class TestOwnHeaderThatFollowsARedirect(Rules):
    """requests takes only Authorization off when a redirect leaves the host."""

    breaks = {"test_credentials_stay_with_their_host": "followed a redirect to another host (header 'X-Key')"}

    class provider_class(Provider):
        class auth(Auth):
            def __call__(self, request):
                request.headers["X-Key"] = self.token
                return request

    @pytest.fixture
    def configured(self, monkeypatch):
        monkeypatch.setenv("BROKEN_TOKEN", SECRET)
        return Credentials(secrets=(SECRET,), header="X-Key")


class TestAuthWithATalkativeRepr(Rules):
    breaks = {"test_secrets_are_not_in_repr": "printing the provider or its auth object shows a secret"}

    class provider_class(Provider):
        class auth(Auth):
            def __repr__(self):
                return f"Auth({self.token})"


class TestTupleAuth(Rules):
    breaks = {"test_secrets_are_not_in_repr": "printing the provider or its auth object shows a secret"}

    class provider_class(Provider):
        def get_auth(self):
            return ("user", self.token())

    @pytest.fixture
    def configured(self, monkeypatch):
        monkeypatch.setenv("BROKEN_TOKEN", SECRET)
        basic = base64.b64encode(f"user:{SECRET}".encode()).decode()
        return Credentials(secrets=(SECRET, basic), value=f"Basic {basic}")


class TestProviderThatLogsItsToken(Rules):
    breaks = {"test_secrets_are_not_logged": "a secret stands in the log, a warning or the terminal"}

    class provider_class(Provider):
        def token(self):
            logging.getLogger("broken").debug("token %s", super().token())
            return super().token()


class TestProviderThatPrintsItsToken(Rules):
    breaks = {"test_secrets_are_not_logged": "a secret stands in the log, a warning or the terminal"}

    class provider_class(Provider):
        def token(self):
            print(super().token())
            return super().token()


class TestErrorWithTheToken(Rules):
    breaks = {"test_secrets_are_not_in_errors": "the error after refused credentials shows a secret"}

    class provider_class(Provider):
        class auth(Auth):
            def __call__(self, request):
                def check(response, **kwargs):
                    if response.status_code == 401:
                        raise ValueError(f"{self.token} was refused")

                request.register_hook("response", check)
                return super().__call__(request)


class TestErrorThatSaysNothing(Rules):
    breaks = {"test_missing_configuration_is_explained": "names no variable and no command that would help"}

    class provider_class(Provider):
        def token(self):
            if "BROKEN_TOKEN" not in os.environ:
                raise mlflow_error("Something is missing.")
            return super().token()


class TestErrorOfAnotherKind(Rules):
    breaks = {"test_missing_configuration_is_explained": "MLflow expects an MlflowException"}

    class provider_class(Provider):
        def token(self):
            return os.environ["BROKEN_TOKEN"]


class TestProviderThatStaysSilentWithoutToken(Rules):
    breaks = {
        "test_nothing_is_sent_without_credentials": "the request was sent unauthenticated",
        "test_missing_configuration_is_explained": "MLflow expects an MlflowException",
    }

    class provider_class(Provider):
        def get_auth(self):
            return self.auth(self.token()) if "BROKEN_TOKEN" in os.environ else None


class TestSlowGetAuth(Rules):
    breaks = {"test_get_auth_is_cheap": "for each HTTP request of MLflow"}

    class provider_class(Provider):
        def get_auth(self):
            time.sleep(0.01)
            return super().get_auth()


class TestGetAuthThatConnectsEachTime(Rules):
    breaks = {"test_get_auth_keeps_its_credentials": "fetched anew for each HTTP request"}

    class provider_class(Provider):
        def token(self):
            with socket.socket() as s:
                s.connect_ex(("127.0.0.1", 9))
            return super().token()


class TestGetAuthThatIsNotThreadSafe(Rules):
    """While the first thread fetches, the others go without."""

    breaks = {"test_threads_share_the_provider": "parallel requests went out without valid credentials"}

    class provider_class(Provider):
        cached = None

        def get_auth(self):
            if self.cached is None:
                self.cached = lambda request: request
                time.sleep(0.1)
                self.cached = super().get_auth()
            return self.cached
