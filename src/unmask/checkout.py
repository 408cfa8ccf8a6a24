"""What code this is: a checkout, or the frozen copy of one that a sweep runs from."""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
PARTS = ("src", "conf", "train.py", "finetune.py")
SOURCES = (".py", ".yaml")
COMMIT, CHANGES = "commit.txt", "changes.diff"


def commit() -> str | None:
    """Commit, with `+changes` where the tree differs; of a frozen copy, that of its origin; None without git."""
    if (ROOT / COMMIT).is_file():
        return (ROOT / COMMIT).read_text().strip() or None
    head, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--untracked-files=no")
    return None if head is None else head.strip() + ("+changes" if changes else "")


def freeze(folder: Path) -> None:
    """Copy code and configs to `folder`, whole or not at all, with the commit and what differs from it."""
    aside = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    for name in PARTS:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, aside / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy2(ROOT / name, aside / name)
    (aside / COMMIT).write_text(f"{commit() or ''}\n")
    (aside / CHANGES).write_text(_git("diff", "HEAD") or "")
    aside.rename(folder)


def differs(folder: Path) -> bool:
    """Whether code or configs are no longer what was copied to `folder`."""
    return _contents(ROOT) != _contents(folder)


def _contents(root: Path) -> dict[Path, bytes]:
    files = [path for part in PARTS for path in ((root / part).rglob("*") if (root / part).is_dir() else [root / part])]
    return {path.relative_to(root): path.read_bytes() for path in files if path.suffix in SOURCES}


def _git(*words: str) -> str | None:
    try:
        result = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git on this machine
        return None
    return None if result.returncode else result.stdout
