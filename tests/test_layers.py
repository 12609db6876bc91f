"""Which room may import which, read from the source: no module is imported here."""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = [name for name in ("adapters", "trainer", "server", "ui") if (ROOT / name).is_dir()]
FILES = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
MODULES = {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in FILES}
LIGHT = {"pydantic", "safetensors", "numpy", "adapters"}
HEAVY = {"torch", "transformers", "trl", "peft", "datasets", "vllm", "gradio", "openai"}
ROOMS = {
    "adapters": ["cli", "models", "store", "emails", "console", "options", "settings", "free_cores", "errors"],
    "server": [
        "launch",
        "vllm_server",
        "process",
        "plugin",
        "settings",
        "api",
        "drafts",
        "metrics",
        "paths",
        "engine",
        "cpu",
        "vllm_version",
    ],
    "trainer": [
        *["cli", "commands", "trials", "training", "evaluation", "mail", "data"],
        *["console", "text", "compute"],
    ],
    "ui": ["site", "pages", "parts", "client", "settings"],
}
"""The rooms of each package from top to bottom: a module imports from its own room and from those below it."""
STRANGERS = [
    ("trainer.evaluation", "trainer.mail"),
    ("trainer.text", "trainer.compute"),
    ("server.engine", "server.cpu"),
]
"""Rooms of which the first does not know the second, not even through a third."""
FOR_UI = {
    "adapters",
    "adapters.store.disk",
    "adapters.console",
    "adapters.errors",
    "adapters.options",
    "adapters.settings",
    "adapters.store",
}
FOR_UI |= {"adapters.store.manifest"} | {name for name in MODULES if name.startswith("adapters.emails")}


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def statements(node: ast.AST, inside_functions: bool) -> Iterator[ast.AST]:
    """Every node below `node` that runs; what only the type checker sees is left out."""
    for child in ast.iter_child_nodes(node):
        if for_types_only(child):
            continue
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not inside_functions:
            continue
        yield child
        yield from statements(child, inside_functions)


def imported(module: str, inside_functions: bool = True) -> set[str]:
    """The full names of what the module imports: of ours a module, of others what stands in the statement."""
    names: set[str] = set()
    for node in statements(tree(module), inside_functions):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            deeper = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            names |= deeper or {str(node.module)}
    return names


def reached(module: str, inside_functions: bool = True) -> set[str]:
    """Our modules that `module` imports, directly or through others, their packages included, and itself."""
    seen: set[str] = set()
    waiting = {module}
    while waiting:
        name = waiting.pop()
        seen.add(name)
        package = {name.rpartition(".")[0]} - {""}
        waiting |= ((imported(name, inside_functions) & MODULES.keys()) | package) - seen
    return seen


def room(module: str) -> str:
    package, _, rest = module.partition(".")
    return f"{package}.{rest.partition('.')[0]}" if rest else package


def packages(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def test_the_source_is_found():
    assert {"adapters.store.store", "trainer.training.sft", "server.api.gate", "adapters"} <= MODULES.keys()
    assert "adapters.store.store" in imported("trainer.training.sft")
    assert "trl" in imported("trainer.training.sft_trainer")


@pytest.mark.parametrize("module", MODULES)
def test_trainer_server_and_ui_never_import_one_another(module: str):
    package = module.partition(".")[0]
    others = {"trainer", "server", "ui"} - {package}
    assert packages(imported(module)) & others == set()


@pytest.mark.parametrize("module", [name for name in MODULES if name.partition(".")[0] == "adapters"])
def test_adapters_imports_nothing_heavy_with_itself(module: str):
    outside = packages(imported(module, inside_functions=False)) - sys.stdlib_module_names
    assert outside <= LIGHT


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_from_its_own_room_and_from_those_below(module: str):
    package = module.partition(".")[0]
    order = [f"{package}.{name}" for name in ROOMS[package]]
    if module != package:
        below = {package, *order[order.index(room(module)) :]}
        others = {name for name in imported(module) & MODULES.keys() if name.partition(".")[0] == package}
        assert {name for name in others if room(name) not in below} == set()


@pytest.mark.parametrize(("upper", "lower"), STRANGERS)
def test_a_room_does_not_reach_one_that_it_has_no_business_with(upper: str, lower: str):
    reaching = {
        f"{module} -> {name}"
        for module in MODULES
        if room(module) == upper
        for name in reached(module)
        if room(name) == lower
    }
    assert reaching == set()


@pytest.mark.parametrize("folder", sorted({file.parent for file in FILES}), ids=lambda folder: folder.name)
def test_a_room_says_what_it_is_for(folder: Path):
    assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("ui.")])
def test_the_page_knows_of_adapters_what_needs_no_store(module: str):
    assert {name for name in reached(module) if name.partition(".")[0] == "adapters"} <= FOR_UI


@pytest.mark.parametrize(
    "module",
    [
        "trainer.cli",
        "trainer.data.examples",
        "trainer.training.recipe",
        "adapters.cli",
        "server.settings",
        "ui.settings",
        "ui.site",
    ],
)
def test_what_the_help_needs_imports_nothing_heavy(module: str):
    names = {
        name for each in reached(module, inside_functions=False) for name in imported(each, inside_functions=False)
    }
    assert packages(names) & HEAVY == set()


def test_only_one_file_imports_trl():
    assert [module for module in MODULES if "trl" in packages(imported(module))] == ["trainer.training.sft_trainer"]


def test_only_the_server_imports_vllm():
    who = {module.partition(".")[0] for module in MODULES if "vllm" in packages(imported(module))}
    assert who == {"server"}


def test_one_file_of_the_page_talks_to_the_server():
    talking = {"openai", "httpx", "httpx2", "requests", "urllib.request", "socket", "aiohttp"}
    who = {module for module in MODULES if module.startswith("ui.") and (imported(module) & talking)}
    assert who == {"ui.client"}


def test_no_modules_import_one_another_in_a_circle():
    graph = {module: (imported(module) & MODULES.keys()) - {module} for module in MODULES}
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as exc:
        pytest.fail(" -> ".join(exc.args[1]))
    assert order.index("adapters.errors") < order.index("adapters.store.store") < order.index("trainer.training.sft")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_file_is_named_for_anything_and_nothing(file: Path):
    forbidden = ("utils", "util", "helpers", "helper", "manager", "common", "misc")
    assert not [word for word in file.stem.split("_") if word in forbidden]


@pytest.mark.parametrize("module", MODULES)
def test_no_function_changes_a_global(module: str):
    assert [node.lineno for node in ast.walk(tree(module)) if isinstance(node, ast.Global)] == []


@pytest.mark.parametrize("module", MODULES)
def test_a_module_says_what_it_does_and_stays_short(module: str):
    assert ast.get_docstring(tree(module))
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("module", MODULES)
def test_no_function_is_longer_than_60_lines(module: str):
    functions = [node for node in ast.walk(tree(module)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    too_long = [f"{f.name}: {f.end_lineno - f.lineno + 1}" for f in functions if f.end_lineno - f.lineno >= 60]
    assert too_long == []


@pytest.mark.parametrize("package", ["server", "ui"])
def test_only_the_settings_read_the_environment(package: str):
    readers = {
        module
        for module in MODULES
        if module.startswith(f"{package}.")
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.getenv", "os.environ.get")
    }
    assert readers <= {f"{package}.settings"}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_at_most_12_others_of_ours(module: str):
    """Not counted are imports inside functions."""
    assert len((imported(module, inside_functions=False) & MODULES.keys()) - {module}) <= 12
