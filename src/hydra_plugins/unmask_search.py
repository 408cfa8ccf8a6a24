"""Hydra's side of `hydra/sweeper=optuna`: a sweeper that asks Optuna, 4 or later, which arms to run."""

from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class OptunaSweeper(Sweeper):
    """As many arms at a time as the launcher runs, then the next: what varies is the space, in Hydra's syntax.

    Args:
        trials: arms in all.
        direction: `minimize` or `maximize`.
        prune: give up arms that do worse than most.
    """

    def __init__(self, trials: int, direction: str | None, prune: bool) -> None:
        self.trials, self.direction, self.prune = trials, direction, prune

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra."""
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[JobReturn]:
        """What became of each arm.

        Raises:
            ConfigError: there is nothing to search, or nothing to tell what is better.
        """
        from hydra_plugins.unmask_sweep import ArmLauncher  # Hydra loads plugins anew: only now is it the launcher's
        from unmask.errors import ConfigError

        assert self.hydra_context is not None
        assert self.config is not None
        launcher = self.launcher
        if not isinstance(launcher, ArmLauncher):
            raise ConfigError("hydra/sweeper=optuna needs hydra/launcher=arms.")
        try:
            from unmask.sweep.search import Search, distribution
        except ImportError as error:
            raise ConfigError("hydra/sweeper=optuna needs Optuna. Run `pip install 'unmask[search]'`.") from error

        parsed = OverridesParser.create(config_loader=self.hydra_context.config_loader).parse_overrides(arguments)
        space = {one.get_key_element(): distribution(one) for one in parsed if one.is_sweep_override()}
        fixed = [
            f"{one.get_key_element()}={one.get_value_element_as_str()}" for one in parsed if not one.is_sweep_override()
        ]
        self._check(bool(space), launcher.how["metric"])
        folder = Path(self.config.hydra.sweep.dir)
        search = Search(folder, space, self.trials, str(self.direction), launcher.how["metric"], self.prune)
        launcher.hopeless = search.hopeless if self.prune else None
        returns: list[JobReturn] = []
        try:
            while settings := search.ask(launcher.at_a_time()):
                arms = [[*fixed, *(f"{key}={value}" for key, value in one.items())] for one in settings]
                batch = launcher.launch(arms, initial_job_idx=len(returns))
                search.tell([job.return_value if job.status == JobStatus.COMPLETED else None for job in batch])
                returns += batch
        finally:
            launcher.finish()
        self._say(search.best())
        return returns

    def _check(self, space: bool, metric: str | None) -> None:
        from unmask.errors import ConfigError

        if not space:
            raise ConfigError(
                "hydra/sweeper=optuna: nothing varies. Give choices, such as mask.ratio=0.5,0.75, or an interval, such "
                "as model.base_lr='tag(log, interval(1e-4, 1e-2))'."
            )
        if self.direction not in ("maximize", "minimize"):
            said = "null" if self.direction is None else self.direction
            raise ConfigError(f"sweep.direction={said}: is more of the metric better? Give maximize or minimize.")
        if self.trials < 1:
            raise ConfigError(f"sweep.trials={self.trials}: there is nothing to do. Give at least 1.")
        if self.prune and metric is None:
            raise ConfigError(
                "sweep.prune=true compares arms while they run. Give sweep.metric, a column of metrics.csv: loss, say."
            )

    def _say(self, best: tuple[float, dict[str, str]] | None) -> None:
        if best is not None:
            print(
                f"best:    {best[0]:.4g} by {' '.join(f'{key}={value}' for key, value in best[1].items())}", flush=True
            )
