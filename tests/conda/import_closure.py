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
# A name at the top of a module, as (module, name); "" stands for what always runs when the module is imported.
Part = tuple[str, str]


def external_imports(module: str) -> set[str]:
    """Top-level names, outside the library and the standard library, that a stage's module may import."""
    todo = [(module, name) for name in ("", "add_arguments", "run")]
    seen = set(todo)
    for part in todo:
        new = reached(*part) - seen
        seen |= new
        todo += new
    return {module.split(".")[0] for module, _ in seen} - {"blurdiff"} - sys.stdlib_module_names


def reached(module: str, name: str) -> set[Part]:
    """What a part imports, and the parts that it names."""
    if module.split(".")[0] != "blurdiff":
        return set()
    scope, parts = read(module)
    nodes = [node for statement in parts.get(name, []) for node in ast.walk(statement)]
    imported = {key: part for node in nodes for key, part in imported_names(node).items()}
    scope = scope | imported
    found = {(module, ""), (module.rpartition(".")[0] or module, "")} | {(each, "") for each, _ in imported.values()}
    for node in nodes:
        if isinstance(node, ast.Name) and node.id in scope:
            found.add(scope[node.id])
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in scope:
            owner, within = scope[node.value.id]
            found.add((owner, within or node.attr))
    return found


@cache
def read(module: str) -> tuple[dict[str, Part], dict[str, list[ast.stmt]]]:
    """What each name at the top of a module stands for, and the statements of each of its parts."""
    scope, parts = {}, {"": []}
    for node in ast.parse(source_of(module).read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)]
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue  # which never runs
        else:
            parts[""].append(node)
            scope |= imported_names(node)
            continue
        for name in names:
            scope[name] = (module, name)
            parts.setdefault(name, []).append(node)
    return scope, parts


def imported_names(node: ast.AST) -> dict[str, Part]:
    """Names that an import statement binds."""
    if isinstance(node, ast.Import):
        return {alias.asname or alias.name.split(".")[0]: (alias.name, "") for alias in node.names}
    if not isinstance(node, ast.ImportFrom):
        return {}
    assert node.level == 0, "the library imports by full names"
    bound = {}
    for alias in node.names:
        submodule = f"{node.module}.{alias.name}"
        bound[alias.asname or alias.name] = (submodule, "") if source_of(submodule) else (node.module, alias.name)
    return bound


def source_of(module: str) -> Path | None:
    """The file of a module of the library, None if there is no such module."""
    path = SOURCE / Path(*module.split("."))
    return next((each for each in (path.with_suffix(".py"), path / "__init__.py") if each.exists()), None)
