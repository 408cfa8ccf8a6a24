"""Pretrain an encoder. `python train.py --help` tells how."""

from omegaconf import DictConfig

from unmask.cli import command


@command("train")
def main(cfg: DictConfig) -> None:
    """Compose first, import torch after: help and mistakes answer at once."""
    from unmask.build.pretrain import build_mask_audit, build_pretraining, build_statistics

    if cfg.mask_audit:
        build_mask_audit(cfg).run()
    elif cfg.data_statistics:
        build_statistics(cfg).run()
    else:
        build_pretraining(cfg).run()


if __name__ == "__main__":
    main()
