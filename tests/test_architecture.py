"""The house's law: who may import whom, no path of one machine, and a docstring for every public name.

Arrows point one way: ppvae.cli -> experiments -> {models, inference} -> ground (the other modules of ppvae).
"""

import ast
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
ROOMS = ("models", "inference", "experiments")
MAY_IMPORT = {
    "ground": {"ground"},
    "models": {"models", "ground"},
    "inference": {"inference", "ground"},
    "experiments": {"experiments", "models", "inference", "ground"},
    "cli": {"cli", "experiments", "models", "inference", "ground"},
}
COMMAND_LINE = ("ppvae/cli/", "ppvae/__main__.py")


def _room(file: str) -> str:
    """The room of a source file, by its path from the project's root."""
    top = file.split("/")[0]
    return "cli" if file.startswith(COMMAND_LINE) else top if top in ROOMS else "ground"


def _room_of_module(module: str) -> str:
    part = module.split(".")[1] if "." in module else ""
    return "cli" if part in ("cli", "__main__") else part if part in ROOMS else "ground"


def _package(file: str) -> list[str]:
    """The package that a source file's relative imports start from: ["ppvae", "models"] for models/vae.py."""
    folders = file.split("/")[:-1]
    return folders if folders[0] not in ROOMS else ["ppvae", *folders]


def _imported(node: ast.AST, file: str) -> list[str]:
    """The modules that an import statement names, in full; `from ppvae import models` names ppvae.models."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    package = _package(file)
    start = package[: len(package) - node.level + 1] if node.level else []
    module = ".".join([*start, *([node.module] if node.module else [])])
    return [f"ppvae.{alias.name}" for alias in node.names] if module == "ppvae" else [module]


def violations(source: str, file: str) -> list[str]:
    """Every import in ``source`` that breaks the law, were it the file ``file`` of the project."""
    room, found = _room(file), []
    for node in ast.walk(ast.parse(source)):
        line = f"{file}:{getattr(node, 'lineno', 0)}"
        relative = isinstance(node, ast.ImportFrom) and node.level > 0
        for module in _imported(node, file):
            top, target = module.split(".")[0], _room_of_module(module)
            if top in ROOMS:
                found.append(f"{line} imports {module}, which is called ppvae.{module}")
            elif top == "ppvae" and target not in MAY_IMPORT[room]:
                found.append(f"{line} is in {room} and imports {module}")
            elif top == "ppvae" and room in ROOMS and relative != (target == room):
                found.append(f"{line} imports {module}: within a room be relative, across rooms absolute")
    return found


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("models/vae.py", "from ppvae.inference import fit"),
        ("models/vae.py", "def f():\n    import ppvae.inference.svi.fit"),
        ("models/vae.py", "from ppvae import inference"),
        ("models/vae.py", "from ppvae.experiments import gap"),
        ("models/vae.py", "from ppvae.models.linear import LinearGaussian"),
        ("models/vae.py", "from ..inference import fit"),
        ("models/vae.py", "from .. import inference"),
        ("experiments/gap.py", "from ..models import VAE"),
        ("models/vae.py", "from models.linear import LinearGaussian"),
        ("inference/svi/fit.py", "import inference"),
        ("inference/svi/fit.py", "from ppvae.models import VAE"),
        ("inference/svi/fit.py", "from ppvae.cli import main"),
        ("experiments/gap.py", "from ppvae import cli"),
        ("ppvae/progress.py", "from ppvae.models import VAE"),
        ("ppvae/progress.py", "from ppvae.cli import main"),
        ("ppvae/progress.py", "import experiments.gap"),
        ("ppvae/progress.py", "from .models import VAE"),
        ("ppvae/progress.py", "from . import cli"),
    ],
)
def test_a_planted_violation_is_found(file, source):
    assert len(violations(source, file)) == 1


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("models/vae.py", "from .networks import MLP\nfrom . import linear\nfrom ppvae.errors import DataError"),
        ("experiments/gap.py", "from ppvae.models import VAE\nfrom ppvae.inference import fit\nimport ppvae.datasets"),
        ("ppvae/cli/commands.py", "from ppvae.experiments import gap\nfrom ppvae import models\nfrom . import usage"),
        ("ppvae/__main__.py", "from ppvae.cli import main"),
        (
            "ppvae/progress.py",
            "from ppvae.errors import RunError\nfrom ppvae import __version__\nimport sklearn.experimental",
        ),
    ],
)
def test_lawful_imports_pass(file, source):
    assert violations(source, file) == []


def _sources(*folders: str) -> list[Path]:
    return sorted(file for folder in folders for file in (PROJECT / folder).rglob("*.py"))


def test_arrows_point_one_way():
    files = _sources("ppvae", *ROOMS)
    assert len(files) > 4
    assert [
        wrong for file in files for wrong in violations(file.read_text(), file.relative_to(PROJECT).as_posix())
    ] == []


def test_tests_import_the_rooms_by_their_full_names():
    wrong = []
    for file in _sources("tests"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [module.split(".")[0] for module in _imported(node, "tests/test.py")]
            wrong += [f"{file.name} imports {name}" for name in names if name in ROOMS]
    assert wrong == []


# The start of a path, not the middle of one as in "models/root" or "https://host/home".
MACHINE_PATH = re.compile(r"(?<![\w./~})-])/(?:work|root|home|Users)\b")
OURS = ("*.md", "*.toml", "*.txt", "*.yaml", "Makefile", "LICENSE", ".gitignore", ".ci/*")


@pytest.mark.parametrize("folder", ["work", "root", "home", "Users"])
def test_a_planted_path_is_found(folder):
    path = "/" + folder
    assert MACHINE_PATH.search(f"see models{path}/x, open('{path}/x')")
    assert MACHINE_PATH.search(f"cd {path}")
    assert not MACHINE_PATH.search(f"see models{path}/x, https://host{path} and {path}s")


def test_no_file_holds_a_path_of_one_machine():
    files = [file for pattern in OURS for file in PROJECT.glob(pattern)]
    files += [file for folder in ("ppvae", "tests", *ROOMS) for file in (PROJECT / folder).rglob("*")]
    texts = {
        file: file.read_bytes().decode(errors="ignore") for file in files if file.suffix != ".pyc" and file.is_file()
    }
    assert len(texts) > 10
    assert [str(file.relative_to(PROJECT)) for file, text in texts.items() if MACHINE_PATH.search(text)] == []


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_has_a_docstring(room):
    module = importlib.import_module(f"ppvae.{room}")
    assert inspect.getdoc(module)
    # What is no class or function, a constant, inherits its type's docstring and is described where it stands.
    names = [name for name in getattr(module, "__all__", []) if callable(getattr(module, name))]
    assert [name for name in names if not (getattr(module, name).__doc__ or "").strip()] == []


def test_the_wheel_is_told_of_every_folder_and_every_file_that_is_not_python():
    told = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = told["package-dir"]
    assert set(told["packages"]) == set(folders)
    files = [file for top in ("ppvae", *ROOMS) for file in (PROJECT / top).rglob("*") if file.is_file()]
    files = [file.relative_to(PROJECT) for file in files if file.suffix != ".pyc"]
    assert {file.parent.as_posix() for file in files if file.suffix == ".py"} == set(folders.values())
    data = [(Path(folders[package]), pattern) for package, each in told["package-data"].items() for pattern in each]
    # What a published run left beside its config.yaml is for readers of the repository, not for the wheel.
    published = {file.parent.as_posix() for file in files if file.name == "config.yaml"}
    inside = [file for file in files if not any(f"{file.as_posix()}".startswith(f"{run}/") for run in published)]
    others = [file for file in inside if file.suffix != ".py"]
    assert others
    untold = [file for file in others if not any(file.match(str(folder / pattern)) for folder, pattern in data)]
    assert untold == []


# --- the rooms inside inference ---------------------------------------------------------------------------------------

# A room imports from rooms of a lower number, and from those of its own number where that closes no circle.
FLOORS = {
    "options": 0,
    "option_records": 0,
    "records": 0,
    "graphs": 0,
    "pair": 1,
    "sampling": 2,
    "latents": 2,
    "calibration": 2,
    "resume": 2,
    "evidence": 3,
    "bounds": 3,
    "posterior": 4,
    "gap": 4,
    "prediction": 5,
    "shards": 5,
    "svi": 6,
    "mending": 7,
    "collapse": 7,
    "scikit_learn": 7,
}
MAY_HANDLE_PROGRAMS = (
    "inference/pair/",
    "inference/svi/",
    "inference/gap/guide_family.py",
    "inference/mending/guide_reader.py",
    "inference/mending/mended_guide.py",
    "inference/mending/mixed_guide.py",
    "inference/mending/stepped_guide.py",
)


def room_violations(source: str, file: str) -> list[str]:
    """Imports between the rooms of inference that go up, or past a room's door, were ``source`` the file ``file``."""
    parts, found = Path(file).with_suffix("").parts, []
    room = parts[1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level == len(parts) - 1 and node.module:
            target, *inside = node.module.split(".")
            if inside:
                found.append(f"{file}:{node.lineno} imports {node.module}: from outside a room, import from its door")
            if FLOORS[target] > FLOORS[room]:
                found.append(f"{file}:{node.lineno} imports {target}, which is above {room}")
    return found


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("inference/pair/pair.py", "from ..sampling import tune"),
        ("inference/sampling/hmc.py", "from ..evidence import Evidence"),
        ("inference/evidence/annealed.py", "from ..pair.pair import Pair"),
        ("inference/evidence/annealed.py", "from ..posterior import Posterior"),
        ("inference/options.py", "from .pair import Pair"),
    ],
)
def test_a_planted_violation_between_rooms_is_found(file, source):
    assert len(room_violations(source, file)) == 1


def test_rooms_of_inference_import_downwards_and_through_doors():
    files = [file for file in _sources("inference") if file.name != "__init__.py"]
    assert len(files) > 40
    assert [
        wrong for file in files for wrong in room_violations(file.read_text(), file.relative_to(PROJECT).as_posix())
    ] == []


def test_rooms_of_one_floor_do_not_import_each_other_in_a_circle():
    arrows = {room: set() for room in FLOORS}
    for file in _sources("inference"):
        parts = file.relative_to(PROJECT).with_suffix("").parts
        if parts[1] not in FLOORS or file.name == "__init__.py":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == len(parts) - 1 and node.module:
                target = node.module.split(".")[0]
                if FLOORS[target] == FLOORS[parts[1]]:
                    arrows[parts[1]].add(target)
    while arrows:
        last = [room for room, targets in arrows.items() if not targets]
        assert last, arrows
        arrows = {room: targets - set(last) for room, targets in arrows.items() if room not in last}


def test_only_the_pair_the_training_and_the_guide_family_handle_programs():
    """Pyro's effect handlers and its plates: everyone else holds a Pair."""
    handling = re.compile(r"\bpoutine\b.*import|import.*\bpoutine\b|\bpyro\.plate\(", re.MULTILINE)
    found = []
    for file in _sources("ppvae", "inference", "experiments"):
        name = file.relative_to(PROJECT).as_posix()
        if not name.startswith(MAY_HANDLE_PROGRAMS) and _handles(file.read_text(), handling):
            found.append(name)
    # Experiments that define pairs of their own are models in this respect.
    assert set(found) <= {"experiments/restricted_guides.py", "experiments/missed_mode_pairs.py"}


def _handles(source: str, pattern: re.Pattern[str]) -> bool:
    """Whether code, docstrings left out, matches."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            node.value.value = ""
    return bool(pattern.search(ast.unparse(tree)))


MUTATORS = {"append", "extend", "add", "update", "pop", "setdefault", "clear", "remove", "insert", "discard", "popitem"}


def mutated_globals(source: str) -> list[str]:
    """Names of a module that its functions change."""
    tree = ast.parse(source)
    top = {
        target.id
        for node in tree.body
        if isinstance(node, (ast.Assign, ast.AnnAssign))
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    found = []
    for function in ast.walk(tree):
        if isinstance(function, (ast.FunctionDef, ast.Lambda)):
            for node in ast.walk(function):
                if isinstance(node, ast.Global):
                    found += node.names
                elif isinstance(node, ast.Subscript) and isinstance(node.ctx, (ast.Store, ast.Del)):
                    held = node.value
                    found += [held.id] if isinstance(held, ast.Name) and held.id in top else []
                elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    owner = node.func.value
                    if node.func.attr in MUTATORS and isinstance(owner, ast.Name) and owner.id in top:
                        found.append(owner.id)
    return found


def test_a_planted_module_state_is_found():
    assert mutated_globals("stores = {}\ndef f(x):\n    stores[x] = 1") == ["stores"]
    assert mutated_globals("entered = []\ndef f(x):\n    entered.append(x)") == ["entered"]
    assert mutated_globals("n = 0\ndef f():\n    global n\n    n = 1") == ["n"]
    assert mutated_globals("TABLE = {1: 2}\ndef f(x):\n    found = []\n    found.append(TABLE[x])") == []


def test_no_module_has_state():
    state = {file.name: mutated_globals(file.read_text()) for file in _sources("ppvae", *ROOMS)}
    assert {name: names for name, names in state.items() if names} == {}


def test_no_two_files_and_no_two_classes_have_one_name():
    files = [file for file in _sources("ppvae", *ROOMS) if file.name not in ("__init__.py", "__main__.py")]
    names = [file.name for file in files]
    assert sorted({name for name in names if names.count(name) > 1}) == []
    classes = [
        node.name
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef) and node.name != "Config"  # what an experiment calls its settings
    ]
    assert sorted({name for name in classes if classes.count(name) > 1}) == []


# The three arguments that every estimator has come on top.
SHARED_ARGUMENTS = {"seed", "memory_mb", "progress"}
MOST_ARGUMENTS = 8
# Their signatures are known to users.
MAY_TAKE_MORE = {"fit", "importance_evidence"}


def too_many_arguments(source: str) -> list[str]:
    """Public functions and methods that take more arguments than the law allows."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not node.name.startswith("_"):
            given = node.args
            names = [argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
            own = [name for name in names if name not in {"self", "cls"} | SHARED_ARGUMENTS]
            if len(own) > MOST_ARGUMENTS and node.name not in MAY_TAKE_MORE:
                found.append(f"{node.name} takes {len(own)}")
    return found


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def f(a, b, c, d, e, g, h, i, j): ...", ["f takes 9"]),
        ("class A:\n    def f(self, a, b, /, c, d, *, e=1, g=2, h=3, i=4, j=5, seed=None): ...", ["f takes 9"]),
        ("def f(a, b, c, d, e, g, h, i, seed=None, memory_mb=64.0, progress=False): ...", []),
        ("def _f(a, b, c, d, e, g, h, i, j): ...", []),
        ("def fit(a, b, c, d, e, g, h, i, j): ...", []),
    ],
)
def test_a_planted_long_signature_is_found(source, found):
    assert too_many_arguments(source) == found


def test_no_function_takes_more_than_eight_arguments():
    files = {file.relative_to(PROJECT).as_posix(): file.read_text() for file in _sources("ppvae", *ROOMS)}
    long = {name: too_many_arguments(source) for name, source in files.items()}
    assert {name: found for name, found in long.items() if found} == {}
    assert any("def fit(" in source for source in files.values())


# What the arguments of the same name are, said in the same words wherever they stand; more may follow.
WORDS = {
    "model": "``model(x, *context)``, the generative program",
    "guide": "``guide(x, *context)``",
    "x": "data, first dimension ``num_data``; or a tuple ``(x, *context)``",
    "seed": "draw from this seed and leave the global generators untouched; None draws from the global ones",
    "memory_mb": "budget in MiB for one pass of the pair",
    "progress": "show a progress bar with the time that remains",
}
# A training always has a seed, and so have shards; the surgery takes no context; a column's stability is of no pair.
OTHER_WORDS = {
    "fit": {"seed"},
    "in_shards": {"seed"},
    "elbo_surgery": {"model", "guide", "x"},
    "column_stability": {"x"},
}


def other_words(docstring: str) -> dict[str, str]:
    """The arguments of these names that a docstring describes in other words."""
    text = re.sub(r"\s+", " ", re.split(r"\n\n\w+:\n", docstring.partition("Args:\n")[2])[0])
    found = {name: re.search(rf"(?:^| ){name}: (.*?)(?=[.;] |[.]$)", text) for name in WORDS}
    said = {name: text[match.start(1) :] for name, match in found.items() if match}
    return {name: words for name, words in said.items() if not re.match(re.escape(WORDS[name]) + "[.;]", words)}


def test_planted_other_words_are_found():
    args = f"Do.\n\nArgs:\n    x: {WORDS['x']}. More.\n    seed: {{}}\n\nReturns:\n    seed: another.\n"
    assert other_words(args.format(f"{WORDS['seed']}.")) == {}
    assert list(other_words(args.format("of the draws."))) == ["seed"]
    assert list(other_words(args.format(f"{WORDS['seed']}, but for Mondays."))) == ["seed"]


def test_the_arguments_that_all_share_are_described_in_the_same_words():
    inference = importlib.import_module("ppvae.inference")
    functions = {name: getattr(inference, name) for name in inference.__all__}
    functions = {name: function for name, function in functions.items() if inspect.isfunction(function)}
    assert len(functions) > 15
    for name, function in functions.items():
        said = other_words(inspect.getdoc(function) or "")
        assert said.keys() == OTHER_WORDS.get(name, set()), (name, said)


# Files that are longer than 250 lines, with the length they may have: none may join them, and none may grow.
LONGER = {
    "models/likelihoods.py": 395,
    "models/linear.py": 318,
    "models/networks.py": 260,
    "inference/calibration/calibrate.py": 416,
    "inference/evidence/evidence.py": 322,
    "inference/gap/guide_family.py": 317,
    "inference/gap/refinement.py": 276,
    "inference/latents/active_units.py": 360,
    "inference/pair/check.py": 304,
    "inference/pair/pair.py": 374,
    "inference/pair/parameters.py": 327,
    "inference/pair/programs.py": 267,
    "inference/posterior/datatree.py": 264,
    "inference/posterior/quality.py": 348,
    "inference/posterior/reference.py": 383,
    "inference/svi/fit.py": 287,
    "experiments/missed_mode_pairs.py": 282,
}


def test_files_are_of_one_concept_and_not_long():
    lengths = {
        file.relative_to(PROJECT).as_posix(): len(file.read_text().splitlines()) for file in _sources("ppvae", *ROOMS)
    }
    assert {name: n for name, n in lengths.items() if n > LONGER.get(name, 250)} == {}
    assert [name for name in LONGER if lengths.get(name, 0) <= 250] == []


def test_importing_the_functions_loads_no_library_of_tables_or_figures():
    """They take seconds, and are imported where they are used; `import pyro` is what remains."""
    heavy = [
        "xarray",
        "pandas",
        "scipy.special",
        "scipy.stats",
        "arviz_stats",
        "arviz_base",
        "matplotlib",
        "lightning_fabric",
        "sklearn",
    ]
    code = f"import sys, ppvae.inference; print(sorted(set({heavy}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
