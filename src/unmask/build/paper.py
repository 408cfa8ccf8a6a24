"""What a recipe of a paper says, beside what is going to run."""

import math

from omegaconf import DictConfig, OmegaConf

from unmask.build.training import learning_rate


def beside_the_paper(cfg: DictConfig, batch: int) -> list[str]:
    """Batch and learning rate as published, and each setting that is not the paper's; nothing without a paper."""
    if cfg.paper is None:
        return []
    rate = learning_rate(cfg, batch)
    lines = [f"paper: {cfg.paper.source}; batch {cfg.paper.batch}, learning rate {cfg.paper.learning_rate:g}"]
    if not math.isclose(rate, cfg.paper.learning_rate):
        lines.append(f"  differs from the paper: learning rate {rate:.3g}")
    for key, published in cfg.paper.settings.items():
        here = OmegaConf.select(cfg, str(key))
        if here != published:
            lines.append(f"  differs from the paper: {key}={here}, published {published}")
    return lines
