"""`then=[…]`: fine-tunings that follow a run."""

import json
from pathlib import Path

import pytest

from tests.conftest import QUICK
from unmask import chain
from unmask.sweep.ending import chain_of

# Stands for finetune.py: it notes how it was started, and fails where told to.
PROGRAM = """
import sys
from pathlib import Path
words = dict(word.split("=", 1) for word in sys.argv[1:])
folder = Path((words.get("run_dir") or words["resume"]).strip("'"))
folder.mkdir(parents=True, exist_ok=True)
(folder / "config.yaml").touch()
with (folder / "starts").open("a") as file:
    file.write(" ".join(sys.argv[1:]) + chr(10))
if words.get("fail") == "true" and len((folder / "starts").read_text().splitlines()) == 1:
    sys.exit(3)
said = '"state": "done", "started": 0, "seconds": 1, "step": 1, "steps": 1, "main": "test/wer"'
(folder / "summary.json").write_text('{%s, "metrics": {"test/wer": 0.25}}' % said)
(folder / "done").touch()
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "finetune.py").write_text(PROGRAM)
    monkeypatch.setattr(chain, "ROOT", tmp_path)
    return tmp_path / "run"


def starts(run: Path, name: str) -> list[str]:
    return (run / "then" / name / "starts").read_text().splitlines()


def test_each_task_gets_the_run_and_its_own_words(run: Path):
    chain.follow(run, ["knn", "ctc data.labels=10min", "ctc 'data.labels=1h'"])
    assert starts(run, "knn") == [f"task=knn backbone={run} run_dir={run}/then/knn"]
    [short] = starts(run, "ctc_data.labels_10min")
    assert short == f"task=ctc backbone={run} data.labels=10min run_dir={run}/then/ctc_data.labels_10min"
    assert chain_of(run) == dict.fromkeys(("knn", "ctc_data.labels_10min", "ctc_data.labels_1h_"), ("test/wer", 0.25))


def test_a_failure_ends_the_run_with_its_code_and_later_only_the_rest_is_done(run: Path):
    then = ["knn", "ctc fail=true", "text"]
    with pytest.raises(SystemExit) as exit_:
        chain.follow(run, then)
    assert exit_.value.code == 3
    assert not (run / "then" / "text").exists()
    chain.follow(run, then)
    assert len(starts(run, "knn")) == 1
    assert starts(run, "ctc")[1] == f"task=ctc backbone={run} fail=true resume={run}/then/ctc"
    assert len(starts(run, "text")) == 1


@pytest.mark.parametrize(
    ("then", "sentence"),
    [
        ("[knm]", "then=knm: there is no such task. Did you mean knn?"),
        ("[knn,knn]", "then=[knn,knn] holds one twice"),
        ("knn", "then=knn is not possible. It must be a list of tasks, such as [knn]"),
    ],
)
def test_a_mistake_is_said_before_training(train, capsys: pytest.CaptureFixture[str], then: str, sentence: str):
    with pytest.raises(SystemExit) as exit_:
        train(*QUICK, f"then={then}")
    assert exit_.value.code == 2
    assert sentence in capsys.readouterr().err


def test_a_real_run_is_followed_by_a_real_task(train):
    folder = train(*QUICK, "trainer.max_steps=3", "then=[knn]")
    [row] = json.loads((folder / "then" / "knn" / "comparison.json").read_text()).values()
    assert chain_of(folder) == {"knn": ("test/accuracy", row["scores"]["accuracy"])}
    assert (folder / "done").exists()
