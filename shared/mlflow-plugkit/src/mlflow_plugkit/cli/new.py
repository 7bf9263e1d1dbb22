"""`mlflow-plugkit new`: render a working plugin of a given type, to be changed into yours.

Nothing is imported from MLflow, so that the command also works where MLflow is missing or broken.
"""

from __future__ import annotations

import keyword
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

TEMPLATE = Path(__file__).resolve().parent.parent / "template"
ROWS_BEGIN, ROWS_END = "<!-- packages:begin -->", "<!-- packages:end -->"
MAX_NAME, MAX_REGISTERED = 40, 16

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")  # PEP 503 after normalisation
_REGISTERED = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")  # also a URI scheme (RFC 3986, section 3.1)
_ROLES = (
    "artifacts", "tracking", "registry", "auth", "headers", "header", "context", "experiment", "backend", "evaluator",
    "deployments", "deploy", "app", "datasets", "dataset", "store", "plugin",
)  # fmt: skip
_RESERVED = {"mlflow", "mlflow-skinny", "mlflow-tracing", "mlflow-plugkit", "mlflow-plugkit-testing", "test", "tests"}

_STORE_SCHEMES = {"file", "databricks", "databricks-uc", "uc", "http", "https"}
_DATABASES = ("postgresql", "mysql", "sqlite", "mssql")
_FILE_SCHEMES = {
    "file", "s3", "r2", "b2", "gs", "wasbs", "ftp", "sftp", "dbfs", "hdfs", "viewfs", "runs", "models", "http",
    "https", "mlflow-artifacts", "abfss",
}  # fmt: skip


@dataclass(frozen=True)
class PluginType:
    """What the scaffold knows of a type.

    Attributes:
        groups: the entry-point groups; the first is where MLflow finds it under its name.
        work: the module that does the work.
        does: what the rendered plugin does, for its description; `{title}` is put in.
        built_in: names of MLflow's own that the plugin would shadow, or that MLflow never looks up.
    """

    groups: tuple[str, ...]
    work: str
    does: str
    built_in: frozenset[str] = frozenset()


def _type(groups: str, work: str, does: str, built_in: set[str] | None = None) -> PluginType:
    return PluginType(tuple(f"mlflow.{group}" for group in groups.split()), work, does, frozenset(built_in or ()))


PLUGIN_TYPES = {
    "tracking_store": _type("tracking_store", "store", "Tracking store", _STORE_SCHEMES),
    "artifact_repository": _type("artifact_repository", "repository", "Artifact repository", _FILE_SCHEMES),
    "model_registry_store": _type("model_registry_store", "store", "Model registry store", _STORE_SCHEMES),
    "request_auth": _type(
        "request_auth_provider", "provider", "Request auth provider", {"kubernetes", "kubernetes-namespaced"}
    ),
    "request_header": _type("request_header_provider", "provider", "Request header provider"),
    "run_context": _type("run_context_provider", "provider", "Run context provider"),
    "default_experiment": _type("default_experiment_provider", "provider", "Default experiment provider"),
    "project_backend": _type("project_backend", "backend", "Project backend", {"local", "databricks", "kubernetes"}),
    "model_evaluator": _type(
        "model_evaluator", "evaluator", "Model evaluator", {"default", "classifier", "regressor", "shap"}
    ),
    "deployments": _type(
        "deployments", "client", "Deployment target", {"databricks", "http", "https", "openai", "sagemaker"}
    ),
    "app": _type("app", "middleware", "Server app", {"basic-auth"}),
    "dataset_source": _type(
        "dataset_source dataset_constructor",
        "source",
        "Dataset source",
        _FILE_SCHEMES | {"pandas", "numpy", "huggingface", "tensorflow", "spark", "delta", "code", "polars"},
    ),
}


@click.command()
@click.argument("name", required=False)
@click.argument("plugin_type", metavar="TYPE", required=False)
@click.option(
    "--destination",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder in which the folder NAME is made. Default: the working folder.",
)
@click.option(
    "--in-repository",
    is_flag=True,
    help="Add packages/NAME to the Plugkit repository around the destination. Default inside that repository, "
    "unless --destination is given.",
)
@click.option(
    "--register-as",
    metavar="TEXT",
    help="The URI scheme or name under which MLflow finds the plugin. Default: NAME without 'mlflow-' and its role.",
)
@click.option("--author", help="For the metadata. Default: '<NAME> contributors'.")
def new(
    name: str | None,
    plugin_type: str | None,
    destination: Path | None,
    in_repository: bool,
    register_as: str | None,
    author: str | None,
) -> None:
    """Make a working plugin NAME of the given TYPE, with tests, ready to be changed.

    TYPE is one of tracking_store, artifact_repository, model_registry_store, request_auth, request_header,
    run_context, default_experiment, project_backend, model_evaluator, deployments, app, dataset_source.
    """
    name = _ask(name, "NAME", "Name of the distribution, such as mlflow-demo-artifacts")
    plugin_type = _ask(plugin_type, "TYPE", "Plugin type", click.Choice(list(PLUGIN_TYPES)))
    start = (destination or Path.cwd()).absolute()
    root = repository_root(start)
    if in_repository and root is None:
        raise click.UsageError(f"There is no Plugkit repository around {start}. Leave out --in-repository.")
    if not in_repository and destination is not None:
        root = None
    answers = checked_answers(name, plugin_type, register_as, author, in_repository=root is not None)
    parent = root / "packages" if root else start
    target = create(answers, parent)
    notes = _announce_in_repository(answers, root) if root else []
    _print_next_steps(answers, target, notes)


def checked_answers(
    name: str, plugin_type: str, register_as: str | None = None, author: str | None = None, *, in_repository: bool
) -> dict[str, Any]:
    """Validate what the user gave, and derive the template's other variables from it.

    Raises:
        click.UsageError: with what to change.
    """
    _check_name(name, in_repository=in_repository)
    if plugin_type not in PLUGIN_TYPES:
        raise click.UsageError(f"There is no plugin type {plugin_type!r}. Choose one of {', '.join(PLUGIN_TYPES)}.")
    short = register_as or _short_name(name)
    _check_registered(short, plugin_type)
    author = author or ("Plugkit contributors" if in_repository else f"{name} contributors")
    if not author.isprintable() or '"' in author or "\\" in author:
        raise click.UsageError("The author's name holds a quote, a backslash or a control character. Leave it out.")
    kind = PLUGIN_TYPES[plugin_type]
    import_name = name.replace("-", "_")
    return {
        "name": name,
        "plugin_type": plugin_type,
        "register_as": short,
        "author": author,
        "in_repository": in_repository,
        "import_name": import_name,
        "prefix": "".join(part.capitalize() for part in short.split("-")),
        "env": import_name.upper(),
        "slug": short.replace("-", "_"),
        "work": kind.work,
        "groups": kind.groups,
        "description": f"{kind.does} for MLflow: {short}",
    }


def create(answers: dict[str, Any], parent: Path) -> Path:
    """Render the template into the folder `name` below `parent`: all of it, or nothing.

    Raises:
        click.UsageError: the folder is there already, or its parent is missing.
        click.ClickException: copier is not installed.
    """
    target = parent / str(answers["name"])
    if os.path.lexists(target):
        raise click.UsageError(f"{target} is there already. Choose another name, or remove it.")
    if not parent.is_dir():
        raise click.UsageError(f"The folder {parent} does not exist. Make it first.")
    with _scratch_folder(parent) as scratch:
        draft = scratch / target.name
        render(answers, draft)
        draft.rename(target)
    return target


def render(answers: dict[str, Any], folder: Path) -> None:
    """Render the template's layers into `folder`."""
    copier = _copier()
    shape = "package" if answers["in_repository"] else "repository"
    for layer in ("common", shape, f"types/{answers['plugin_type']}"):
        copier.run_copy(
            str(TEMPLATE), folder, data={**answers, "layer": layer}, defaults=True, quiet=True, unsafe=False
        )
    for path in folder.rglob("*.py"):
        path.write_text(_with_ordered_imports(path.read_text(encoding="utf-8")), encoding="utf-8")


def repository_root(start: Path) -> Path | None:
    """The Plugkit repository that holds `start`: a hatch workspace of packages/*, or None."""
    for folder in (start, *start.parents):
        manifest = folder / "pyproject.toml"
        if not (manifest.is_file() and (folder / "packages").is_dir()):
            continue
        text = manifest.read_text(encoding="utf-8")
        if "[tool.hatch.envs.default]" in text and re.search(r'workspace\.members\s*=\s*\[[^\]]*"packages/\*"', text):
            return folder
    return None


def add_row(readme: str, answers: dict[str, Any]) -> str:
    """The README with the package's row in its table, in alphabetical order.

    Raises:
        ValueError: the README has no markers.
    """
    before, begin, rest = readme.partition(ROWS_BEGIN)
    table, end, after = rest.partition(ROWS_END)
    if not begin or not end:
        raise ValueError("no markers")
    name = answers["name"]
    groups = ", ".join(f"`{group}`" for group in answers["groups"])
    row = f"| [{name}](packages/{name}/) | {groups} | 2.22 to 3.x | alpha |"
    lines = table.rstrip("\n").split("\n")
    place = next((i for i, line in enumerate(lines) if line.startswith("| [") and line > row), len(lines))
    lines.insert(place, row)
    return before + begin + "\n".join(lines) + "\n" + end + after


def _ask(value: str | None, argument: str, question: str, choice: click.Choice[str] | None = None) -> str:
    if value is not None:
        return value
    if not sys.stdin.isatty():
        raise click.UsageError(f"Missing argument {argument}: mlflow-plugkit new NAME TYPE")
    return str(click.prompt(question, type=choice))


def _check_name(name: str, *, in_repository: bool) -> None:
    normalised = re.sub(r"[-_.]+", "-", name).lower()
    if not _NAME.fullmatch(name):
        hint = f" Did you mean {normalised!r}?" if _NAME.fullmatch(normalised) else ""
        raise click.UsageError(
            f"{name!r} is no normalised distribution name: lower-case letters, digits and single hyphens.{hint}"
        )
    import_name = name.replace("-", "_")
    if not import_name.isidentifier() or keyword.iskeyword(import_name):
        raise click.UsageError(f"{name!r} gives no Python module name ({import_name!r}). Start it with a letter.")
    if name in _RESERVED or import_name in sys.stdlib_module_names:
        raise click.UsageError(f"The name {name!r} is taken by MLflow, Plugkit or Python. Choose another one.")
    if len(name) > MAX_NAME:
        raise click.UsageError(f"The name {name!r} is longer than {MAX_NAME} characters. Choose a shorter one.")
    if in_repository and not name.startswith("mlflow-"):
        raise click.UsageError(f"Names of this repository read mlflow-<technology>-<role>: try 'mlflow-{name}'.")


def _check_registered(name: str, plugin_type: str) -> None:
    remedy = "Give another one with --register-as."
    if not _REGISTERED.fullmatch(name) or len(name) > MAX_REGISTERED or keyword.iskeyword(name.replace("-", "_")):
        raise click.UsageError(
            f"{name!r} cannot be registered: it needs a letter first, then lower-case letters, digits and single "
            f"hyphens, at most {MAX_REGISTERED}. {remedy}"
        )
    is_scheme = plugin_type in ("tracking_store", "model_registry_store", "artifact_repository", "dataset_source")
    if name in PLUGIN_TYPES[plugin_type].built_in:
        raise click.UsageError(f"{name!r} is MLflow's own for {plugin_type}; two would shadow each other. {remedy}")
    if is_scheme and name.startswith(_DATABASES):
        raise click.UsageError(
            f"MLflow takes every scheme that starts with {', '.join(_DATABASES)} for a database: {name!r}. {remedy}"
        )


def _short_name(name: str) -> str:
    short = name.removeprefix("mlflow-")
    for role in (*(plugin_type.replace("_", "-") for plugin_type in PLUGIN_TYPES), *_ROLES):
        if short.endswith(f"-{role}"):
            return short.removesuffix(f"-{role}")
    return short


def _copier() -> Any:
    try:
        import copier
    except ImportError as exc:
        raise click.ClickException(
            f"This command needs copier, which could not be imported ({exc}). "
            "Install it with: pip install 'mlflow-plugkit[cli]'"
        ) from exc
    return copier


@contextmanager
def _scratch_folder(parent: Path) -> Iterator[Path]:
    """A folder on the same file system as the result, so that the result appears at once; removed in any case."""
    try:
        scratch = Path(tempfile.mkdtemp(prefix=".plugkit-new-", dir=parent))
    except OSError as exc:
        raise click.UsageError(f"Nothing can be written in {parent}: {exc.strerror}.") from exc
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch)


def _with_ordered_imports(text: str) -> str:
    """Sort each run of `from ... import ...` lines by module: their order depends on the package's name."""
    lines = text.split("\n")
    start = 0
    while start < len(lines):
        end = start
        while end < len(lines) and re.fullmatch(r"from \w[\w.]* import [\w, ]+", lines[end]):
            end += 1
        lines[start:end] = sorted(lines[start:end], key=lambda line: line.split()[1])
        start = max(end, start + 1)
    return "\n".join(lines)


def _announce_in_repository(answers: dict[str, Any], root: Path) -> list[str]:
    """Add the README's row and the docs page; return a sentence for each that has no place yet."""
    notes = []
    readme, docs, name = root / "README.md", root / "docs", answers["name"]
    try:
        readme.write_text(add_row(readme.read_text(encoding="utf-8"), answers), encoding="utf-8")
    except FileNotFoundError:
        notes.append("There is no README.md yet: the package has no row in its table.")
    except ValueError:
        notes.append(f"README.md has no markers {ROWS_BEGIN} and {ROWS_END}: the package has no row in its table.")
    if docs.is_dir():
        page = docs / "packages" / f"{name}.md"
        page.parent.mkdir(exist_ok=True)
        page.write_text(f"```{{include}} ../../packages/{name}/README.md\n```\n", encoding="utf-8")
    else:
        notes.append("There is no docs folder yet: the package has no page in it.")
    return notes


def _print_next_steps(answers: dict[str, Any], target: Path, notes: list[str]) -> None:
    work = f"src/{answers['import_name']}/{answers['work']}.py"
    click.echo(f"Made {target}")
    for note in notes:
        click.echo(f"Note: {note}", err=True)
    if answers["in_repository"]:
        click.echo(f"1. Run its tests:    nox -t {answers['name']}")
        click.echo(f"2. Write your own:   {target / work}")
        click.echo(f"3. Say what changed: {target / 'changes'}")
    else:
        click.echo(f"1. Run its tests:  cd {target} && git init && python -m pip install nox uv && nox")
        click.echo(f"2. Write your own: {work}")
        click.echo("3. Publish it:     CONTRIBUTING.md says how")
