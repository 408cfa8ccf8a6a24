"""A module imports only from lower layers."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "unmask"
# Low to high. Modules of one layer may import each other.
LAYERS = [
    ["checkout", "errors", "files", "media", "records", "secret", "vocabulary", "words"],
    ["report", "runs"],
    ["address"],
    ["schema"],
    ["masking"],
    ["nn", "decoding"],
    ["modality"],
    ["backbone"],
    ["objective", "task"],
    ["training"],
    ["callbacks"],
    ["chain", "recorded"],
    ["finetuning", "run"],
    ["probing"],
    ["build"],
    ["reading"],
    ["predict", "reconstruct"],
]
# Beside the stack: data knows no model, and the command line must answer before torch is loaded.
DATA = {"errors", "address", "media", "schema", "vocabulary", "data"}
COMMAND_LINE = {"checkout", "errors", "files", "records", "report", "rules", "secret", "sweep", "cli"}
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def imports(path: Path) -> set[str]:
    """First parts of the `unmask` modules that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "unmask":
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("unmask.")}
    return found


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_a_module_imports_only_from_lower_layers(path: Path):
    own = path.relative_to(SOURCE).with_suffix("").parts[0]
    if own == "__init__":
        assert not imports(path)
    elif own in {"data"}:
        assert imports(path) <= DATA
    elif own in ("rules", "sweep", "chain", "cli"):
        assert imports(path) <= COMMAND_LINE
    else:
        allowed = {name for name, level in LEVEL.items() if level <= LEVEL[own]}
        if LEVEL[own] >= LEVEL["training"]:
            allowed |= {"data"}
        assert imports(path) <= allowed


def test_every_module_has_a_layer():
    names = {path.relative_to(SOURCE).with_suffix("").parts[0] for path in SOURCE.rglob("*.py")} - {"__init__"}
    assert names == set(LEVEL) | {"data", "rules", "sweep", "cli"}


def test_objectives_and_tasks_know_neither_lightning_nor_hydra():
    for folder in ("masking", "nn", "decoding", "modality", "objective", "task", "data"):
        for path in (SOURCE / folder).rglob("*.py"):
            assert "lightning" not in path.read_text()
            assert "hydra" not in path.read_text()


def test_only_build_reads_the_config():
    parts = (p.relative_to(SOURCE).with_suffix("").parts for p in SOURCE.rglob("*.py") if "DictConfig" in p.read_text())
    readers = {"folder" if words[-1] == "folder" else words[0] for words in parts}
    assert readers == {"build", "cli", "rules", "sweep", "folder"}  # sweep checks arms before they start, folder writes
