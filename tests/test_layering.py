"""The layering that the design promises, read off the source and, where imports chain, off a fresh interpreter."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = sorted((ROOT / "gptrec_rl").rglob("*.py"))
BELOW_CLI = [path for path in LIBRARY if not {"cli", "__main__.py"} & set(path.relative_to(ROOT).parts)]
SERVICES = sorted((ROOT / "services").glob("*.py"))

# Modules that write or read pickles, and functions that do so by default.
PICKLING = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
PICKLING_CALLS = {"torch.load", "torch.save", "pandas.read_pickle", "pd.read_pickle", "multiprocessing.Queue"}


def imports(source: str) -> set[str]:
    """Name every module that the source imports, inside functions too, with the names taken from it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where things come from"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def attributes(source: str) -> set[str]:
    """Name every dotted attribute that the source uses, such as os.environ."""
    return {ast.unparse(node) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)}


def without_main_block(source: str) -> str:
    """Drop what runs only when the file is started as a script, whose arguments are its own to read."""
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if not ast.unparse(node).startswith("if __name__ == '__main__':")]
    return ast.unparse(tree)


def belongs_to(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def violations(paths: list[Path], *packages: str) -> Iterator[str]:
    for path in paths:
        for name in sorted(imports(path.read_text())):
            if belongs_to(name, *packages):
                yield f"{path.relative_to(ROOT)} imports {name}"


def test_imports_sees_every_form():
    source = "import a.b as c\ndef f():\n    from d import e, g\n"
    assert imports(source) == {"a.b", "d.e", "d.g"}
    assert attributes("x = os.environ['A']") == {"os.environ"}
    assert without_main_block("import sys\nif __name__ == '__main__':\n    print(sys.argv)") == "import sys"


ROOMS = (
    ("errors", "files", "stops", "settings"),
    ("config_files",),
    ("data",),
    ("recommender", "metrics"),
    ("rewards", "rerank"),
    ("goals",),
    ("config",),
    ("models",),
    ("decoding",),
    ("evaluation",),
    ("significance",),
    ("reporting",),
    ("learning",),
    ("kinds",),
    ("store",),
    ("checkpoint",),
    ("transport",),
    ("telemetry",),
    ("fleet",),
    ("experiments",),
    ("runs",),
    ("api",),
    ("cli",),
    ("services",),
    ("benchmarks",),
    ("chaos",),
    ("fuzzing",),
)
"""From the ground up: a room imports only what stands above it here."""
FLOOR = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms}
OUTSIDE = ("services", "benchmarks", "chaos", "fuzzing")


def room_of(module: str) -> str:
    """Return the room of a module: what follows the library's name, or the package beside it."""
    parts = module.split(".")
    return parts[1] if parts[0] == "gptrec_rl" and len(parts) > 1 else parts[0]


def modules() -> dict[str, set[str]]:
    """Return which modules of this repository each of them imports."""
    paths = [*LIBRARY, *(path for place in OUTSIDE for path in sorted((ROOT / place).rglob("*.py")))]
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}
    found = {}
    for name, path in names.items():
        taken = {each for each in imports(path.read_text()) if belongs_to(each, "gptrec_rl", *OUTSIDE)}
        found[name] = {next(m for m in (each, each.rpartition(".")[0]) if m in names) for each in taken} - {name}
    return found


GRAPH = modules()


def test_every_room_has_a_floor_and_imports_only_from_below():
    up = [
        f"{name} imports {other}"
        for name, others in GRAPH.items()
        for other in others
        if (mine := room_of(name)) not in ("gptrec_rl", "__main__")
        and (theirs := room_of(other)) not in ("gptrec_rl", mine)
        and FLOOR[theirs] >= FLOOR[mine]
    ]
    assert up == []


def test_no_modules_import_each_other_in_a_circle():
    graph = {name: others - {"gptrec_rl"} for name, others in GRAPH.items()}
    while leaves := {name for name, others in graph.items() if not others & graph.keys()}:
        graph = {name: others for name, others in graph.items() if name not in leaves}
    assert graph == {}


def test_nothing_in_the_library_imports_what_is_beside_it():
    assert list(violations(LIBRARY, *OUTSIDE)) == []
    assert list(violations(BELOW_CLI, "click")) == []


@pytest.mark.parametrize("service", SERVICES, ids=lambda path: path.stem)
def test_no_service_imports_another(service):
    assert list(violations([service], "services")) == []


@pytest.mark.parametrize("package", ["data", "transport"])
def test_package_imports_no_torch(package):
    paths = sorted((ROOT / "gptrec_rl" / package).rglob("*.py"))
    assert list(violations(paths, "torch", "transformers", "safetensors.torch")) == []


@pytest.mark.parametrize("package", ["data", "transport"])
def test_package_loads_no_torch_through_others(package):
    program = f"""
import pkgutil, sys, gptrec_rl.{package} as package
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    __import__(module.name)
sys.exit("torch" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_processes_that_compute_start_without_transformers():
    program = """
import sys
import gptrec_rl.fleet.generator, gptrec_rl.fleet.optimiser, gptrec_rl.fleet.validator
sys.exit("transformers" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_plain_ways_of_the_benchmark_use_nothing_of_this_library():
    assert list(violations([ROOT / "benchmarks" / "plain.py"], "gptrec_rl", "benchmarks")) == []


def test_nothing_below_cli_reads_arguments_or_environment():
    reads = {"os.environ", "os.environb", "os.getenv", "sys.argv"}
    found = []
    for path in BELOW_CLI:
        if path.name == "launcher.py":  # which hands the environment on to children
            continue
        source = without_main_block(path.read_text())
        found += [(path.name, name) for name in (attributes(source) | imports(source)) & reads]
    assert found == []


def test_pickle_appears_nowhere():
    everywhere = [*LIBRARY, *SERVICES]
    assert list(violations(everywhere, *PICKLING)) == []
    calls = [(path.name, name) for path in everywhere for name in attributes(path.read_text()) & PICKLING_CALLS]
    assert calls == []
    assert [path.name for path in everywhere if "allow_pickle=True" in path.read_text()] == []
