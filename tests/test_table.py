"""Labelled sentences: tables in every layout, GLUE's files, the hub, pairs of WordNet, ids, one-sentence mistakes."""

import json
import pickle
import random
import warnings
from collections import Counter
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from tests.conftest import ROOT
from tests.test_text import BOS, EOS, make_tokenizer
from tests.test_text_data import FakeSplit, corpus, fake_hub, fetch
from unmask.build.training import build_source
from unmask.data.documents import Document
from unmask.data.hub_table import HubTable
from unmask.data.labelled_texts import LabelledTexts, Row, SentenceEncoder
from unmask.data.table import Table
from unmask.data.tokenizer import load_tokenizer
from unmask.data.wordnet_pairs import WordNetPairs
from unmask.errors import ConfigError
from unmask.vocabulary import special_tokens

THREE = [("a b", "no"), ("c d", "yes"), ("e f", "no")]


def write(root: Path, **files: str | bytes) -> Path:
    """Files by name, `_` for the dot; returns their folder."""
    root.mkdir(exist_ok=True)
    for name, text in files.items():
        stem, _, suffix = name.rpartition("_")
        (root / f"{stem}.{suffix}").write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def lines(*rows: dict[str, object]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def complaint(what, *words: object, **options: object) -> str:
    with pytest.raises(ConfigError) as error:
        what(*words, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def read(root: Path, split: str = "train", **options: object) -> list[Row]:
    return list(Table(root, **options).rows(split))


@pytest.mark.parametrize("suffix", ["jsonl", "tsv", "csv"])
def test_the_same_rows_come_out_of_every_kind_of_file(tmp_path, suffix):
    if suffix == "jsonl":
        text = lines(*({"text": a, "label": b} for a, b in THREE))
    else:
        mark = {"tsv": "\t", "csv": ","}[suffix]
        text = "".join(f"{a}{mark}{b}\n" for a, b in [("text", "label"), *THREE])
    root = write(tmp_path / "set", **{f"train_{suffix}": text, f"test_{suffix}": text})
    assert Table(root).classes == ("no", "yes")
    assert read(root) == read(root, "test") == [Row("a b", None, 0), Row("c d", None, 1), Row("e f", None, 0)]


def test_fields_of_csv_may_be_quoted_and_those_of_tsv_never_are(tmp_path):
    quoted = '"a, ""b""\nc",x\nd,y\n'
    root = write(tmp_path, train_csv="text,label\n" + quoted, test_csv="text,label\nd,y\n")
    assert read(root)[0] == Row('a, "b"\nc', None, 0)
    root = write(tmp_path / "tab", train_tsv='text\tlabel\n"a\tx\nb"\ty\n', test_tsv="text\tlabel\nd\ty\n")
    assert [row.text for row in read(root)] == ['"a', 'b"']


def test_columns_are_named_and_a_second_one_makes_pairs(tmp_path):
    row = {"premise": "a", "hypothesis": "b", "gold": "yes", "other": [1]}
    root = write(tmp_path, train_jsonl=lines(row, row | {"gold": "no"}), dev_jsonl=lines(row))
    columns = {"text": "premise", "pair": "hypothesis", "label": "gold"}
    assert read(root, **columns) == [Row("a", "b", 1), Row("a", "b", 0)]
    assert read(root, "test", **columns) == [Row("a", "b", 1)]
    assert [d.text for d in Table(root, **columns).documents("train")] == ["a", "b", "a", "b"]


def test_dev_is_tested_on_before_test_and_any_other_file_by_its_name(tmp_path):
    names = ("train", "dev", "test", "dev_other")
    root = write(tmp_path, **{f"{name}_csv": f"text,label\n{name},1\n{name},2\n" for name in names})
    assert read(root, "test")[0].text == "dev"
    assert read(root, "test", test="dev_other")[0].text == "dev_other"
    assert "holds no dev_there ending in .jsonl, .tsv, .csv, but " in complaint(Table, root, test="dev_there")


def test_one_file_is_split_by_a_hash_of_the_sentence_so_none_is_on_both_sides(tmp_path):
    root = write(tmp_path, all_jsonl=lines(*({"text": f"s {i % 500}", "label": i % 3} for i in range(1000))))
    train, test = read(root / "all.jsonl"), read(root / "all.jsonl", "test")
    assert len(train) + len(test) == 1000
    assert not {row.text for row in train} & {row.text for row in test}
    assert 60 < len(test) < 140
    assert read(root, "test") == test  # a folder of one file
    assert {row.label for row in train} == {0, 1, 2}


def test_classes_are_in_the_order_of_numbers_and_names_or_as_wanted(tmp_path):
    root = write(tmp_path, train_jsonl=lines(*({"text": "a", "label": x} for x in (10, 2, "b", "a", 2))))
    write(tmp_path, test_jsonl=lines({"text": "a", "label": 2}, {"text": "c", "label": "new"}))
    assert Table(root).classes == ("2", "10", "a", "b")
    assert Table(root, classes=["b", 2]).classes == ("b", "2")
    assert [row.label for row in read(root, classes=["b", 2])] == [1, 0, 1]
    assert read(root, "test", classes=["b", 2]) == [Row("a", None, 1)]
    assert "test.jsonl line 2 has the label new, which is none of train's." in complaint(read, root, "test")
    words = complaint(lambda: Table(root, classes=["a", "bb"]).classes)
    assert "has no row of the class bb (data.classes). Choose some of its classes. Did you mean b?" in words


def test_numbers_are_labels_under_regression(tmp_path):
    text = lines({"text": "a", "label": 1}, {"text": "b", "label": "-2.5"})
    root = write(tmp_path, train_jsonl=text, test_jsonl=text)
    assert Table(root, regression=True).classes == ()
    assert read(root, regression=True) == [Row("a", None, 1.0), Row("b", None, -2.5)]
    source = LabelledTexts(Table(root, regression=True), make_tokenizer(), 8)
    assert (source[1].label, source.label(1), type(source.label(0))) == (-2.5, -2.5, float)


def test_a_few_rows_without_text_are_left_out_and_warned_of_once(tmp_path):
    rows = [f"sentence {i}\t{i % 2}" for i in range(300)]
    text = "\n".join(["text\tlabel", *rows, "no label here", "\t1"])
    root = write(tmp_path, train_tsv=text, test_tsv=text)
    with pytest.warns(UserWarning, match=r"2 of 302 rows of .*train.tsv are left out; the first: train.tsv line 302"):
        assert len(read(root)) == 300


@pytest.mark.parametrize(
    ("files", "options", "words"),
    [
        ({}, {}, "data.root={} holds no train ending in .jsonl, .tsv, .csv, but no such file. Put train beside dev"),
        ({"train_csv": "text,label\na,1\n", "eval_csv": ""}, {}, "holds no dev or test ending in"),
        ({"dev_csv": "text,label\na,1\n", "test_csv": ""}, {}, "holds no train ending in"),
        ({"a_csv": "sentence,label\na,1\n"}, {"text": "sentences"}, "of them. Did you mean sentence?"),
        ({"a_csv": "text,label\na,1\n"}, {"pair": "txt"}, "has no column txt (data.pair), but text, label. Choose"),
        ({"a_tsv": "a\t1\n"}, {"header": False, "text": 3, "label": 2}, "has no column 3 (data.text), but 1, 2."),
        ({"a_jsonl": '{"text": "a"}\n'}, {}, "a.jsonl has no column label (data.label), but text."),
        ({"a_csv": "text,label\n ,1\n"}, {}, ": a.csv line 2 has no text in the column text. Mend it, or name other"),
        ({"a_csv": "text,label\na,\n"}, {}, "a.csv line 2 has no label in the column label."),
        ({"a_csv": "text,label\na,good\n"}, {"regression": True}, "has the label good, which is no number (task.regre"),
        ({"a_csv": "text,label\na,nan\n"}, {"regression": True}, "has the label nan, which is no number"),
        ({"a_csv": b"text,label\n\xe9,1\n"}, {}, "a.csv is not UTF-8: byte 11 is 0xe9. Convert it, for example with"),
        ({"a_jsonl": "{'text'}\n"}, {}, "a.jsonl line 1 is not JSON: "),
        ({"a_jsonl": "[1]\n"}, {}, "a.jsonl line 1 is no JSON object."),
        ({"a_csv": "text,label\n"}, {}, "a.csv holds no row. Give another file."),
    ],
)  # fmt: skip
def test_a_mistake_in_a_table_is_one_sentence(tmp_path, files, options, words):
    root = write(tmp_path / "set", **files)
    assert words.format(root) in complaint(read, root, **options)


def test_a_missing_place_and_another_kind_of_file_are_said_at_once(tmp_path):
    assert complaint(Table, tmp_path / "none").startswith(f"data.root={tmp_path}/none is not there. Give a file")
    write(tmp_path, a_txt="text")
    assert "a.txt ends in none of .jsonl, .tsv, .csv" in complaint(Table, tmp_path / "a.txt")


# Ids


def ids(*words: int) -> str:
    return " ".join(f"w{word}" for word in words)


def test_a_sentence_stands_between_its_ends_and_a_pair_has_two_between():
    encode = SentenceEncoder(make_tokenizer(), 20)
    assert encode(ids(5, 6)).tolist() == [BOS, 5, 6, EOS]
    assert encode(ids(5, 6), ids(7)).tolist() == [BOS, 5, 6, EOS, EOS, 7, EOS]


def test_a_text_that_names_a_special_token_means_the_word(tmp_path):
    tokenizer = load_tokenizer(corpus(), 300, tmp_path)
    for encode in (SentenceEncoder(tokenizer, 64), pickle.loads(pickle.dumps(SentenceEncoder(tokenizer, 64)))):
        inside = encode("</s> or <mask>", "<s>").tolist()[1:-1]
        assert [token for token in inside if token in special_tokens(tokenizer)] == [EOS, EOS]


@pytest.mark.parametrize("block", [6, 7, 11, 24])
def test_what_is_too_long_is_cut_token_by_token_off_the_longer(block: int):
    encode, draws = SentenceEncoder(make_tokenizer(), block), random.Random(0)
    for _ in range(200):
        first, second = ([draws.randrange(4, 44) for _ in range(draws.randrange(1, 20))] for _ in "ab")
        given = (ids(*first), ids(*second))
        alone = encode(given[0]).tolist()
        assert alone == [BOS, *first[: block - 2], EOS]
        while len(first) + len(second) + 4 > block:
            (first if len(first) > len(second) else second).pop()
        assert encode(*given).tolist() == [BOS, *first, EOS, EOS, *second, EOS]


@pytest.mark.parametrize(("pair", "least"), [(None, 3), ("hypothesis", 6)])
def test_a_block_without_room_for_words_is_refused(tmp_path, pair, least):
    root = write(tmp_path, a_jsonl=lines(*({"text": f"s {i}", "hypothesis": "b", "label": i % 2} for i in range(50))))
    table = Table(root, pair=pair)
    assert len(LabelledTexts(table, make_tokenizer(), least)[0].value) <= least
    assert f"Choose {least} or more." in complaint(LabelledTexts, table, make_tokenizer(), least - 1)


def test_labels_are_told_without_tokenising_and_a_source_travels_to_workers(tmp_path, monkeypatch):
    root = write(tmp_path, a_jsonl=lines(*({"text": ids(5, i % 40 + 4), "label": i % 2} for i in range(50))))
    source = LabelledTexts(Table(root), make_tokenizer(), 8)
    samples = [source[i] for i in range(len(source))]
    again = pickle.loads(pickle.dumps(source))
    assert all(a.value.equal(again[i].value) and a.label == again.label(i) for i, a in enumerate(samples))
    monkeypatch.setattr(SentenceEncoder, "__call__", None)
    assert [source.label(i) for i in range(len(source))] == [sample.label for sample in samples]


def test_a_split_without_rows_is_said(tmp_path):
    root = write(tmp_path, a_jsonl=lines({"text": "one", "label": 1}, {"text": "two", "label": 2}))
    splits = [len(read(root, split)) for split in ("train", "test")]
    assert 0 in splits
    assert "split has no row. Give more rows" in complaint(
        LabelledTexts, Table(root), make_tokenizer(), 8, ("train", "test")[splits.index(0)]
    )


# The configs


def rows_of(*overrides: str, split: str = "test") -> tuple[LabelledTexts, list[list[str]]]:
    """A source from its config, and its texts."""
    words = ["task=text", "modality=text", "backbone=scratch", *overrides]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        source = build_source(compose("finetune", overrides=words), split, tokenizer=make_tokenizer(), block_size=16)
    assert isinstance(source, LabelledTexts)
    pairs = list(source._pairs) or [None] * len(source)
    return source, [list(filter(None, row)) for row in zip(source._texts, pairs, strict=True)]


# A first line, if there is one, and two rows of train and of what is tested on, as GLUE hands them out.
GLUE = {
    "cola": (None, "gj04\t1\t\tA \"cat.", "gj04\t0\t*\tCat a.", ["A \"cat."]),
    "mnli": ("index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\t"
             "sentence2_parse\tsentence1\tsentence2\tlabel1\tgold_label",
             "0\t1\t1e\tf\t(\t)\t(\t)\ta\tb\tneutral\tneutral",
             "1\t1\t1e\tf\t(\t)\t(\t)\tc\td\tneutral\tentailment", ["a", "b"]),
    "mrpc": ("\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String", "1\t7\t8\ta\tb", "0\t7\t8\tc\td", ["a", "b"]),
    "qnli": ("index\tquestion\tsentence\tlabel", "0\ta?\tb\tentailment", "1\tc?\td\tnot_entailment", ["a?", "b"]),
    "qqp": ("id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", "1\t2\t3\ta\tb\t1", "1\t2\t3\tc\td\t0", ["a", "b"]),
    "rte": ("index\tsentence1\tsentence2\tlabel", "0\ta\tb\tentailment", "1\tc\td\tnot_entailment", ["a", "b"]),
    "sst2": ("sentence\tlabel", "a good one \t1", "a bad one \t0", ["a good one "]),
    "stsb": ("index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
             "0\tm\tm\t2\t1\tn\tn\ta\tb\t5.000", "0\tm\tm\t2\t1\tn\tn\tc\td\t1.250", ["a", "b"]),
}  # fmt: skip


@pytest.mark.parametrize("name", GLUE)
def test_each_task_of_glue_is_read_from_its_own_layout(tmp_path, name):
    header, first, second, sentences = GLUE[name]
    text = "\n".join([*([header] if header else []), first, second, ""])
    tested = "dev_matched" if name == "mnli" else "dev"
    root = write(tmp_path, train_tsv=text, **{f"{tested}_tsv": text}, test_tsv="index\tsentence\n0\thidden\n")
    source, texts = rows_of(f"data=glue_{name}", f"data.root={root}")
    assert texts[0] == sentences
    assert len(texts) == 2
    classes = {"mnli": ("entailment", "neutral"), "stsb": ()}.get(name, ("0", "1"))
    if name in ("qnli", "rte"):
        classes = ("entailment", "not_entailment")
    assert source.classes == classes
    expected = {"stsb": [5.0, 1.25], "qnli": [0, 1], "rte": [0, 1]}.get(name, [1, 0])
    assert [source.label(i) for i in range(2)] == expected


def test_the_mismatched_half_of_mnli_is_a_data_set_of_its_own(tmp_path):
    header, first, _, _ = GLUE["mnli"]
    other = first.replace("\ta\tb\t", "\tx\ty\t")
    root = write(tmp_path, **{f"{n}_tsv": f"{header}\n{first}\n" for n in ("train", "dev_matched")})
    write(tmp_path, dev_mismatched_tsv=f"{header}\n{other}\n")
    assert rows_of("data=glue_mnli_mm", f"data.root={root}")[1] == [["x", "y"]]


def test_the_task_says_that_labels_are_numbers_and_the_data_follows(tmp_path):
    text = lines(*({"text": f"s {i}", "label": i / 7} for i in range(8)))
    root = write(tmp_path, train_jsonl=text, test_jsonl=text)
    assert rows_of("data=table", f"data.root={root}", "task.regression=true")[0].label(1) == 1 / 7
    assert len(rows_of("data=table", f"data.root={root}")[0].classes) == 8


def test_a_table_of_the_hub_is_read_by_its_columns(monkeypatch):
    columns = {"premise": ["a", "b", "c"], "hypothesis": ["d", "e", " "], "label": [1, -1, 0]}
    train = FakeSplit(["no", "yes"], **columns)
    test = FakeSplit(["no", "yes"], premise=["f"], hypothesis=["g"], label=[0])
    asked = fake_hub(monkeypatch, train=train, validation_matched=test)
    options = ("data=hf_table", "data.dataset=me/set", "data.config=rte", "data.text=premise", "data.pair=hypothesis")
    source, texts = rows_of(*options, "data.test=validation_matched")
    assert (texts, source.classes, source.label(0)) == ([["f", "g"]], ("no", "yes"), 0)
    assert rows_of(*options, split="train")[1] == [["a", "d"]]
    assert asked[0] == ("me/set", "rte", None)
    table = HubTable("set", text="premise", pair="hypothesis")
    assert Document("d", None) in list(table.documents("train"))
    assert "has no split test, but train, validation_matched. Choose data.test=" in complaint(
        lambda: list(table.rows("test"))
    )
    words = complaint(lambda: list(HubTable("set", text="premis", pair="hypothesis").rows("train")))
    assert "has no column premis (data.text), but premise, hypothesis, label. " in words
    assert "has no column h (data.pair)" in complaint(
        lambda: list(HubTable("set", text="premise", pair="h").rows("train"))
    )


def test_numbers_of_the_hub_are_labels_under_regression(monkeypatch):
    fake_hub(monkeypatch, train=FakeSplit(text=["a", "b"], label=[0.5, 3]), test=FakeSplit(text=["c"], label=[-2.0]))
    table = HubTable("set", regression=True)
    assert (table.classes, [row.label for row in table.rows("train")]) == ((), [0.5, 3.0])


# WordNet


def nouns(root: Path, count: int = 400, categories: int = 2) -> dict[str, str]:
    """A tree of nouns, three below each; returns each one's hypernym."""
    rows, above = ["synset\tcategory\tsplit\thypernyms\tgloss"], {}
    for i in range(count):
        above[f"{i:08}"] = f"{(i - categories) // 3:08}" if i >= categories else ""
        category = i
        while category >= categories:
            category = (category - categories) // 3
        split = "test" if i % 3 == 0 else "" if i == 17 else "train"
        rows.append(f"{i:08}\tnoun.{category}\t{split}\t{above[f'{i:08}']}\tgloss {i:08}")
    write(root, nouns_tsv="\n".join(rows) + "\n")
    return above


def test_pairs_of_wordnet_are_balanced_and_no_answer_is_wrong(tmp_path):
    above = nouns(tmp_path)
    table = WordNetPairs(tmp_path)
    seen: dict[str, set[str]] = {}
    for split in ("train", "test"):
        rows = list(table.rows(split))
        assert len(rows) > 30
        assert Counter(row.label for row in rows) == {0: len(rows) // 2, 1: len(rows) // 2}
        pool = Counter(row.pair for row in rows if row.label)
        assert set(pool) >= {row.pair for row in rows if not row.label}
        for row in rows:
            noun, other = row.text.split()[1], row.pair.split()[1]
            chain = [noun]
            while above[chain[-1]]:
                chain.append(above[chain[-1]])
            assert (other == chain[1]) if row.label else (other not in chain)
        seen[split] = {gloss for row in rows for gloss in (row.text, row.pair)}
    assert not seen["train"] & seen["test"]
    assert list(table.rows("train")) == list(WordNetPairs(tmp_path).rows("train"))
    assert list(table.rows("train")) != list(WordNetPairs(tmp_path, seed=1).rows("train"))


def test_pairs_of_wordnet_that_are_not_there_name_the_command(tmp_path):
    assert "Run `make data-wordnet`" in complaint(WordNetPairs, tmp_path)


SYNSETS = """  1 This line is part of the licence.
00000001 03 n 01 thing 0 001 ~ 00000002 n 0000 | the "thing"\\ itself
00000002 05 n 02 cat 0 true_cat 0 003 @ 00000001 n 0000 @i 00000009 n 0000 + 00000007 v 0101 | a mammal; "a | b"
00000009 05 n 01 tabby 0 001 @ 00000002 n 0000 | a mammal; "a | b"
"""


def test_the_script_writes_nouns_with_what_they_are_kinds_of(tmp_path):
    for folder in ("doc/wordnet-base", "wordnet"):
        (tmp_path / "package" / folder).mkdir(parents=True)
    (tmp_path / "package/doc/wordnet-base/copyright").write_text("licence")
    for name in ("noun", "verb", "adj", "adv"):
        lines = "".join(f"{i:08} 38 v 01 run 0 000 01 + 02 00 | {name} number {i}\n" for i in range(200))
        (tmp_path / "package/wordnet" / f"data.{name}").write_text(SYNSETS if name == "noun" else lines)
    assert fetch(tmp_path).returncode == 0
    rows = (tmp_path / "a cache" / "set" / "nouns.tsv").read_text().splitlines()
    cells = [row.split("\t") for row in rows]
    assert cells[0] == ["synset", "category", "split", "hypernyms", "gloss"]
    assert cells[1][0::3] == ["00000001", ""]
    assert cells[1][4] == 'the "thing"\\ itself'
    assert (cells[2][1], cells[2][3], cells[2][4]) == ("noun.animal", "00000001 00000009", 'a mammal; "a | b"')
    assert cells[3][2] == ""  # another noun has the same gloss
    assert {row[2] for row in cells[1:3]} <= {"train", "test"}


def test_nothing_is_warned_of_where_all_rows_are_whole(tmp_path):
    root = write(tmp_path, a_csv="text,label\n" + "".join(f"s {i},{i % 2}\n" for i in range(50)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(root)
