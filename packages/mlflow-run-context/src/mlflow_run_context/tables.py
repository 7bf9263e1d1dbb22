"""CI systems, workflow engines and schedulers as data: which variable says what.

A system is present where one of its markers is set. Its rows are (tag, variables): the first variable that is
set gives the tag. The page that documents the variables stands beside each system; variables that hold tokens
are not among them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class System(NamedTuple):
    """One system.

    Attributes:
        name: the value of the tag that names it.
        source: where its variables are documented.
        markers: variables one of which is set wherever it runs.
        rows: tag to variables, in the order of preference.
    """

    name: str
    source: str
    markers: tuple[str, ...]
    rows: Mapping[str, tuple[str, ...]]


CI = (
    System(
        "github-actions",
        "https://docs.github.com/en/actions/reference/workflows-and-actions/variables",
        ("GITHUB_ACTIONS",),
        {
            "project": ("GITHUB_REPOSITORY",),
            "pipeline": ("GITHUB_WORKFLOW",),
            "run": ("GITHUB_RUN_ID",),
            "attempt": ("GITHUB_RUN_ATTEMPT",),
            "job": ("GITHUB_JOB",),
            "commit": ("GITHUB_SHA",),
            "branch": ("GITHUB_HEAD_REF", "GITHUB_REF_NAME"),
            "event": ("GITHUB_EVENT_NAME",),
            "actor": ("GITHUB_TRIGGERING_ACTOR", "GITHUB_ACTOR"),
            "server": ("GITHUB_SERVER_URL",),
            "runner": ("RUNNER_NAME",),
        },
    ),
    System(
        "gitlab",
        "https://docs.gitlab.com/ci/variables/predefined_variables/",
        ("GITLAB_CI",),
        {
            "project": ("CI_PROJECT_PATH",),
            "pipeline": ("CI_PIPELINE_NAME",),
            "run": ("CI_PIPELINE_ID",),
            "job": ("CI_JOB_NAME",),
            "job_id": ("CI_JOB_ID",),
            "url": ("CI_JOB_URL", "CI_PIPELINE_URL"),
            "commit": ("CI_COMMIT_SHA",),
            "branch": ("CI_COMMIT_BRANCH", "CI_MERGE_REQUEST_SOURCE_BRANCH_NAME", "CI_COMMIT_REF_NAME"),
            "event": ("CI_PIPELINE_SOURCE",),
            "actor": ("GITLAB_USER_LOGIN",),
            "runner": ("CI_RUNNER_DESCRIPTION",),
        },
    ),
    System(
        "buildkite",
        "https://buildkite.com/docs/pipelines/configure/environment-variables",
        ("BUILDKITE",),
        {
            "project": ("BUILDKITE_PIPELINE_SLUG",),
            "pipeline": ("BUILDKITE_PIPELINE_NAME",),
            "run": ("BUILDKITE_BUILD_NUMBER",),
            "attempt": ("BUILDKITE_RETRY_COUNT",),
            "job": ("BUILDKITE_LABEL",),
            "job_id": ("BUILDKITE_JOB_ID",),
            "url": ("BUILDKITE_BUILD_URL",),
            "commit": ("BUILDKITE_COMMIT",),
            "branch": ("BUILDKITE_BRANCH",),
            "event": ("BUILDKITE_SOURCE",),
            "runner": ("BUILDKITE_AGENT_NAME",),
        },
    ),
    System(
        "circleci",
        "https://circleci.com/docs/reference/variables/",
        ("CIRCLECI",),
        {
            "project": ("CIRCLE_PROJECT_REPONAME",),
            "run": ("CIRCLE_WORKFLOW_ID",),
            "job": ("CIRCLE_JOB",),
            "job_id": ("CIRCLE_BUILD_NUM",),
            "url": ("CIRCLE_BUILD_URL",),
            "commit": ("CIRCLE_SHA1",),
            "branch": ("CIRCLE_BRANCH",),
            "actor": ("CIRCLE_USERNAME",),
        },
    ),
    System(
        "azure-pipelines",
        "https://learn.microsoft.com/en-us/azure/devops/pipelines/build/variables",
        ("TF_BUILD",),
        {
            "project": ("SYSTEM_TEAMPROJECT",),
            "pipeline": ("BUILD_DEFINITIONNAME",),
            "run": ("BUILD_BUILDID",),
            "number": ("BUILD_BUILDNUMBER",),
            "attempt": ("SYSTEM_JOBATTEMPT",),
            "job": ("SYSTEM_JOBDISPLAYNAME", "AGENT_JOBNAME"),
            "commit": ("BUILD_SOURCEVERSION",),
            "branch": ("SYSTEM_PULLREQUEST_SOURCEBRANCH", "BUILD_SOURCEBRANCH"),
            "event": ("BUILD_REASON",),
            "runner": ("AGENT_NAME",),
        },
    ),
    System(
        "bitbucket",
        "https://support.atlassian.com/bitbucket-cloud/docs/variables-and-secrets/",
        ("BITBUCKET_BUILD_NUMBER",),
        {
            "project": ("BITBUCKET_REPO_FULL_NAME", "BITBUCKET_REPO_SLUG"),
            "run": ("BITBUCKET_BUILD_NUMBER",),
            "job_id": ("BITBUCKET_STEP_UUID",),
            "commit": ("BITBUCKET_COMMIT",),
            "branch": ("BITBUCKET_BRANCH",),
            "environment": ("BITBUCKET_DEPLOYMENT_ENVIRONMENT",),
        },
    ),
    System(
        "teamcity",
        "https://www.jetbrains.com/help/teamcity/predefined-build-parameters.html",
        ("TEAMCITY_VERSION",),
        {
            "project": ("TEAMCITY_PROJECT_NAME",),
            "pipeline": ("TEAMCITY_BUILDCONF_NAME",),
            "run": ("BUILD_NUMBER",),
            "commit": ("BUILD_VCS_NUMBER",),
            "url": ("BUILD_URL",),
        },
    ),
    System(
        "jenkins",
        "https://www.jenkins.io/doc/book/pipeline/jenkinsfile/#using-environment-variables",
        ("JENKINS_URL", "JENKINS_HOME"),
        {
            "job": ("JOB_NAME",),
            "run": ("BUILD_NUMBER",),
            "url": ("BUILD_URL",),
            "commit": ("GIT_COMMIT",),
            "branch": ("CHANGE_BRANCH", "BRANCH_NAME", "GIT_BRANCH"),
            "runner": ("NODE_NAME",),
        },
    ),
)

WORKFLOWS = (
    System(
        "airflow",
        "https://airflow.apache.org/docs/apache-airflow/stable/howto/operator/bash.html",
        ("AIRFLOW_CTX_DAG_ID",),
        {
            "name": ("AIRFLOW_CTX_DAG_ID",),
            "run": ("AIRFLOW_CTX_DAG_RUN_ID",),
            "task": ("AIRFLOW_CTX_TASK_ID",),
            "attempt": ("AIRFLOW_CTX_TRY_NUMBER",),
            "owner": ("AIRFLOW_CTX_DAG_OWNER",),
        },
    ),
    System(
        "prefect",
        "https://docs.prefect.io/v3/api-ref/python/prefect-runtime-flow_run",
        ("PREFECT__FLOW_RUN_ID",),
        {"run": ("PREFECT__FLOW_RUN_ID",), "name": ("PREFECT__FLOW_NAME",), "worker": ("PREFECT__WORKER_NAME",)},
    ),
    System(
        "dagster",
        "https://docs.dagster.io/guides/deploy (the run launchers of dagster-k8s, -docker, -aws and -celery)",
        ("DAGSTER_RUN_JOB_NAME", "DAGSTER_RUN_ID"),
        {"name": ("DAGSTER_RUN_JOB_NAME",), "run": ("DAGSTER_RUN_ID",), "task": ("DAGSTER_RUN_STEP_KEY",)},
    ),
    System(
        "kubeflow",
        "https://www.kubeflow.org/docs/components/pipelines/ (the executor of the v2 backend)",
        ("KFP_RUN_ID", "KFP_POD_NAME", "KFP_POD_UID"),
        {
            "run": ("KFP_RUN_ID",),
            "pod": ("KFP_POD_NAME",),
            "task": ("ARGO_NODE_ID",),
            "name": ("ARGO_WORKFLOW_NAME",),
        },
    ),
    System(
        "argo",
        "https://argo-workflows.readthedocs.io/en/latest/environment-variables/",
        ("ARGO_NODE_ID", "ARGO_WORKFLOW_NAME"),
        {
            "name": ("ARGO_WORKFLOW_NAME",),
            "run": ("ARGO_WORKFLOW_UID",),
            "task": ("ARGO_NODE_ID",),
            "pod": ("ARGO_POD_NAME",),
        },
    ),
)

SCHEDULERS = (
    System(
        "slurm",
        "https://slurm.schedmd.com/sbatch.html (output environment variables)",
        ("SLURM_JOB_ID",),
        {
            "job_id": ("SLURM_JOB_ID",),
            "job_name": ("SLURM_JOB_NAME",),
            "array_job_id": ("SLURM_ARRAY_JOB_ID",),
            "array_task_id": ("SLURM_ARRAY_TASK_ID",),
            "cluster": ("SLURM_CLUSTER_NAME",),
            "partition": ("SLURM_JOB_PARTITION",),
            "account": ("SLURM_JOB_ACCOUNT",),
            "qos": ("SLURM_JOB_QOS",),
            "nodes": ("SLURM_JOB_NUM_NODES",),
            "node_list": ("SLURM_JOB_NODELIST",),
            "tasks": ("SLURM_NTASKS",),
            "rank": ("SLURM_PROCID",),
            "cpus_per_task": ("SLURM_CPUS_PER_TASK",),
            "gpus": ("SLURM_JOB_GPUS", "SLURM_GPUS_ON_NODE"),
            "memory_per_node_mib": ("SLURM_MEM_PER_NODE",),
            "restarts": ("SLURM_RESTART_COUNT",),
            "submit_host": ("SLURM_SUBMIT_HOST",),
        },
    ),
    System(
        "lsf",
        "https://www.ibm.com/docs/en/spectrum-lsf/10.1.0?topic=variables-environment-set-job-execution",
        ("LSB_JOBID",),
        {
            "job_id": ("LSB_JOBID",),
            "job_name": ("LSB_JOBNAME",),
            "array_index": ("LSB_JOBINDEX",),
            "queue": ("LSB_QUEUE",),
            "hosts": ("LSB_HOSTS",),
            "slots": ("LSB_DJOB_NUMPROC",),
            "submit_host": ("LSB_SUB_HOST",),
        },
    ),
    System(
        "pbs",
        "https://manpages.ubuntu.com/manpages/xenial/man1/qsub.1B.html (environment variables)",
        ("PBS_JOBID",),
        {
            "job_id": ("PBS_JOBID",),
            "job_name": ("PBS_JOBNAME",),
            "array_index": ("PBS_ARRAY_INDEX", "PBS_ARRAYID"),
            "queue": ("PBS_QUEUE",),
            "server": ("PBS_SERVER",),
            "submit_host": ("PBS_O_HOST",),
        },
    ),
    System(
        "sagemaker",
        "https://github.com/aws/sagemaker-training-toolkit/blob/master/ENVIRONMENT_VARIABLES.md",
        ("SM_CURRENT_HOST", "TRAINING_JOB_NAME", "SM_TRAINING_ENV"),
        {
            "job_name": ("TRAINING_JOB_NAME",),
            "job_arn": ("TRAINING_JOB_ARN",),
            "host": ("SM_CURRENT_HOST",),
            "hosts": ("SM_HOSTS",),
            "instance_type": ("SM_CURRENT_INSTANCE_TYPE",),
            "gpus": ("SM_NUM_GPUS",),
            "cpus": ("SM_NUM_CPUS",),
        },
    ),
    System(
        "ray",
        "https://docs.ray.io/en/latest/cluster/running-applications/job-submission/",
        ("RAY_JOB_ID", "RAY_JOB_SUBMISSION_ID", "RAY_JOB_CONFIG_JSON_ENV_VAR", "RAY_CLUSTER_NAME"),
        {
            "job_id": ("RAY_JOB_ID",),
            "submission_id": ("RAY_JOB_SUBMISSION_ID",),
            "cluster": ("RAY_CLUSTER_NAME",),
        },
    ),
    System(
        "kubernetes",
        "https://kubernetes.io/docs/concepts/workloads/pods/downward-api/ and "
        "https://kubernetes.io/docs/concepts/containers/container-environment/",
        ("KUBERNETES_SERVICE_HOST",),
        {
            "pod": ("POD_NAME", "MY_POD_NAME", "K8S_POD_NAME", "HOSTNAME"),
            "namespace": ("POD_NAMESPACE", "MY_POD_NAMESPACE", "K8S_NAMESPACE"),
            "node": ("K8S_NODE_NAME", "MY_NODE_NAME", "KUBERNETES_NODE_NAME"),
            "pod_uid": ("POD_UID", "MY_POD_UID", "K8S_POD_UID"),
            "job_completion_index": ("JOB_COMPLETION_INDEX",),
        },
    ),
)

IMAGES = (
    "CONTAINER_IMAGE", "MLFLOW_CONTAINER_IMAGE", "CI_JOB_IMAGE", "APPTAINER_CONTAINER", "SINGULARITY_CONTAINER",
    "APPTAINER_NAME", "SINGULARITY_NAME", "DOCKER_IMAGE",
)  # fmt: skip
"""Variables that hold the image's name: by convention, by GitLab, and by Apptainer and Singularity
(https://apptainer.org/docs/user/latest/environment_and_metadata.html)."""

LOCK_FILES = (
    "uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock", "pixi.lock", "pylock.toml", "conda-lock.yml",
    "conda-lock.yaml", "environment.yml", "environment.yaml",
)  # fmt: skip
"""Names of lock files. Beside them count `requirements*.txt`, `pylock.*.toml` (PEP 751) and `*.conda-lock.yml`."""
LOCK_PATTERNS = ("requirements*.txt", "pylock.*.toml", "*.conda-lock.yml")
