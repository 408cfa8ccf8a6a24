"""What a pretraining is followed by: fine-tunings of what it made, each a process of its own."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from unmask.checkout import ROOT
from unmask.errors import ConfigError, nearest
from unmask.sweep.arm import Arm, quoted
from unmask.sweep.ending import CHAIN
from unmask.sweep.lifeline import PARENT


def check_chain(then: Sequence[str]) -> None:
    """Each is a task, and maybe words of its own: `classification data.labels=10/class`.

    Raises:
        ConfigError: one is not, or two are the same.
    """
    tasks = sorted(path.stem for path in (ROOT / "conf" / "task").glob("*.yaml"))
    for words in then:
        task = words.partition(" ")[0]
        if task not in tasks:
            raise ConfigError(
                f"then={task}: there is no such task.{nearest(task, tasks)} Choose from {', '.join(tasks)}."
            )
    if len(set(then)) < len(then):
        raise ConfigError(f"then=[{','.join(then)}] holds one twice. Leave it out.")


def follow(run: Path, then: Sequence[str]) -> None:
    """Fine-tune the run by each; what was done before is skipped, what was begun is gone on with.

    Raises:
        SystemExit: one failed, with its code, after it said why.
    """
    tasks = [words.partition(" ")[0] for words in then]
    for words in then:
        task, *own = shlex.split(words)
        name = task if tasks.count(task) == 1 else re.sub(r"[^\w.]+", "_", words)
        link = Arm(name, (f"task={task}", f"backbone={quoted(run)}", *own), {}, run / CHAIN / name)
        if link.done.exists():
            continue
        print(f"then:    {words}", flush=True)
        # As an arm: if this process is told to end, so is that one.
        environment = os.environ | {PARENT: str(os.getpid())}
        code = subprocess.run(link.command(ROOT / "finetune.py"), env=environment, check=False).returncode
        if code:
            sys.exit(128 - code if code < 0 else code)
