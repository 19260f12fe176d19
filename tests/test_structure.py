"""The structure: imports point down, and steps do not know each other."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "revocab"
FLOORS = [  # lowest first: a module may import from its own package and from the floors below
    {"errors", "artifacts"},
    {"runtime"},
    {"corpus", "vocabulary", "vectors", "alignment", "initialisation", "training", "evaluation", "reporting"},
    {"schema", "shards"},
    {"identity", "upstream", "stages", "learning", "kinds", "findings"},
    {"adaptation", "comparison"},
    {"pipeline"},
    {"cli"},
]
FLOOR_OF = {name: height for height, names in enumerate(FLOORS) for name in names}
MODULES = sorted(path for path in SOURCE.rglob("*.py") if path.parent != SOURCE or path.stem != "__init__")


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "revocab":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("revocab."):
            yield node.module.split(".")[1]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_down(path):
    here = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    wrong = [there for there in imported(path) if there != here and FLOOR_OF[there] >= FLOOR_OF[here]]
    assert not wrong, f"{path.relative_to(SOURCE)} imports {wrong}"


def test_config_objects_stop_at_the_pipeline():
    for path in MODULES:
        here = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        if FLOOR_OF[here] < FLOOR_OF["schema"]:
            text = path.read_text(encoding="utf-8")
            assert "omegaconf" not in text, path
            assert "import hydra" not in text, path


def test_no_machine_paths_or_keys_in_the_project():
    for path in [*SOURCE.rglob("*.py"), *(ROOT / "conf").rglob("*.yaml"), *ROOT.glob("*.py")]:
        text = path.read_text(encoding="utf-8")
        assert "/home/" not in text, path
        assert "api_key=" not in text.lower(), path


def test_who_does_not_train_does_not_wait_for_what_training_needs():
    """Nor for transformers, which reads the code of all its models, nor for statistics: half a second to three each."""
    late = {
        "pytorch_lightning",
        "torchmetrics",
        "peft",
        "datasets",
        "torch._dynamo",
        "scipy.stats",
        "transformers",
    }
    code = f"import sys; from revocab import cli, pipeline; print(*(set({sorted(late)}) & sys.modules.keys()))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_a_task_is_read_beside_transformers_which_is_whole_then():
    code = """import sys
from revocab import cli
task = cli.task("align")
from revocab import pipeline
assert task is pipeline.align
print(type(sys.modules["transformers"]).__name__)
from transformers import PreTrainedTokenizerFast"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["_LazyModule"]
