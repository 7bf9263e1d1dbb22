"""Everything that the doctor can find: id, severity, meaning, remedy.

The README's table is rendered from here. An id keeps its meaning; a new rule gets a new id.
"""

from __future__ import annotations

from dataclasses import dataclass

ERROR = "error"
WARNING = "warning"


@dataclass(frozen=True)
class Rule:
    """One kind of finding.

    Attributes:
        severity: of a finding that states none of its own.
        meaning: what is wrong and what MLflow makes of it.
        remedy: what to do, one sentence.
    """

    severity: str
    meaning: str
    remedy: str


_ASK_AUTHOR = "Upgrade or uninstall the plugin, or report it to its author."

RULES: dict[str, Rule] = {
    "mlflow-missing": Rule(
        ERROR, "Neither mlflow nor mlflow-skinny is installed.", "Install it with: pip install mlflow"
    ),
    "mlflow-import-fails": Rule(
        ERROR,
        "`import mlflow` fails even without any plugin, so plugins could not be loaded for examination.",
        "Reinstall MLflow and its requirements: pip install --force-reinstall mlflow",
    ),
    "mlflow-import-breaks": Rule(
        ERROR,
        "`import mlflow` works without plugins and fails with them, though each entry point loads by itself.",
        "Uninstall the plugins one at a time until the import works, and report the pair to their authors.",
    ),
    "sqlalchemy-too-new": Rule(
        ERROR,
        "SQLAlchemy 2.1 or newer beside MLflow 3.8.1 or older: MLflow's SQL stores fail at import.",
        "Install an older SQLAlchemy with: pip install 'sqlalchemy<2.1'",
    ),
    "metadata-broken": Rule(
        ERROR,
        "A distribution's metadata cannot be read; a broken entry_points.txt can fail every reader of entry points.",
        "Reinstall the distribution with: pip install --force-reinstall NAME",
    ),
    "requirement-unsatisfied": Rule(
        ERROR,
        "A plugin requires a distribution that is missing or has another version.",
        "Run `pip check`, and install the version that the plugin asks for.",
    ),
    "mlflow-outside-range": Rule(
        ERROR,
        "The installed MLflow is outside the range that the plugin declares.",
        "Install a version of the plugin that declares this MLflow, or an MLflow inside the range.",
    ),
    "mlflow-range-undeclared": Rule(
        WARNING,
        "The plugin declares no MLflow range, or one without an upper bound, so pip cannot keep it off an MLflow "
        "that breaks it.",
        "Ask its author to declare one, such as mlflow-skinny>=3.1,<4.",
    ),
    "entry-point-malformed": Rule(
        ERROR,
        "An entry point's object reference is not of the form `package.module:object`.",
        "Correct the entry point in the plugin's pyproject.toml, and reinstall it.",
    ),
    "entry-point-not-importable": Rule(
        ERROR,
        "The module of an entry point cannot be imported (ImportError, AttributeError). MLflow leaves the plugin out "
        "with no more than a warning.",
        "Install what the message names as missing, or reinstall the plugin.",
    ),
    "entry-point-attribute-missing": Rule(
        ERROR,
        "The module of an entry point has no such object. MLflow leaves the plugin out with no more than a warning.",
        "Correct the entry point or the object's name, and reinstall the plugin.",
    ),
    "entry-point-raises": Rule(
        ERROR,
        "Loading an entry point raises something other than ImportError or AttributeError. Where MLflow loads the "
        "group eagerly, this breaks `import mlflow` for everyone.",
        _ASK_AUTHOR,
    ),
    "entry-point-hangs": Rule(
        ERROR,
        "Loading an entry point did not end within the time limit (`--timeout`).",
        "Uninstall the plugin, or report to its author that importing its module blocks.",
    ),
    "entry-point-kills-python": Rule(
        ERROR, "Loading an entry point ends the Python process (a crash in native code, or os._exit).", _ASK_AUTHOR
    ),
    "entry-point-needs-network": Rule(
        ERROR,
        "Loading an entry point opens a connection, and fails where there is none.",
        "Ask its author to connect on first use, not on import.",
    ),
    "connects-on-import": Rule(
        WARNING,
        "Loading an entry point tries to open a connection, which every `import mlflow` then waits for.",
        "Ask its author to connect on first use, not on import.",
    ),
    "slow-import": Rule(
        WARNING,
        "A plugin adds more than `--max-import-ms` to `import mlflow`.",
        "Ask its author to import MLflow's bases and the vendor's SDK inside the factory, not at the module's top.",
    ),
    "factory-signature": Rule(
        ERROR,
        "MLflow calls the entry point's object with arguments that it does not take.",
        "Give the object the parameters that the message names.",
    ),
    "artifact-repository-signature": Rule(
        ERROR,
        "An artifact repository does not take `tracking_uri` (passed since MLflow 3.1.1) and `registry_uri` (since "
        "3.5): a TypeError on each use. A warning where only a newer MLflow would fail.",
        "Declare it as `def __init__(self, artifact_uri, tracking_uri=None, registry_uri=None, **kwargs)`.",
    ),
    "provider-constructor": Rule(
        ERROR,
        "A provider's class needs arguments or raises: MLflow makes it without arguments while it registers it.",
        "Give the class a constructor that takes nothing and only stores what it needs.",
    ),
    "provider-methods-missing": Rule(
        ERROR,
        "A provider lacks methods that MLflow calls.",
        "Derive the class from MLflow's base class, and implement its abstract methods.",
    ),
    "deployment-plugin-shape": Rule(
        ERROR,
        "A deployments entry point must name a module with `run_local`, `target_help` and exactly one subclass of "
        "BaseDeploymentClient visible in it.",
        "Name the module itself (without `:object`), and import further client classes under their module's name.",
    ),
    "app-not-asgi": Rule(
        ERROR,
        "A server app is a Flask application. MLflow's default server is uvicorn since 3.3, which answers each "
        "request to it with status 500.",
        "Wrap the Flask app in an ASGI application, or start the server with --gunicorn-opts or --waitress-opts.",
    ),
    "dataset-constructor-refused": Rule(
        ERROR,
        "MLflow refuses a dataset constructor: its name must start with `from_` or `load_`, it must take `name` and "
        "`digest`, and its return annotation must be a Dataset class, not a string.",
        "Correct the function; leave out `from __future__ import annotations` in its module.",
    ),
    "file-store-refused": Rule(
        ERROR,
        "A store derives from MLflow's FileStore, whose constructor raises on MLflow 3.14 and newer.",
        "Set MLFLOW_ALLOW_FILE_STORE=true, or use a store that keeps its data otherwise.",
    ),
    "name-claimed-twice": Rule(
        ERROR,
        "Two entry points claim one scheme or name; only one of them is used.",
        "Uninstall one of the two plugins.",
    ),
    "shadows-builtin": Rule(
        WARNING,
        "A plugin claims a scheme or name that MLflow itself serves.",
        "Uninstall the plugin if that is not what you want it for.",
    ),
    "unreachable-name": Rule(
        ERROR,
        "MLflow can never look up the entry point's name: it is not what MLflow derives from a URI, or is reserved.",
        "Rename the entry point to a lower-case URI scheme that does not start with a database engine's name.",
    ),
    "registry-twin-missing": Rule(
        WARNING,
        "A tracking scheme has no model registry of the same name, though MLflow uses the tracking URI for both.",
        "Install a registry plugin for the scheme, or set MLFLOW_REGISTRY_URI to another registry.",
    ),
    "scorer-twin-missing": Rule(
        WARNING,
        "A tracking scheme has no `mlflow.scorer_store` entry point: registering or listing scorers raises "
        "UnsupportedScorerStoreURIException (MLflow 3.4 and newer).",
        "Ask its author to add one; `mlflow.genai.scorers.registry:MlflowTrackingStore` serves any tracking store.",
    ),
    "package-shipped-twice": Rule(
        ERROR,
        "Two distributions ship the same top-level package, so one overwrites files of the other.",
        "Uninstall both, then install the one that you need.",
    ),
    "package-name-too-general": Rule(
        WARNING,
        "A plugin ships a top-level package with a name that others use, too (plugin, store, tests, ...).",
        "Ask its author to ship one package named after the distribution.",
    ),
    "header-set-twice": Rule(
        WARNING,
        "Two request header providers set the same header; MLflow joins the values with a space.",
        "Uninstall or configure one of the two, so that only one sets the header.",
    ),
    "netrc-wins": Rule(
        ERROR,
        "Authorization is configured for a host that also has an entry in the netrc file, which wins: the configured "
        "credentials are never sent.",
        "Take the host (or `default`) out of the netrc file, or point NETRC at an empty file.",
    ),
    "auth-provider-unknown": Rule(
        ERROR,
        "MLFLOW_TRACKING_AUTH names a provider that is not installed: MLflow sends each request unauthenticated.",
        "Install the plugin that provides it, or correct the name.",
    ),
    "secret-in-uri": Rule(
        WARNING,
        "A configured URI holds a secret, which MLflow can store in clear and show in its UI. An error under "
        "MLFLOW_PLUGKIT_STRICT=true.",
        "Take it out of the URI, and give it in the environment variable or file that the plugin names.",
    ),
    "uri-scheme-unknown": Rule(
        ERROR,
        "A configured URI has a scheme that nothing in this environment serves.",
        "Install the plugin that serves the scheme, or correct the URI.",
    ),
    "connect-fails": Rule(
        ERROR,
        "With `--connect`: a configured service did not answer, or answered with an error.",
        "Check the URI, the credentials and that the service runs.",
    ),
}
