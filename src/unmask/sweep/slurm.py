"""Arms as jobs of a Slurm cluster, through submitit: one array, whose preempted jobs go on in the same folder."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from submitit import Job, SlurmExecutor, SlurmJob
from submitit.core.utils import FailedJobError, UncompletedJobError
from submitit.helpers import DelayedSubmission

from unmask.sweep.arm import Arm
from unmask.sweep.ending import Ending
from unmask.sweep.ledger import Ledger
from unmask.sweep.runner import Attempt, Runner, environment

POLL = 1.0  # seconds
MANY = 256  # arms at a time, where the cluster is to decide
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE")


class ArmJob:
    """What each task of a job runs. Told to make room, the arm saves, and the requeued job goes on with it."""

    def __init__(self, arm: Arm, program: Path) -> None:
        self.arm, self.program = arm, program
        self.command = arm.command(program)  # made once: a rank that looked later would find a run that has begun

    def __call__(self) -> int:
        """The exit code."""
        with self.arm.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment(self.program),
                preexec_fn=_deaf,
            )  # fmt: skip
        return self.process.wait()

    def checkpoint(self) -> DelayedSubmission:
        """Called by submitit on the first task; the arm's other processes stop with its first one."""
        self.process.terminate()
        os.waitpid(self.process.pid, 0)  # not wait(): this interrupts one, which holds the lock of Popen
        return DelayedSubmission(ArmJob(self.arm, self.program))


def _deaf() -> None:
    """Slurm's warning goes to all processes of a job, and is for submitit's alone."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


@dataclass
class Handed(Attempt):
    """An arm whose job is with Slurm; it began at that time, in seconds since 1970, or waits."""

    job: Job[int]
    began: float | None = None


class SlurmRunner(Runner):
    """Hands arms to Slurm and watches. Jobs outlive it, and another start of the sweep watches on.

    Args:
        program: see Runner, as the next ones.
        ledger: …
        retries: …
        on_error: …
        metric: …
        folder: for submitit's files, on a file system that all nodes see.
        options: `conf/sweep/slurm.yaml`.
        parallel: arms at a time, or `auto` for as many as the cluster runs.
    """

    def __init__(
        self,
        program: Path,
        ledger: Ledger,
        retries: int,
        on_error: str,
        metric: str | None,
        folder: Path,
        options: Mapping[str, Any],
        parallel: int | str,
    ) -> None:
        super().__init__(program, ledger, retries, on_error, metric)
        self.folder, self.options = folder, options
        self.parallel = MANY if parallel == "auto" else int(parallel)
        self.handed: dict[str, Handed] = {}

    @property
    def how(self) -> str:
        """Where, and how many."""
        return f"by Slurm, up to {self.parallel} at a time"

    def settle(self, arm: Arm, last: dict[str, Any]) -> str:
        """Watch its job on; one that has ended is judged at the first look."""
        self.handed[arm.name] = Handed(arm, last["attempt"], 0, SlurmJob(self.folder, last["job"]), last["time"])
        return "running"

    def work(self, arms: Sequence[Arm]) -> None:
        """Hand over what is not there yet, and watch."""
        self._hand_over([arm for arm in arms if arm.name not in self.handed])
        while self.handed and self.stopped_by is None:
            for handed in list(self.handed.values()):
                self._look(handed)
            time.sleep(POLL)

    def on_signal(self, again: bool) -> None:
        """Jobs stay: the cluster need not wait for this process."""
        jobs = sorted({handed.job.job_id.partition("_")[0] for handed in self.handed.values()})
        print(f"jobs stay with Slurm; to end them: scancel {' '.join(jobs)}", flush=True)

    def _hand_over(self, arms: Sequence[Arm]) -> None:
        """An array for all arms of as many processes."""
        for devices in sorted({arm.devices for arm in arms}):
            alike = [arm for arm in arms if arm.devices == devices]
            for arm in alike:
                arm.folder.mkdir(parents=True, exist_ok=True)
            executor = self._executor(devices)
            with executor.batch():
                jobs = [executor.submit(ArmJob(arm, self.program)) for arm in alike]
            for arm, job in zip(alike, jobs, strict=True):
                number = self.attempts[arm.name] = self.attempts.get(arm.name, 0) + 1
                logged = arm.log.stat().st_size if arm.log.exists() else 0
                self.handed[arm.name] = Handed(arm, number, logged, job)
                self.ledger.write(arm.name, "running", number, arm.values, job=job.job_id)

    def _executor(self, devices: int) -> SlurmExecutor:
        given = {key: value for key, value in self.options.items() if value is not None}
        executor = SlurmExecutor(self.folder, max_num_timeout=given.pop("requeues"))
        threads = given["cpus_per_task"]
        more = given.pop("more")
        # srun of Slurm 22.05 and later does not take cpus_per_task over by itself.
        setup = [f"export OMP_NUM_THREADS=${{OMP_NUM_THREADS:-{threads}}} SRUN_CPUS_PER_TASK={threads}"]
        executor.update_parameters(
            job_name=self.folder.parent.name, nodes=1, ntasks_per_node=devices, array_parallelism=self.parallel,
            setup=setup, additional_parameters=dict(more), **given,
        )  # fmt: skip
        return executor

    def _look(self, handed: Handed) -> None:
        if handed.began is None and handed.job.state == "RUNNING":
            handed.began = time.time()
        if handed.job.done() or handed.job.state in ENDED:
            del self.handed[handed.arm.name]
            if self._ended(handed):
                self._hand_over([handed.arm])
            if self.stopping:
                for other in self.handed.values():
                    other.job.cancel()

    def _ended(self, handed: Handed) -> bool:
        seconds = None if handed.began is None else round(time.time() - handed.began, 1)
        code, how = 0, None
        try:
            code = next((code for code in handed.job.results() if code), 0)
        except (UncompletedJobError, FailedJobError):  # no word of it: Slurm itself ended it
            state = handed.job.state
            how = Ending("failed", f"Slurm ended job {handed.job.job_id}: {state}", again=state != "CANCELLED")
            if handed.arm.done.exists():
                how = Ending("done", None, again=False)
            elif self.stopping:
                how = Ending("interrupted", "stopped; the same command goes on with it", again=True)
        return self.end(handed, code, seconds, how, job=handed.job.job_id)
