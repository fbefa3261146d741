"""The rules of the house: which module may know which, and how long one may get."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import botwire_server

ROOT = Path(botwire_server.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in ROOT.rglob("*.py")
)

# From the bottom to the top: a module imports from its own layer or from those before it. The
# first name that fits counts; `web` is what every dialect may use.
LAYERS: list[tuple[str, ...]] = [
    ("errors", "limits", "logs"),
    ("addresses", "environment"),
    ("tiers", "endpoint", "lazy", "metrics", "vector"),
    ("heartbeat",),
    ("store.driver",),
    ("config",),
    ("store", "embedding", "summarizer"),
    (
        "web.auth",
        "web.body",
        "web.callers",
        "web.dialect",
        "web.http",
        "web.listing",
        "web.origins",
        "web.paths",
        "web.pieces",
        "web.request_log",
        "web.fields",
        "web.description",
        "web.shapes",
        "web.spool",
    ),
    ("web.botwire", "web.mnemora", "web.admin", "web.metrics", "web.ready"),
    ("web.observatory",),
    ("web.openapi",),
    ("web.docs",),
    ("web.app", "web.__init__"),
    ("serve",),
    ("cli",),
    ("__main__",),
]
DIALECTS = ("web.botwire", "web.mnemora", "web.admin", "web.metrics", "web.ready")


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def layer_of(module: str) -> int:
    fitting = [
        (len(name), level)
        for level, names in enumerate(LAYERS)
        for name in names
        if within(module, name)
    ]
    assert fitting, f"{module} is in no layer: give it one"
    return max(fitting)[1]


def tree(module: str) -> ast.Module:
    return ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text())


def imported(module: str) -> set[str]:
    """The modules of this package that a module imports."""
    found = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if within(name, "botwire_server"):
                found.add(module_of(name.removeprefix("botwire_server").lstrip(".")))
    return found - {"", "__init__"}


def module_of(name: str) -> str:
    """`store.entries` for `store.entries.get`."""
    while name and name not in MODULES and f"{name}.__init__" not in MODULES:
        name = name.rpartition(".")[0]
    return name


@pytest.mark.parametrize("module", [m for m in MODULES if m != "__init__"])
def test_imports_point_one_way(module):
    for other in imported(module):
        assert layer_of(other) <= layer_of(module), f"{module} imports {other}"


@pytest.mark.parametrize("module", MODULES)
def test_no_dialect_knows_another(module):
    [own] = [dialect for dialect in DIALECTS if within(module, dialect)] or [None]
    if own is not None:
        for other in imported(module):
            assert not any(within(other, d) for d in DIALECTS if d != own), f"{module}: {other}"


@pytest.mark.parametrize("module", MODULES)
def test_the_store_knows_no_web_framework(module):
    if within(module, "store") or module in ("errors", "config"):
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
                for name in names:
                    assert not name.startswith(("starlette", "uvicorn", "httptools", "click"))


@pytest.mark.parametrize("module", MODULES)
def test_no_import_inside_a_function(module):
    for function in ast.walk(tree(module)):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            inner = [n for n in ast.walk(function) if isinstance(n, ast.Import | ast.ImportFrom)]
            assert not inner, f"{module}: line {inner[0].lineno}"


@pytest.mark.parametrize("module", MODULES)
def test_a_module_is_at_most_400_lines_of_code(module):
    source = (ROOT / (module.replace(".", "/") + ".py")).read_text().splitlines()
    assert sum(1 for line in source if line.strip()) <= 400


@pytest.mark.parametrize("module", [m for m in MODULES if not m.startswith("__")])
def test_a_module_says_what_it_is_for(module):
    assert ast.get_docstring(tree(module))


def test_every_sql_is_in_the_store():
    for module in MODULES:
        if not within(module, "store"):
            for node in ast.walk(tree(module)):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    assert not node.value.lstrip().startswith(
                        ("SELECT ", "INSERT ", "UPDATE ", "DELETE FROM", "PRAGMA ")
                    ), f"{module}: line {node.lineno}"
