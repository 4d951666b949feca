"""Which packages a stage of the library can come to import, read from its source.

Imports inside functions count only where something reaches the function by name, so that a stage that borrows a
constant from another stage's module does not inherit all that this one needs. What source does not show (a name made
at run time, a call that a module makes while it is imported) escapes; the workflow's own run under --use-conda sees it.
"""

import ast
import sys
from functools import cache
from pathlib import Path

from env_files import ROOT

SOURCE = ROOT / "workflow" / "src"


def external_imports(module: str, entries: tuple[str, ...] = ("add_arguments", "run")) -> set[str]:
    """Top-level names, outside the library and the standard library, that a module's entry points may import."""
    found, seen = set(), set()
    todo = [(module, entry) for entry in ("", *entries)]
    while todo:
        module, name = here = todo.pop()
        if here in seen:
            continue
        seen.add(here)
        if module.split(".")[0] != "blurdiff":
            found.add(module.split(".")[0])
            continue
        parent = module.rpartition(".")[0]
        todo += [(parent, "")] * bool(parent) + [(module, "")]
        scope, parts = read(module)
        for node in parts.get(name, []):
            todo += reached(node, module, scope)
    return found - sys.stdlib_module_names


def source_of(module: str) -> Path | None:
    """The file of a module of the library, None if there is no such module."""
    path = SOURCE / Path(*module.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((candidate for candidate in candidates if candidate.exists()), None)


@cache
def read(module: str) -> tuple[dict[str, tuple[str, str]], dict[str, list[ast.stmt]]]:
    """What each name at the top of a module stands for, and its parts: name to statements, "" what always runs."""
    scope, parts = {}, {"": []}
    for node in ast.parse(source_of(module).read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
        else:
            names = []
            parts[""].append(node)
            scope |= imported_names(node)
        for name in names:
            scope[name] = (module, name)
            parts.setdefault(name, []).append(node)
    return scope, parts


def imported_names(node: ast.AST) -> dict[str, tuple[str, str]]:
    """Names that an import statement binds, as (module, name in it); the name is "" for a module."""
    bound = {}
    if isinstance(node, ast.Import):
        for alias in node.names:
            bound[alias.asname or alias.name.split(".")[0]] = (alias.name, "")
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "the library imports by full names"
        for alias in node.names:
            submodule = f"{node.module}.{alias.name}"
            is_module = node.module.startswith("blurdiff") and source_of(submodule)
            bound[alias.asname or alias.name] = (submodule, "") if is_module else (node.module, alias.name)
    return bound


def reached(statement: ast.AST, module: str, scope: dict[str, tuple[str, str]]) -> list[tuple[str, str]]:
    """What a statement imports, and the parts of modules that it names."""
    scope = dict(scope)
    nodes = list(walk_at_run_time(statement))
    found = []
    for node in nodes:
        bound = imported_names(node)
        scope |= bound
        found += [(target, "") for target, _ in bound.values()]
    for node in nodes:
        if isinstance(node, ast.Name) and node.id in scope:
            found.append(scope[node.id])
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in scope:
            target, name = scope[node.value.id]
            found.append((target, name or node.attr))
    return found


def walk_at_run_time(node: ast.AST):
    """All nodes below one, without those that only type checkers see."""
    if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        for each in node.orelse:
            yield from walk_at_run_time(each)
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from walk_at_run_time(child)
