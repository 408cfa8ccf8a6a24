"""report.html: one file that opens anywhere and says what the records of a run or sweep say."""

import base64
import csv
import json
import re
import shlex
import statistics
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from tests.conftest import QUICK
from tests.folders import LOSS, draw, write_run, write_sweep
from tests.page import Page
from unmask.report import media, write, write_or_say
from unmask.words import NOTHING, command

SETTINGS = {("mae", "50"): (0.5, 0.6, 0.7), ("mae", "75"): (0.8, 0.9, 0.85), ("data2vec", "50"): (0.2, 0.3, 0.1),
            ("data2vec", "75"): (0.4, 0.45, 0.55)}  # fmt: skip
TWO_KEYS = [
    ({"objective": objective, "mask_ratio": ratio, "seed": str(seed)}, value)
    for (objective, ratio), values in SETTINGS.items()
    for seed, value in enumerate(values)
]
HOSTILE = """</script><script>alert(1)</script><img src=x onerror=alert(2)>"'{{ 7 * 7 }}"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = write_run(
        tmp_path / "run",
        7,
        {"optimizer": {"base_lr": 0.00125}},
        ["optimizer.base_lr=0.00125", "trainer.duration=9 epochs", "+note=${oc.env:HOME}"],
    )
    verdict = {"state": "warning", "reasons": ["rank of features fell"]}
    (folder / "collapse.json").write_text(json.dumps(verdict))
    probes = {"pretrained": {"linear_accuracy": 0.875}, "raw input": {"linear_accuracy": 0.5}, "step": 3}
    (folder / "probes.json").write_text(json.dumps(probes))
    draw(folder)
    return folder


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return write_sweep(tmp_path / "sweep", TWO_KEYS)


@pytest.mark.parametrize("which", ["run", "sweep"])
def test_a_report_refers_to_nothing_outside_of_its_folder(which: str, request: pytest.FixtureRequest):
    folder = request.getfixturevalue(which)
    page = Page(write(folder))
    assert page.charts
    for tag, address in page.references:
        if tag == "a" and not address.startswith("data:"):
            assert not re.match(r"[a-z]+:|/", address)
            assert which == "sweep" or (folder / address).exists()
        else:
            assert address.startswith("data:"), (tag, address[:80])
    styles = "".join(re.findall(r"<style>(.*?)</style>", (folder / "report.html").read_text(), re.S))
    assert len(styles) > 1000
    assert not re.search(r"@import|url\(", styles)


def test_the_curves_of_a_run_are_its_metrics(run: Path):
    chart = Page(write(run)).charts["Loss"]
    (line,) = chart["lines"]
    assert dict(zip(line["x"], line["y"], strict=True)) == LOSS


def test_a_long_curve_is_thinned_and_keeps_its_ends(tmp_path: Path):
    loss = {step: 1 / step for step in range(1, 5002)}
    (line,) = Page(write(write_run(tmp_path / "long", loss=loss))).charts["Loss"]["lines"]
    assert len(line["x"]) <= 401
    assert (line["x"][0], line["x"][-1]) == (1, 5001)
    assert all(loss[x] == y for x, y in zip(line["x"], line["y"], strict=True))


def test_a_run_shows_its_config_command_scores_and_verdict(run: Path):
    page = Page(write(run))
    pairs = [row for row in page.tables["pairs"] if len(row) == 2]
    assert ["seed", "7"] in pairs
    assert ["base_lr", "0.00125"] in pairs
    pasted = "'trainer.duration=9 epochs' '+note=${oc.env:HOME}'"
    assert ["command", f"python train.py optimizer.base_lr=0.00125 {pasted}"] in pairs
    assert page.tables[""] == [["", "linear accuracy"], ["pretrained", "87.5 %"], ["raw input", "50.0 %"]]
    assert "rank of features fell" in page.words
    assert "took 1 min 1 s" in page.words


def test_a_shell_reads_the_words_of_a_command_that_is_shown():
    words = ["a=1,2", "b='50','75'", "c=9 epochs", "then=[x,y]", "note=${oc.env:HOME}", """d='"$x"'""", "e='`f`'", ""]
    assert shlex.split(command(words)) == words
    assert command(words).startswith("""a=1,2 "b='50','75'" 'c=9 epochs' """)


def test_pictures_and_sounds_are_within_the_page(run: Path):
    sheet, sound = draw(run, step=6)
    held = [a.partition(",")[2] for tag, a in Page(write(run)).references if tag in ("img", "audio")]
    earlier = run / "pictures" / "step=000000003.png"
    assert [base64.b64decode(text) for text in held] == [path.read_bytes() for path in (sheet, sound, earlier)]


def test_what_does_not_fit_into_the_page_is_linked(run: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(media.Room.__init__, "__defaults__", (0,))
    assert ("img", "pictures/step=000000003.png") in Page(write(run)).references


def test_hostile_words_stay_words(tmp_path: Path):
    folder = write_run(tmp_path / "run", 0, {"name": HOSTILE}, [f"name={HOSTILE}"], state="failed", reason=HOSTILE)
    (folder / "metrics.csv").write_text("step,a</script>b\n1,2\n")
    harmless = len(Page(write(write_run(tmp_path / "harmless"))).scripts)
    page = Page(write(folder))
    assert page.charts["a</script>b"]["lines"][0]["y"] == [2]
    arms = [({"objective": HOSTILE.replace("/", "|"), "seed": str(seed)}, 0.5) for seed in range(3)]
    whole = write_sweep(tmp_path / "sweep", [*arms, ({"objective": "mae", "seed": "0"}, None)], reason=HOSTILE)
    (whole / "mae-0" / "log.txt").write_text(HOSTILE)
    for each in (page, Page(write(whole))):
        assert len(each.scripts) == harmless
        assert ("img", "x") not in each.references
        assert not each.handlers
        assert " ".join(HOSTILE.split()) in each.words


def test_means_and_intervals_over_seeds_are_those_of_student(sweep: Path):
    page = Page(write(sweep))
    assert page.charts["linear accuracy by mask_ratio"]["legend"] == "objective"
    for line in page.charts["linear accuracy by mask_ratio"]["lines"]:
        for i, ratio in enumerate(("50", "75")):
            values = SETTINGS[line["name"], ratio]
            low, high = stats.t.interval(0.95, 2, statistics.fmean(values), stats.sem(values))
            assert line["x"][i] == float(ratio)
            assert [line["y"][i], line["low"][i], line["high"][i]] == pytest.approx([np.mean(values), low, high])
            assert sorted(y for x, y in line["dots"] if x == line["x"][i]) == sorted(values)


def test_settings_stand_best_first_with_their_mean(sweep: Path):
    rows = Page(write(sweep)).tables["settings"]
    ranked = sorted(SETTINGS.items(), key=lambda item: -np.mean(item[1]))
    assert [row[:2] for row in rows[1:]] == [list(setting) for setting, _ in ranked]
    for row, (_, values) in zip(rows[1:], ranked, strict=True):
        half = stats.t.ppf(0.975, 2) * np.std(values, ddof=1) / 3**0.5
        assert row[2] == f"{100 * np.mean(values):.1f} % ± {100 * half:.1f} %"


def test_of_a_loss_the_least_is_best(tmp_path: Path):
    folder = write_sweep(tmp_path / "sweep", [({"mask_ratio": r}, v) for r, v in (("50", 0.3), ("75", 0.1))], "loss")
    assert [row[0] for row in Page(write(folder)).tables["settings"]] == ["mask_ratio", "75", "50"]


def test_one_key_is_a_line_and_two_are_a_heat_map_too(sweep: Path, tmp_path: Path):
    arms = [({"mask_ratio": r}, v) for r, v in (("15", 0.3), ("50", 0.5), ("95", 0.4))]
    one = Page(write(write_sweep(tmp_path / "one", arms)))
    (line,) = one.charts["linear accuracy by mask_ratio"]["lines"]
    assert (line["x"], line["y"], line["low"]) == (
        [15, 50, 95],
        [0.3, 0.5, 0.4],
        [None] * 3,
    )
    assert "heat" not in one.tables
    head, *rows = Page(write(sweep)).tables["heat"]
    assert head == ["", "50", "75"]
    for name, *cells in rows:
        means = [f"{100 * np.mean(SETTINGS[name, ratio]):.1f} %" for ratio in ("50", "75")]
        assert [cell.partition("±")[0].strip() for cell in cells] == means


def test_three_keys_are_parallel_coordinates(tmp_path: Path):
    keys = {"objective": ("mae", "data2vec"), "mask_ratio": ("50", "75"), "model.depth": ("2", "4", "6")}
    arms = [(dict(zip(keys, values, strict=True)), i / 10) for i, values in enumerate(product(*keys.values()), 1)]
    chart = Page(write(write_sweep(tmp_path / "sweep", arms))).charts["linear accuracy, every setting"]
    assert [axis["name"] for axis in chart["axes"]] == [*keys, "linear_accuracy"]
    assert len(chart["lines"]) == len(arms)
    for line in chart["lines"]:
        for axis, y, word in zip(chart["axes"][:-1], line["y"][:-1], line["name"].split(", "), strict=True):
            assert [y, word] in axis["ticks"]
        assert line["y"][-1] == pytest.approx((line["value"] - 0.1) / 1.1)  # from the least, 0.1, to the greatest, 1.2


def test_settings_differ_in_what_their_configs_say_and_not_in_their_seed(tmp_path: Path):
    first, *others = TWO_KEYS  # the first has failed, so that seed 1 speaks for its setting
    head, *rows = Page(write(write_sweep(tmp_path / "sweep", [(first[0], None), *others]))).tables["differences"]
    told = {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}
    assert told == {
        "swept.objective": {f"{o}, {r}": o for o, r in SETTINGS},
        "swept.mask_ratio": {f"{o}, {r}": r for o, r in SETTINGS},
    }


def test_failures_say_why_and_where(tmp_path: Path):
    arms = [({"mask_ratio": "50"}, 0.5), ({"mask_ratio": "75"}, None)]
    page = Page(write(write_sweep(tmp_path / "sweep", arms)))
    assert "loss is NaN" in page.words
    assert "last line of 75" in page.words
    assert "last line of 50" not in page.words
    assert ("a", "75/log.txt") in page.references
    assert [[row[0], row[3]] for row in page.tables["arms"][1:]] == [["50", "done"], ["75", "failed"]]


def test_what_followed_an_arm_stands_in_its_row(tmp_path: Path):
    folder = write_sweep(tmp_path / "sweep", [({"mask_ratio": "50"}, 0.5), ({"mask_ratio": "75"}, 0.25)])
    lines = (folder / "ledger.jsonl").read_text().splitlines()
    lines[-1] = json.dumps(json.loads(lines[-1]) | {"then": {"ctc": ["test/wer", 0.125]}})
    (folder / "ledger.jsonl").write_text("\n".join(lines) + "\n")
    head, *rows = Page(write(folder)).tables["arms"]
    column = head.index("then ctc")
    assert [row[column] for row in rows] == ["", "12.5 %"]


def test_a_sweep_of_which_nothing_is_done_yet_has_a_page(tmp_path: Path):
    folder = write_sweep(tmp_path / "sweep", [({"mask_ratio": "50"}, None)])
    first = (folder / "ledger.jsonl").read_text().splitlines()[0]
    (folder / "ledger.jsonl").write_text(first + '\n{"time": 2, "ar')  # and a line is being written
    page = Page(write(folder))
    assert [row[:4] for row in page.tables["arms"][1:]] == [["50", "", "queued", NOTHING]]


def test_runs_that_were_started_one_by_one_are_compared_by_their_command_lines(tmp_path: Path):
    for ratio, loss in (("50", 0.4), ("75", 0.2)):
        words = [f"mask_ratio={ratio}", "model=tiny"]
        write_run(tmp_path / "some" / ratio, words=words, loss={1: loss})
    rows = Page(write(tmp_path / "some")).tables["settings"]
    assert rows == [["mask_ratio", "loss", "arms"], ["75", "0.2", "1"], ["50", "0.4", "1"]]


def test_a_run_writes_its_report_at_its_end(train):
    folder = train(*QUICK, "trainer.max_steps=4")
    page = Page(folder / "report.html")
    rows = csv.DictReader((folder / "metrics.csv").open())
    assert page.charts["Loss"]["lines"][0]["y"] == [float(row["loss"]) for row in rows if row["loss"]]
    assert "done healthy step 4 of 4" in page.words


def test_a_run_that_fails_says_so_in_its_report(train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("the machine is on fire\nand more")

    monkeypatch.setattr("lightning.pytorch.Trainer.fit", fail)
    with pytest.raises(RuntimeError):
        train(*QUICK, "trainer.max_steps=4", f"run_dir={tmp_path / 'run'}")
    said = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (said["state"], said["reason"]) == ("failed", "RuntimeError: the machine is on fire")
    assert "failed step 0 of 4" in Page(tmp_path / "run" / "report.html").words


def test_a_mistake_in_a_report_fails_no_run(run: Path, capsys: pytest.CaptureFixture[str]):
    (run / "collapse.json").write_text('{"no": "state"}')
    write_or_say(run)
    out = capsys.readouterr().out
    assert out.startswith(f"{run / 'report.html'} could not be written: ")
    assert len(out.splitlines()) == 1


@pytest.mark.parametrize("words", [[], ["nowhere"], ["."]])
def test_the_command_line_says_one_sentence_where_there_is_no_run(words: list[str], tmp_path: Path):
    command = [sys.executable, "-m", "unmask.report", *words]
    failed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: ")
    assert len(failed.stderr.splitlines()) == 1
