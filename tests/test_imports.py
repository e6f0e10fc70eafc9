"""Imports run one way, and heavy libraries are loaded where they are used and no sooner."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import onnx
import pytest

import equint

ROOT = Path(equint.__file__).parent
FLOORS = (
    {"errors", "ir", "kinds", "markup"},
    {"crew", "drafts", "files", "maths", "tflite"},
    {"ops"},
    {"graph", "hardware"},
    {"noise", "onnx", "samples"},
    {"integers", "runtime", "torch"},
    {"frontends", "litert", "npu", "passes"},
    {"planning", "scoring"},
    {"arguments"},
    {"job"},
    {"result"},
    {"api", "devices", "study"},
    {"demo", "pages"},
    {"comparisons"},
    {"studies"},
    {"automatic"},
    {"cli"},
)
"""Rooms from the ground up: each imports from the floors below it and from itself, lazily or not, types included."""
LEVEL = {room: level for level, floor in enumerate(FLOORS) for room in floor}
LIBRARIES = {
    "onnx": {"onnx", "runtime", "frontends", "integers", "ops", "tflite"},
    "flatbuffers": {"tflite"},
    "safetensors": {"npu"},
    "jsonschema": {"npu"},
    "jinja2": {"pages"},
    "onnxruntime": {"runtime", "integers"},
    "ray": {"crew"},
    "PIL": {"pages", "samples", "scoring"},  # pages show thumbnails
    "typer": {"cli"},
    "matplotlib": {"pages"},
    "rich": {"cli", "pages", "demo"},
}


def imports(body: list[ast.stmt], lazy: bool = True) -> Iterator[ast.Import | ast.ImportFrom]:
    """Import statements; only where `lazy`, those in functions and those for type checkers too."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            yield from imports([*(node.body if lazy else ()), *node.orelse], lazy)
        elif lazy or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for field in ("body", "orelse", "finalbody", "handlers"):
                yield from imports(getattr(node, field, []), lazy)


def imported(path: Path, lazy: bool = True) -> Iterator[str]:
    """Full names of the modules that a file imports; names that are no modules included."""
    package = ["equint", *path.relative_to(ROOT).parts[:-1]]
    for node in imports(ast.parse(path.read_text("utf-8")).body, lazy):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
            continue
        base = package[: len(package) - node.level + 1] if node.level else []
        base = [*base, *([node.module] if node.module else [])]
        yield from (".".join([*base, alias.name]) for alias in node.names)


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


FILES = sorted(ROOT.rglob("*.py"))


def test_imports_run_downwards() -> None:
    upwards = set()
    for path in FILES:
        own = room(path)
        if own in ("__init__", "__main__"):
            continue
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for found in imported(path):
            other = found.removeprefix("equint.").split(".")[0]
            if found.startswith("equint.") and other in LEVEL and other != own and LEVEL[other] >= LEVEL[own]:
                upwards.add((name, found.removeprefix("equint.").rpartition(".")[0]))
    assert upwards == set()


def test_no_pass_imports_another() -> None:
    passes = {f"equint.passes.{path.stem}" for path in ROOT.glob("passes/*.py")}
    for path in ROOT.glob("passes/*.py"):
        assert not passes & {name.rpartition(".")[0] for name in imported(path)}, path.stem


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_libraries_stay_in_their_rooms(path: Path) -> None:
    for name in imported(path):
        library = name.split(".")[0]
        assert room(path) in LIBRARIES.get(library, {room(path)}), name


def test_no_cycles() -> None:
    modules = {".".join(["equint", *p.relative_to(ROOT).with_suffix("").parts]): p for p in FILES}
    modules = {name.removesuffix(".__init__"): p for name, p in modules.items()}
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for name, path in modules.items():
        for target in imported(path, lazy=False):
            found = target if target in modules else target.rpartition(".")[0]
            if found in modules and found != name:
                sorter.add(name, found)
    sorter.prepare()  # raises CycleError, which names the modules


HEAVY = {
    "onnx",
    "flatbuffers",
    "onnxruntime",
    "safetensors",
    "jsonschema",
    "PIL",
    "typer",
    "rich",
    "matplotlib",
    "torch",
    "ray",
}


def loaded(code: str) -> set[str]:
    """Names of the libraries in memory after running `code` in a fresh interpreter."""
    code = f"{code}\nimport sys; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_importing_equint_is_light() -> None:
    assert not HEAVY & loaded("import equint")


def test_importing_the_library_is_light() -> None:
    code = "from equint import quantize, load, Result"
    assert not HEAVY & loaded(code)


@pytest.mark.slow
def test_quantizing_needs_no_pictures_no_terminal_and_no_torch() -> None:
    """But onnxruntime, which must load a network before work starts."""
    code = "import equint; from equint.demo import model_path; "
    code += "equint.quantize(model_path(), 'dfq', input=(0, 1)).proto"
    assert not {"PIL", "typer", "rich", "matplotlib", "torch"} & loaded(code)


NAMES = {schema.name for schema in onnx.defs.get_all_schemas()}
ROOMS_OF_OPERATORS = {"ops", "onnx", "tflite", "integers", "litert"}
NAMED_ELSEWHERE = {
    "passes/fold_batchnorm.py": 15,  # what an affine operator does to a layer's weights, and what it leaves behind
    "runtime/layer_noise.py": 13,  # a network that computes noise, put together
    "torch/executor.py": 4,  # quantizers, whose integers are carried as floats
    "hardware/lint.py": 1,
    "npu/faults.py": 1,
    "passes/quantize.py": 1,
    "passes/relu6.py": 1,
    "runtime/session.py": 1,
    "runtime/sweep.py": 1,
    "study/compare.py": 1,
}
"""Files that call operators by name outside the rooms that describe and write them, and how often: fewer than 40."""


def named_operators(path: Path) -> int:
    """String literals that are names of operators; docstrings and examples do not count."""
    tree = ast.parse(path.read_text("utf-8"))
    texts = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)}
    literals = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and id(n) not in texts]
    return sum(isinstance(n.value, str) and n.value in NAMES for n in literals)


@pytest.mark.slow
def test_operators_are_named_in_their_rooms() -> None:
    counts = {str(p.relative_to(ROOT)): named_operators(p) for p in FILES if room(p) not in ROOMS_OF_OPERATORS}
    assert {path: n for path, n in counts.items() if n} == NAMED_ELSEWHERE
    assert sum(NAMED_ELSEWHERE.values()) < 40


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_operator_is_known_by_a_part_of_its_name(path: Path) -> None:
    """`"Pool" in node.op` and `node.op.startswith("Reduce")` would be silent about operators called otherwise."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn):
            of_name = isinstance(node.comparators[0], ast.Attribute) and node.comparators[0].attr in ("op", "op_type")
            assert not (of_name and isinstance(node.left, ast.Constant)), f"line {node.lineno}"
        if isinstance(node, ast.Attribute) and node.attr in ("startswith", "endswith"):
            called_on = node.value
            assert not (isinstance(called_on, ast.Attribute) and called_on.attr in ("op", "op_type")), f"{node.lineno}"


def test_nothing_is_unpickled() -> None:
    """No library that makes objects of bytes, and no array that may hold such."""
    makers = {"pickle", "dill", "marshal", "shelve", "joblib"}
    for path in FILES:
        tree = ast.parse(path.read_text("utf-8"))
        assert not {name.split(".")[0] for name in imported(path)} & makers, path
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            called = ast.unparse(call.func)
            if called in ("np.load", "numpy.load") or called.endswith("read_array"):
                assert "allow_pickle=False" in ast.unparse(call), (path, call.lineno)
            assert called not in ("torch.load", "eval", "exec"), (path, call.lineno)
