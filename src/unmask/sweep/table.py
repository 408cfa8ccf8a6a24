"""What a sweep came to: arms, what varies, the metric, and why some failed."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from unmask.sweep.arm import Arm


def show(arms: Sequence[Arm], latest: dict[str, dict[str, Any]]) -> None:
    """Print the table, then a line for each arm that is not done.

    Args:
        arms: in the order of the command line.
        latest: each one's last event.
    """
    keys = list(dict.fromkeys(key for arm in arms for key in arm.values))
    names = {event["metric_name"] for event in latest.values()} - {None}
    table = Table()
    for key in [*keys, "state"]:
        table.add_column(key, overflow="fold")
    # Of each fine-tuning that followed, by the same name in all arms.
    chain = {task: name for event in latest.values() for task, (name, _) in event.get("then", {}).items()}
    for heading in (
        names.pop() if len(names) == 1 else "metric",
        *(f"{task}\n{name.removeprefix('test/')}" for task, name in chain.items()), "attempts", "seconds",
    ):  # fmt: skip
        table.add_column(heading, justify="right", overflow="fold")
    for arm in arms:
        event = latest[arm.name]
        metric, seconds = event["metric"], event["seconds"]
        number = "" if metric is None else f"{metric:.4f}"
        if names and metric is not None:  # more than one, so each says what it is
            number += f" {event['metric_name']}"
        cells = [arm.values.get(key, "") for key in keys]
        after = [f"{event['then'][task][1]:.4f}" if task in event.get("then", {}) else "" for task in chain]
        table.add_row(
            *cells, event["state"], number, *after, str(event["attempt"]), f"{seconds:.0f}" if seconds else ""
        )
    Console(soft_wrap=True).print(table)
    for arm in arms:
        event = latest[arm.name]
        if event["state"] in ("failed", "interrupted"):
            log = f"  ({arm.log})" if arm.log.exists() else ""
            print(f"{event['state']}: {arm.name}: {event['reason']}{log}")
