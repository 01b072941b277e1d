"""What Python files import, in every form that an import can take, read from their text.

A name counts that is imported anywhere in a file, within functions and under TYPE_CHECKING too;
that is reached as an attribute (`torch.distributed.x` after `import torch`); or that stands in a
string: as an argument of `import_module` or `python -m`, or in code to execute.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from importlib.util import resolve_name
from pathlib import Path

OURS = ("pix2pix", "data_prep", "scripts", "slurm")

_NAME_OF_OURS = re.compile(rf"({'|'.join(OURS)})(\.\w+)+(:\w+)?")
_LOADERS = ("import_module", "__import__")


class HiddenImportError(Exception):
    """An import whose name is computed: nobody can tell where it leads."""


def import_graph(root: Path) -> dict[str, set[str]]:
    """Module → names that it imports, for each file of ours below `root`.

    A name of ours is a module, without what is taken from it; others stay as they are written.
    """
    files = {
        _module_name(path.relative_to(root)): path
        for package in OURS
        for path in sorted((root / package).rglob("*.py"))
    }
    graph = {}
    for module, path in files.items():
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        names = imported_names(path.read_text("utf-8"), package)
        graph[module] = {_module_of(name, files) for name in names} - {module}
    return graph


def reach(graph: Mapping[str, set[str]], module: str) -> set[str]:
    """Everything that `module` imports, and what these import, and so on."""
    seen: set[str] = set()
    pending = [module]
    while pending:
        found = graph.get(pending.pop(), set()) - seen
        seen |= found
        pending += found
    return seen


def imported_names(code: str, package: str) -> set[str]:
    """Dotted names of the modules, and of the things in modules, that `code` imports.

    package: where the file lies; relative imports start there. Raises HiddenImportError for an
    import by a name that is not written out.
    """
    tree = ast.parse(code)
    bound = dict(_bindings(tree, package))
    return {name for node in ast.walk(tree) for name in _names(node, bound, package)}


def _module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _module_of(name: str, modules: Mapping[str, Path]) -> str:
    """`pix2pix.color` for `pix2pix.color.ColorSpace`."""
    parts = name.split(".")
    prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((prefix for prefix in prefixes if prefix in modules), name)


def _bindings(tree: ast.AST, package: str) -> Iterator[tuple[str, str]]:
    """(name within the file, dotted name that it stands for)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                root = alias.name.partition(".")[0]
                yield (alias.asname, alias.name) if alias.asname else (root, root)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name, f"{_origin(node, package)}.{alias.name}"


def _names(node: ast.AST, bound: Mapping[str, str], package: str) -> Iterator[str]:
    match node:
        case ast.Import():
            yield from (alias.name for alias in node.names)
        case ast.ImportFrom():
            yield from (f"{_origin(node, package)}.{alias.name}" for alias in node.names)
        case ast.Attribute():
            yield from filter(None, [_dotted(node, bound)])
        case ast.Call():
            yield from _loaded(node, bound, package)
        case ast.Constant(value=str(text)):
            yield from _in_string(text, package)


def _origin(node: ast.ImportFrom, package: str) -> str:
    name = "." * node.level + (node.module or "")
    return resolve_name(name, package) if node.level else name


def _dotted(node: ast.expr, bound: Mapping[str, str]) -> str:
    """What a name or a chain of attributes stands for, if it starts at something imported."""
    match node:
        case ast.Name(id=name):
            return bound.get(name, "")
        case ast.Attribute(value=value, attr=name):
            root = _dotted(value, bound)
            return f"{root}.{name}" if root else ""
    return ""


def _loaded(call: ast.Call, bound: Mapping[str, str], package: str) -> Iterator[str]:
    """What `import_module("a.b")`, `import_module(".b", "a")` or `__import__("a.b")` loads."""
    function = _dotted(call.func, bound) or (
        call.func.id if isinstance(call.func, ast.Name) else ""
    )
    if function.rpartition(".")[2] not in _LOADERS:
        return
    match call.args:
        case [ast.Constant(value=str(name)), ast.Constant(value=str(anchor))]:
            yield resolve_name(name, anchor)
        case [ast.Constant(value=str(name)), *_]:
            yield resolve_name(name, package)
        case _:
            raise HiddenImportError(
                f"{ast.unparse(call)} in line {call.lineno}: write the name out"
            )


def _in_string(text: str, package: str) -> Iterator[str]:
    if _NAME_OF_OURS.fullmatch(text):
        yield text.partition(":")[0]
    elif "import" in text:
        try:
            yield from imported_names(text, package)
        except (SyntaxError, ValueError):
            return  # prose
