"""Fine-tune an encoder on a downstream task. `python finetune.py --help` tells how."""

from omegaconf import DictConfig

from unmask.cli import command


@command("finetune")
def main(cfg: DictConfig) -> None:
    """Compose first, import torch after: help and mistakes answer at once."""
    from unmask.build.finetune import build_comparison, build_finetuning, build_probing
    from unmask.finetuning import finish

    if cfg.task.name in ("linear_probe", "knn"):
        build_probing(cfg).run()
        return
    run = build_finetuning(cfg)
    other = build_comparison(cfg, run)
    rows = {str(cfg.backbone): run.run()}
    if other is not None:
        rows["scratch"] = other.run()
    if all(rows.values()):  # other ranks have none
        finish(run.folder, rows)


if __name__ == "__main__":
    main()
