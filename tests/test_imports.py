"""Imports in the package point one way, and some libraries belong to some layers only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "qexplore"

BASE = {"errors", "registry", "recipe", "workload", "batches", "progress", "exclusive", "isolate"}
CORE = BASE | {"numerics", "calibrate", "engines", "analysis", "plots"}
EVERYTHING = CORE | {"zoo", "environment", "export", "glossary", "widgets"}

# What each module or folder directly below the package may import of the package, itself aside.
# "" is qexplore/__init__.py.
MAY_IMPORT = {
    "errors": set(),
    "environment": {"errors"},
    "registry": {"errors"},
    "recipe": {"errors", "registry"},
    "workload": {"errors", "registry", "zoo"},  # zoo on first use, to register the demos
    "batches": {"errors", "workload"},
    "progress": {"errors"},
    "exclusive": {"progress"},
    "isolate": set(),
    "glossary": set(),
    "zoo": {"errors", "registry", "workload"},
    "numerics": BASE,
    "calibrate": BASE | {"numerics"},
    "engines": BASE | {"numerics", "calibrate"},
    "analysis": BASE | {"numerics", "calibrate", "engines"},
    "plots": CORE,
    "export": EVERYTHING - {"widgets"},
    "widgets": EVERYTHING,
    "lesson": EVERYTHING,
    "": EVERYTHING,
}

# Who may import these libraries; everything else of the package may not.
ONLY_FOR = {
    "torch.ao": {"engines"},
    "torch.quantization": {"engines"},
    "torchao": {"engines"},
    "plotly": {"plots", "widgets", "export"},
    "ipywidgets": {"widgets"},
    "anywidget": {"widgets"},
}


def layer_of(path: Path, package: Path) -> str:
    """The name directly below the package that a file belongs to; "" for the package's own __init__."""
    name = path.relative_to(package).parts[0]
    return "" if name == "__init__.py" else name.removesuffix(".py")


def modules_used(tree: ast.Module, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """Line and full name of everything a module imports, wherever in it, and of `torch.x.y` it reaches into."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                parents = module.split(".")
                parents = parents[: len(parents) - node.level + is_package]
                source = ".".join([*parents, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, f"{source}.{alias.name}"
        elif isinstance(node, ast.Attribute) and ast.unparse(node).startswith("torch."):
            yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            for value in node.args[:1]:
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    yield node.lineno, value.value


def violations(package: Path) -> list[str]:
    """One sentence for every import that goes the wrong way, and for every file without a layer."""
    layers = {layer_of(path, package) for path in package.rglob("*.py")}
    found = [f"{package.name}/{name} has no layer: place it in MAY_IMPORT." for name in sorted(layers - {*MAY_IMPORT})]
    for path in sorted(package.rglob("*.py")):
        layer = layer_of(path, package)
        if layer not in MAY_IMPORT:
            continue
        parts = path.relative_to(package.parent).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        module = ".".join(parts[:-1] if is_package else parts)
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        for line, name in sorted(set(modules_used(tree, module, is_package))):
            where = f"{path.relative_to(package.parent).as_posix()}:{line}"
            if name == package.name or name.startswith(f"{package.name}."):
                below = name.split(".")[1:2]
                target = below[0] if below and below[0] in layers | {*MAY_IMPORT} else ""
                if target not in MAY_IMPORT[layer] | {layer}:
                    found.append(f"{where} imports {target or 'the package itself'}, which {layer} may not.")
            for library, users in ONLY_FOR.items():
                if f"{name}.".startswith(f"{library}.") and layer not in users:
                    found.append(f"{where} uses {library}, which only {' and '.join(sorted(users))} may.")
    init = package / "__init__.py"
    for node in ast.parse(init.read_text(encoding="utf-8")).body if init.exists() else []:
        wrapper = ast.Module([node], [])
        names = modules_used(wrapper, package.name, True) if isinstance(node, ast.Import | ast.ImportFrom) else ()
        if any(f"{name}.".startswith(f"{package.name}.widgets.") for _, name in names):
            found.append(f"{package.name}/__init__.py:{node.lineno} imports widgets at once; import it where needed.")
    return sorted(set(found))


def test_imports_point_one_way() -> None:
    found = violations(PACKAGE)
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("file", "code", "sentence"),
    [
        ("recipe.py", "from qexplore.engines import fx", "qexplore/recipe.py:1 imports engines, which recipe may not."),
        ("numerics/affine.py", "def f():\n    import qexplore.plots.theme", "numerics/affine.py:2 imports plots"),
        ("calibrate/__init__.py", "from ..analysis import predict", "calibrate/__init__.py:1 imports analysis"),
        ("calibrate/observers/mse.py", "from ...engines.fx import a", "observers/mse.py:1 imports engines"),
        ("engines/fx.py", "from .. import widgets", "engines/fx.py:1 imports widgets"),
        ("analysis/a.py", "import qexplore as qx", "analysis/a.py:1 imports the package itself"),
        ("analysis/a.py", "from qexplore import Recipe", "analysis/a.py:1 imports the package itself"),
        ("analysis/a.py", "import torch.ao.quantization as q", "uses torch.ao, which only engines may."),
        ("analysis/a.py", "from torch import ao", "analysis/a.py:1 uses torch.ao"),
        ("analysis/a.py", "import torch\nx = torch.ao.quantization", "analysis/a.py:2 uses torch.ao"),
        ("zoo/a.py", "import importlib\nimportlib.import_module('torchao.x')", "zoo/a.py:2 uses torchao"),
        ("export.py", "def f():\n    import torchao", "export.py:2 uses torchao"),
        ("analysis/a.py", "import plotly.graph_objects as go", "analysis/a.py:1 uses plotly"),
        ("plots/bars.py", "from ipywidgets import HBox", "plots/bars.py:1 uses ipywidgets"),
        ("export.py", "from qexplore.widgets import state", "export.py:1 imports widgets"),
        ("__init__.py", "from qexplore.widgets import explore", "qexplore/__init__.py:1 imports widgets at once"),
        ("cache/disk.py", "", "qexplore/cache has no layer: place it in MAY_IMPORT."),
        ("cache.py", "", "qexplore/cache has no layer: place it in MAY_IMPORT."),
    ],
)
def test_violations_are_found(tmp_path: Path, file: str, code: str, sentence: str) -> None:
    path = tmp_path / "qexplore" / file
    path.parent.mkdir(parents=True)
    path.write_text(code)
    found = violations(tmp_path / "qexplore")
    assert len(found) == 1
    assert sentence in found[0]


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("engines/fx.py", "import torch.ao.quantization\nfrom .common import a\nfrom ..calibrate import stats"),
        ("plots/bars.py", "import plotly.graph_objects as go\nfrom qexplore.analysis.ledger import Ledger"),
        ("widgets/panes.py", "import ipywidgets\nimport plotly\nfrom qexplore import export, plots"),
        ("analysis/a.py", "import torch\nx = torch.backends.quantized.engine"),
        ("__init__.py", "from .recipe import Recipe\ndef explore():\n    from qexplore.widgets import explore"),
    ],
)
def test_allowed_imports_pass(tmp_path: Path, file: str, code: str) -> None:
    path = tmp_path / "qexplore" / file
    path.parent.mkdir(parents=True)
    path.write_text(code)
    assert violations(tmp_path / "qexplore") == []
