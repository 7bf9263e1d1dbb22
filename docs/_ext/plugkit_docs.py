"""What the documentation reads from the code: rules, variables, nox sessions, packages, the command line."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from typing import Any, ClassVar

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import mlflow_plugkit_testing
from mlflow_plugkit.settings import Settings, declared_options
from mlflow_plugkit_testing.suite import ConformanceSuite, rules_of
from tools.regenerate import package_table
from tools.workspace import ROOT, Package, packages

GUARD = "test_no_rule_is_switched_off"


class GeneratedMarkdown(SphinxDirective):
    """A directive without content whose Markdown is made by `markdown()`."""

    optional_arguments = 1
    final_argument_whitespace = True
    sources: ClassVar[tuple[str, ...]] = ()

    def markdown(self) -> str:
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        for source in self.sources:
            self.env.note_dependency(str(ROOT / source))
        self.env.note_reread()
        return self.parse_text_to_nodes(self.markdown(), allow_section_headings=True)


class PackageTable(GeneratedMarkdown):
    """Every package, linked to its page here."""

    def markdown(self) -> str:
        return re.sub(r"\]\((?:packages|shared)/([\w-]+)/\)", r"](\1.md)", package_table(list(packages().values())))


class EnvironmentVariables(GeneratedMarkdown):
    """The environment variables that the settings classes of a package declare."""

    def markdown(self) -> str:
        parts = []
        for package in packages().values():
            rows = [row for cls in settings_classes(package) for row in variable_rows(cls)]
            if rows:
                parts += [f"## {package.name}\n", "| variable | meaning |\n|---|---|\n" + "\n".join(rows) + "\n"]
        return "\n".join(parts)


class NoxSessions(GeneratedMarkdown):
    """The sessions of the noxfile with the first line of their docstrings."""

    sources = ("noxfile.py",)

    def markdown(self) -> str:
        functions = [f for f in ast.parse((ROOT / "noxfile.py").read_text()).body if isinstance(f, ast.FunctionDef)]
        sessions = [f for f in functions if any("nox.session" in ast.unparse(d) for d in f.decorator_list)]
        rows = [f"| `nox -s {f.name}` | {one_line(ast.get_docstring(f) or '')} |" for f in sessions]
        return "\n".join(["| session | what it does |", "|---|---|", *rows])


class CommandLine(GeneratedMarkdown):
    """The help of a click command and of its subcommands; the argument is `module:name`."""

    required_arguments = 1

    def markdown(self) -> str:
        module, _, name = self.arguments[0].partition(":")
        return "\n".join(command_help(getattr(importlib.import_module(module), name), "mlflow-plugkit"))


class ConformanceSuites(GeneratedMarkdown):
    """Every conformance class of the kit, its fixtures and capabilities, and all of its rules."""

    def markdown(self) -> str:
        return "\n".join(line for suite in sorted_suites() for line in suite_markdown(suite))


def settings_classes(package: Package) -> list[type[Settings]]:
    """The settings classes that a package defines in its module `settings`."""
    name = f"{package.import_name}.settings"
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name != name:
            raise
        return []
    classes = [v for v in vars(module).values() if isinstance(v, type) and issubclass(v, Settings)]
    return [cls for cls in classes if cls.__module__ == name]


def variable_rows(cls: type[Settings]) -> list[str]:
    rows = []
    for option in declared_options(cls).values():
        names = [*option.env, *(f"{v}_FILE" for v in option.env if option.secret)]
        rows += [f"| {', '.join(f'`{name}`' for name in names)} | {option.help} |"] if names else []
    return rows


def command_help(command: Any, path: str) -> Iterator[str]:
    """A heading and the help text of a click command, then those of its subcommands."""
    import click

    context = click.Context(command, info_name=path, terminal_width=100, max_content_width=100)
    yield from (f"## {path}", "", "```text", command.get_help(context), "```", "")
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            yield from command_help(command.get_command(context, name), f"{path} {name}")


def sorted_suites() -> list[type[ConformanceSuite]]:
    """The kit's public conformance classes, each once, by module and name."""
    found = {}
    for info in pkgutil.iter_modules(mlflow_plugkit_testing.__path__):
        module = importlib.import_module(f"mlflow_plugkit_testing.{info.name}")
        for cls in vars(module).values():
            is_suite = isinstance(cls, type) and issubclass(cls, ConformanceSuite) and cls.__module__ == module.__name__
            if is_suite and cls.__name__.endswith("Conformance") and not is_base(cls):
                found[f"{cls.__module__}.{cls.__name__}"] = cls
    return [found[name] for name in sorted(found)]


def is_base(cls: type[Any]) -> bool:
    """Whether a class is there to be subclassed inside the kit only; its docstring says so."""
    return "use one of its subclasses" in (inspect.getdoc(cls) or "")


def suite_markdown(suite: type[ConformanceSuite]) -> Iterator[str]:
    yield from (f"## {suite.__name__}", "", f"`from {suite.__module__} import {suite.__name__}`", "")
    yield from (markdown_docstring(suite), "")
    offered = {name: row for cls in reversed(suite.__mro__) for name, row in hooks(cls)}
    if offered:
        yield from ("### What a test class may override", "", "| name | meaning |", "|---|---|")
        yield from (*offered.values(), "")
    rules = {name: owner for name, owner in rules_of(suite).items() if name != GUARD}
    yield from (f"### The {len(rules)} rules", "", "| rule | what it asks |", "|---|---|")
    for name, owner in rules.items():
        sentence = first_paragraph(vars(owner)[name])
        if not sentence:
            raise ValueError(f"{owner.__name__}.{name} has no docstring: say in a sentence what the rule asks")
        yield f"| `{name}` | {sentence} |"
    yield ""


def hooks(cls: type[Any]) -> Iterator[tuple[str, str]]:
    """Names and rows of what a class of the kit offers to its subclasses."""
    if not issubclass(cls, ConformanceSuite) or not cls.__module__.startswith("mlflow_plugkit_testing"):
        return
    comments = attribute_comments(cls)
    for name, member in vars(cls).items():
        if name.startswith(("_", "test_")) or name == "pytestmark":
            continue
        if name in comments:
            yield name, f"| `{name} = {member!r}` | {comments[name]} |"
        elif isinstance(member, property):
            yield name, f"| property `{name}` | {first_paragraph(member.fget)} |"
        elif is_fixture(member):
            yield name, f"| fixture `{name}` | {first_paragraph(fixture_function(member))} |"
        elif inspect.isfunction(member):
            yield name, f"| method `{name}{signature(member)}` | {first_paragraph(member)} |"


def attribute_comments(cls: type[Any]) -> dict[str, str]:
    """What `#:` lines before, or a string after, a class attribute say of it."""
    source = inspect.getsource(cls)
    found = {}
    for match in re.finditer(r"((?:^ *#: .*\n)+) *(\w+)\b", source, re.MULTILINE):
        found[match[2]] = one_line(re.sub(r"^ *#: ", "", match[1], flags=re.MULTILINE))
    body = ast.parse(inspect.cleandoc("\n" + source)).body[0]
    assert isinstance(body, ast.ClassDef)
    for before, after in zip(body.body, body.body[1:], strict=False):
        target = before.target if isinstance(before, ast.AnnAssign) else None
        if isinstance(target, ast.Name) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            found[target.id] = one_line(str(after.value.value))
    return found


def is_fixture(member: Any) -> bool:
    return "fixture" in type(member).__name__.lower() or hasattr(member, "_pytestfixturefunction")


def fixture_function(member: Any) -> Any:
    """The function behind a fixture; pytest renamed the accessor in version 8.4."""
    get = getattr(member, "_get_wrapped_function", None)
    return get() if get else inspect.unwrap(member)


def signature(function: Any) -> str:
    names = [name for name in inspect.signature(function).parameters if name != "self"]
    return f"({', '.join(names)})"


def first_paragraph(thing: Any) -> str:
    return one_line((inspect.getdoc(thing) or "").partition("\n\n")[0])


def one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def markdown_docstring(thing: Any) -> str:
    """A docstring as Markdown: indented examples become fenced Python."""
    out: list[str] = []
    fenced = False
    for line in (inspect.getdoc(thing) or "").split("\n"):
        if line.startswith("    ") and not fenced:
            out.append("```python")
            fenced = True
        elif fenced and line and not line.startswith("    "):
            out.append("```\n")
            fenced = False
        out.append(line.removeprefix("    ") if fenced else line)
    return "\n".join([*out, "```"] if fenced else out)


def literal_blocks(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Make an indented block after a line that ends in a colon a literal one, as it is meant in the docstrings."""
    for number in range(len(lines) - 2):
        line, gap, after = lines[number : number + 3]
        if line.rstrip().endswith(":") and not line.rstrip().endswith("::") and not gap.strip():
            indent = len(line) - len(line.lstrip())
            if after.startswith(" " * (indent + 4)):
                lines[number] = line.rstrip() + ":"


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("package-table", PackageTable)
    app.add_directive("environment-variables", EnvironmentVariables)
    app.add_directive("nox-sessions", NoxSessions)
    app.add_directive("command-line", CommandLine)
    app.add_directive("conformance-suites", ConformanceSuites)
    app.connect("autodoc-process-docstring", literal_blocks, priority=400)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
