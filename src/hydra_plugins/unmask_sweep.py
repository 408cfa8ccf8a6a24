"""Hydra's side of `-m`: a sweeper that lists arms, a launcher that runs each as a process.

Hydra finds plugins in `hydra_plugins`.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:  # Hydra loads this file at every start, of a plain run too
    from unmask.sweep.arm import Arm
    from unmask.sweep.sweep import Sweep


class ArmSweeper(BasicSweeper):
    """Every combination, all at once. Hydra's own composes each arm once more, and leaves a folder behind a mistake."""

    def __init__(self, params: dict[str, str] | None = None) -> None:
        super().__init__(max_batch_size=None, params=params)

    def sweep(self, arguments: list[str]) -> Any:
        """What the launcher returns of all arms.

        Raises:
            ArmsFailed: some did.
        """
        from unmask.errors import ArmsFailed

        assert self.launcher is not None
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        [arms] = self.split_arguments(parser.parse_overrides([*self._parse_config(), *arguments]), None)
        try:
            returns = self.launcher.launch(arms, initial_job_idx=0)
        finally:
            if isinstance(self.launcher, ArmLauncher):
                self.launcher.finish()
        failed = sum(job.status == JobStatus.FAILED for job in returns)
        if failed:
            raise ArmsFailed(f"{failed} of {len(returns)} arms are not done; the reasons are above.")
        return [returns]


class ArmLauncher(Launcher):
    """Each arm a fresh process of frozen code; see `unmask.sweep`.

    Args:
        parallel: arms at a time, or `auto`.
        retries: of an arm that was killed or ran out of memory.
        on_error: `continue` or `stop`.
        metric: column of metrics.csv that arms are compared by; null for the judgement of the run itself.
    """

    def __init__(self, parallel: int | str, retries: int, on_error: str, metric: str | None) -> None:
        self.how: dict[str, Any] = {"parallel": parallel, "retries": retries, "on_error": on_error, "metric": metric}
        self.hopeless: Callable[[int, Path], bool] | None = None  # a sweeper's: of the job's index and its run folder
        self.sweep: Sweep | None = None
        self.arms: dict[str, Arm] = {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra."""
        self.loader, self.config = hydra_context.config_loader, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run them; each one's metric, or why there is none. A sweeper may call this several times.

        Raises:
            ConfigError: no arm can run, and all for the same reason. Nothing has been written then.
        """
        from unmask.sweep.compose import compose_arms
        from unmask.sweep.naming import key_of, varied_keys
        from unmask.sweep.sweep import Sweep

        folder, program = Path(self.config.hydra.sweep.dir), str(self.config.hydra.job.config_name)
        own = ("hydra.sweep.dir", "sweep.resume")
        words = [word for word in sys.argv[1:] if not word.startswith("-") and key_of(word) not in own]
        varied = list(dict.fromkeys([*varied_keys(words), *_differing(job_overrides)]))
        arms = compose_arms(
            job_overrides, varied, folder, program, lambda arm: self.loader.load_sweep_config(self.config, arm)
        )
        unique = {arm.name: arm for arm in arms}
        self.arms |= unique
        indices, hopeless = {arm.name: i for i, arm in enumerate(arms)}, self.hopeless
        self.sweep = Sweep(
            folder, program, words, varied, **self.how,
            hopeless=None if hopeless is None else lambda arm: hopeless(indices[arm.name], arm.folder),
        )  # fmt: skip
        latest = self.sweep.run(list(unique.values()))
        return [_job(arm.words, latest[arm.name]) for arm in arms]

    def at_a_time(self) -> int:
        """Arms."""
        from unmask.sweep.share import shares

        return len(shares(self.how["parallel"], 1))

    def finish(self) -> None:
        """Say what all arms so far came to."""
        if self.sweep is not None:
            self.sweep.finish(list(self.arms.values()))


def _differing(job_overrides: Sequence[Sequence[str]]) -> list[str]:
    """Keys whose values are not the same in all jobs."""
    words = dict.fromkeys(word for job in job_overrides for word in job)
    return [word.lstrip("+~").partition("=")[0] for word in words if not all(word in job for job in job_overrides)]


def _job(words: Sequence[str], event: dict[str, Any]) -> JobReturn:
    done = event["state"] == "done"
    status = JobStatus.COMPLETED if done else JobStatus.FAILED
    return JobReturn(
        overrides=words, status=status, _return_value=event["metric"] if done else RuntimeError(event["reason"])
    )
