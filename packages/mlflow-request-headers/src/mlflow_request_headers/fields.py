"""The fields that a template may name: `{user}`, `{ci.job}` and so on.

The tables are data: a field is the first of its variables that is set. Names of the variables from
GitHub (docs.github.com, "Variables reference"), GitLab (docs.gitlab.com, "Predefined CI/CD variables
reference"), Jenkins (jenkins.io, "Using environment variables"), Buildkite (buildkite.com, "Environment
variables"), CircleCI (circleci.com, "Project values and variables"), Azure (learn.microsoft.com, "Use
predefined variables"), Bitbucket (support.atlassian.com, "Variables and secrets"), TeamCity (jetbrains.com,
"List of Predefined Build Parameters"), Slurm (slurm.schedmd.com, sbatch), LSF (ibm.com, "Environment
variables set for job execution") and PBS (openpbs.org, qsub).
"""

from __future__ import annotations

import getpass
import os
import platform
import socket
import sys
from collections.abc import Callable, Mapping
from functools import cache

FROM_ENVIRONMENT: Mapping[str, tuple[str, ...]] = {
    "environment": ("MLFLOW_ENVIRONMENT", "DEPLOYMENT_ENVIRONMENT", "APP_ENV", "ENVIRONMENT"),
    "cost_centre": ("COST_CENTRE", "COST_CENTER"),
    "cost_center": ("COST_CENTER", "COST_CENTRE"),
    "team": ("TEAM",),
    "ci.job": (
        "GITHUB_JOB", "CI_JOB_NAME", "BUILDKITE_LABEL", "CIRCLE_JOB", "SYSTEM_JOBDISPLAYNAME",
        "BITBUCKET_STEP_UUID", "TEAMCITY_BUILDCONF_NAME", "JOB_NAME",
    ),
    "ci.run": (
        "GITHUB_RUN_ID", "CI_PIPELINE_ID", "BUILDKITE_BUILD_NUMBER", "CIRCLE_WORKFLOW_ID", "BUILD_BUILDID",
        "BITBUCKET_BUILD_NUMBER", "BUILD_NUMBER",
    ),
    "ci.project": (
        "GITHUB_REPOSITORY", "CI_PROJECT_PATH", "BUILDKITE_PIPELINE_SLUG", "CIRCLE_PROJECT_REPONAME",
        "BUILD_REPOSITORY_NAME", "BITBUCKET_REPO_FULL_NAME", "TEAMCITY_PROJECT_NAME",
    ),
    "ci.url": ("CI_JOB_URL", "BUILDKITE_BUILD_URL", "CIRCLE_BUILD_URL", "BUILD_URL"),
    "ci.commit": (
        "GITHUB_SHA", "CI_COMMIT_SHA", "BUILDKITE_COMMIT", "CIRCLE_SHA1", "BUILD_SOURCEVERSION",
        "BITBUCKET_COMMIT", "BUILD_VCS_NUMBER", "GIT_COMMIT",
    ),
    "job.id": ("SLURM_JOB_ID", "LSB_JOBID", "PBS_JOBID"),
}  # fmt: skip


@cache
def _user() -> str:
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):  # no entry in the user database: a container's arbitrary uid
        return str(os.getuid()) if hasattr(os, "getuid") else ""


@cache
def _host() -> str:
    return socket.gethostname()


COMPUTED: Mapping[str, Callable[[], str]] = {
    "user": _user,
    "host": _host,
    "pid": lambda: str(os.getpid()),
    "python": platform.python_version,
    "script": lambda: os.path.basename(sys.argv[0]) if sys.argv else "",
}
NAMES = (*COMPUTED, *FROM_ENVIRONMENT)


def field_value(name: str) -> str:
    """The field's value now, "" where there is none."""
    compute = COMPUTED.get(name)
    if compute:
        return compute()
    get = os.environ.get
    return next((value for value in map(get, FROM_ENVIRONMENT[name]) if value), "")
