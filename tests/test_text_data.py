import hashlib
import importlib
import json
import os
import pickle
import subprocess
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from unmask.address import Permutation, address
from unmask.build.training import build_source
from unmask.data import documents
from unmask.data.documents import Document, HFDataset, InstalledDocs, TextFiles
from unmask.data.prose import docstrings, paragraphs
from unmask.data.text import TextBlocks
from unmask.data.tokenizer import load_tokenizer
from unmask.errors import ConfigError
from unmask.vocabulary import SpecialTokens, special_tokens, vocabulary_size

ROOT = Path(__file__).parents[1]
WORDS = ["the", "cat", "sat", "on", "mat", "and", "saw", "small", "grey", "mouse", "behind", "old", "doors", "house"]


class Corpus:
    """Documents that are given; counts how often it is read."""

    def __init__(
        self, train: list[Document], test: list[Document] | None = None, classes: tuple[str, ...] = ()
    ) -> None:
        self.splits, self.classes, self.reads = {"train": train, "test": test or train}, classes, 0

    def documents(self, split: str) -> Iterator[Document]:
        self.reads += 1
        return iter(self.splits[split])

    def fingerprint(self) -> str:
        return hashlib.sha256(repr(self.splits).encode()).hexdigest()


def story(number: int, words: int = 30) -> str:
    """Text that no other number gives."""
    return " ".join([f"{number}:", *(WORDS[address(number, "word", i) % len(WORDS)] for i in range(words))])


def corpus(count: int = 60, classes: tuple[str, ...] = ("a", "b", "c")) -> Corpus:
    return Corpus(
        [Document(story(i, 5 + i % 40), i * i % 7 % 3 if classes else None) for i in range(count)], None, classes
    )


def write(root: Path, **files: str | bytes) -> Path:
    """Files by name, where __ stands for a slash and the last _ for the dot."""
    for name, content in files.items():
        path = root / ".".join(name.replace("__", "/").rsplit("_", 1))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def rows(*items: dict[str, object]) -> str:
    return "".join(json.dumps(item) + "\n" for item in items)


def texts(found: Iterator[Document]) -> list[str]:
    return [document.text for document in found]


def complaint(call, *args, **options) -> str:
    """The one sentence (and the way out) that a mistake gives."""
    with pytest.raises(ConfigError) as caught:
        call(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def read(root: Path, split: str = "train") -> list[Document]:
    return list(TextFiles(root).documents(split))


# Blocks


def packed(source: Corpus, tokenizer: str, block_size: int, split: str = "train") -> list[tuple[list[int], int | None]]:
    """What TextBlocks promises, as plainly as can be."""
    encode, special = Tokenizer.from_str(tokenizer).encode, special_tokens(tokenizer)
    blocks = []
    for label in range(len(source.classes)) if source.classes else [None]:
        mine = [document.text for document in source.splits[split] if document.label == label]
        order = Permutation(len(mine), address(0, "documents", label or 0))
        running = []
        for i in range(len(mine)):
            running += [*encode(mine[order[i]]).ids, special.eos]
        while len(running) >= block_size - 1:
            blocks.append(([special.bos, *running[: block_size - 1]], label))
            running = running[block_size - 1 :]
    return blocks


@pytest.mark.parametrize("classes", [(), ("a", "b", "c")])
@pytest.mark.parametrize("block_size", [2, 7, 64])
def test_blocks_are_what_a_plain_loop_packs(tmp_path, classes, block_size):
    source = corpus(classes=classes)
    tokenizer = load_tokenizer(source, 300, tmp_path)
    blocks = TextBlocks(source, tokenizer, block_size, tmp_path)
    assert [(value.tolist(), label) for value, label in blocks] == packed(source, tokenizer, block_size)
    assert blocks.classes == classes
    assert (blocks[0].value.dtype, blocks[-1].value.tolist()) == (torch.int64, blocks[len(blocks) - 1].value.tolist())
    with pytest.raises(IndexError):
        blocks[len(blocks)]


def test_documents_are_shuffled_but_always_alike(tmp_path):
    source = corpus(classes=())
    tokenizer = load_tokenizer(source, 300, tmp_path)
    first, second = (TextBlocks(source, tokenizer, 16, tmp_path / name) for name in "ab")
    assert all(torch.equal(a.value, b.value) for a, b in zip(first, second, strict=True))
    text = Tokenizer.from_str(tokenizer).decode(torch.cat([block.value for block in first]).tolist())
    stands = [text.find(f"{i}:") for i in range(10, 60)]
    assert sorted(stands) != stands


def test_a_split_reads_its_own_documents(tmp_path):
    source = Corpus([Document(story(i), None) for i in range(9)], [Document(story(i), None) for i in range(20, 25)])
    tokenizer = load_tokenizer(source, 300, tmp_path)
    blocks = TextBlocks(source, tokenizer, 8, tmp_path, "test")
    assert [(value.tolist(), label) for value, label in blocks] == packed(source, tokenizer, 8, "test")


def test_a_text_that_spells_a_special_token_does_not_become_one(tmp_path):
    source = Corpus([Document("<mask> and a </s> and a <s> <pad> and <unk> " * 9, None)])
    tokenizer = load_tokenizer(source, 300, tmp_path)
    value = torch.cat([block.value[1:] for block in TextBlocks(source, tokenizer, 8, tmp_path)])
    assert set(value.tolist()) & set(special_tokens(tokenizer)) == {2}  # the end of the document
    assert value.tolist().count(2) == 1


def test_a_tokenizer_that_cuts_and_pads_is_kept_from_both(tmp_path):
    source = corpus(classes=())
    tokenizer = Tokenizer.from_str(load_tokenizer(source, 300, tmp_path))
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=50, pad_id=1)
    blocks = TextBlocks(source, tokenizer.to_str(), 16, tmp_path)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    assert [(value.tolist(), label) for value, label in blocks] == packed(source, tokenizer.to_str(), 16)


def test_ids_beyond_sixteen_bits_are_kept(tmp_path):
    vocabulary = {name: i for i, name in enumerate(["<s>", "<pad>", "</s>", "<mask>", "[UNK]"])} | {"far": 70_000}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]")).to_str()
    assert vocabulary_size(tokenizer) == 70_001
    assert TextBlocks(Corpus([Document("far", None)]), tokenizer, 3, tmp_path)[0].value.tolist() == [0, 70_000, 2]


def test_a_second_start_reads_no_document(tmp_path, capsys):
    source = corpus()
    for _ in range(2):
        blocks = TextBlocks(source, load_tokenizer(source, 300, tmp_path), 16, tmp_path)
    assert source.reads == 2  # one for the tokenizer, one for the blocks
    assert capsys.readouterr().out.count("(once)") == 2
    assert not list(tmp_path.rglob("*.tmp"))
    longer = TextBlocks(source, load_tokenizer(source, 300, tmp_path), 32, tmp_path)
    assert (source.reads, len(longer) < len(blocks)) == (2, True)


@pytest.mark.parametrize("change", ["corpus", "tokenizer"])
def test_another_corpus_or_tokenizer_does_not_get_cached_blocks(tmp_path, change):
    sources = [corpus(), corpus(59 if change == "corpus" else 60)]
    sizes = [300, 290 if change == "tokenizer" else 300]
    for source, size in zip(sources, sizes, strict=True):
        tokenizer = load_tokenizer(source, size, tmp_path)
        assert vocabulary_size(tokenizer) == size
        blocks = TextBlocks(source, tokenizer, 16, tmp_path)
        assert [(value.tolist(), label) for value, label in blocks] == packed(source, tokenizer, 16)


def test_workers_map_the_file_and_get_no_copy(tmp_path):
    source = corpus(3000)
    blocks = TextBlocks(source, load_tokenizer(source, 300, tmp_path), 16, tmp_path)
    sent = pickle.dumps(blocks)
    assert len(sent) < 2000 < blocks._tokens.nbytes
    assert torch.equal(pickle.loads(sent)[-1].value, blocks[-1].value)


MISTAKES = {
    "no block": (
        {"block_size": 100_000},
        r"data\.block_size=100000: the train split has \d+ tokens in 3 classes, not ",
    ),
    "only a <s>": ({"block_size": 1}, r"data\.block_size=1 is too small"),
    "a split": ({"block_size": 8, "split": "tset"}, r"data\.split=tset is neither train nor test\. Did you mean test"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_blocks_that_cannot_be_are_refused(tmp_path, case):
    options, words = MISTAKES[case]
    source = corpus()
    with pytest.raises(ConfigError, match=words):
        TextBlocks(source, load_tokenizer(source, 300, tmp_path), cache=tmp_path, **options)


def test_a_corpus_without_any_text_is_refused(tmp_path):
    tokenizer = load_tokenizer(corpus(), 300, tmp_path)
    root = write(tmp_path / "set", a_txt=" \n", b_txt="")
    words = complaint(TextBlocks, TextFiles(root), tokenizer, 8, tmp_path)
    assert words == "data.corpus: the train split is without any text. Give more documents."


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    write(tmp_path, text_txt="a file where the folder should be")
    (tmp_path / "text.txt").rename(tmp_path / "text")
    words = complaint(load_tokenizer, corpus(), 300, tmp_path)
    assert words.startswith(f"paths.cache: {tmp_path}/text/tokenizer-")
    assert words.endswith("Set UNMASK_CACHE to another folder.")


# Tokenizers


def test_special_tokens_have_robertas_places(tmp_path):
    tokenizer = load_tokenizer(corpus(), 300, tmp_path)
    assert special_tokens(tokenizer) == SpecialTokens(bos=0, pad=1, eos=2, unk=3, mask=vocabulary_size(tokenizer) - 1)
    assert vocabulary_size(tokenizer) == 300


@pytest.mark.parametrize(
    "text", ["  The cat\tsat.\n\n\nOn  a mat ", "naïve — 你好 🐈‍⬛ \x00\x7f", "don't x_y(z)[0] == 1e-5"]
)
def test_any_text_comes_back_as_it_was(tmp_path, text):
    tokenizer = Tokenizer.from_str(load_tokenizer(corpus(), 300, tmp_path))
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_the_tokenizer_is_the_same_in_every_process(tmp_path):
    program = f"""if True:
        from unmask.data.documents import TextFiles
        from unmask.data.tokenizer import _train
        print(_train(TextFiles({str(tmp_path / "a.jsonl")!r}), 400).to_str())
    """
    write(tmp_path, a_jsonl=rows(*({"text": story(i)} for i in range(200))))
    command = [sys.executable, "-c", program]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert runs[0] == runs[1]
    assert runs[0].strip() == load_tokenizer(TextFiles(tmp_path / "a.jsonl"), 400, tmp_path)


def test_common_words_become_one_token(tmp_path):
    tokenizer = Tokenizer.from_str(load_tokenizer(corpus(), 400, tmp_path))
    assert tokenizer.encode(" mouse behind").tokens == ["Ġmouse", "Ġbehind"]


def saved(path: Path, *names: str) -> Path:
    Tokenizer(WordLevel({name: i for i, name in enumerate(names)}, unk_token=names[-1])).save(str(path))
    return path


def test_a_tokenizer_with_berts_names_is_taken_and_the_corpus_left_alone(tmp_path):
    source = corpus()
    file = saved(tmp_path / "bert.json", "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cat")
    tokenizer = load_tokenizer(source, 4096, tmp_path, file)
    assert special_tokens(tokenizer) == SpecialTokens(bos=2, pad=0, eos=3, unk=1, mask=4)
    assert source.reads == 0


def test_a_tokenizer_may_do_without_unk(tmp_path):
    file = saved(tmp_path / "bytes.json", "<s>", "<pad>", "</s>", "<mask>")
    assert special_tokens(load_tokenizer(corpus(), 0, tmp_path, file)).unk is None


@pytest.mark.parametrize(
    ("missing", "role", "names"),
    [
        ("<mask>", "mask", "neither <mask> nor [MASK]"),
        ("<pad>", "pad", "neither <pad> nor [PAD]"),
        ("<s>", "bos", "neither <s> nor [CLS]"),
        ("</s>", "eos", "neither </s> nor [SEP]"),
    ],
)
def test_a_tokenizer_without_a_special_token_is_refused(tmp_path, missing, role, names):
    file = saved(tmp_path / "some.json", *({"<s>", "<pad>", "</s>", "<mask>"} - {missing}), "cat")
    words = complaint(load_tokenizer, corpus(), 300, tmp_path, file)
    assert words.startswith(f"data.tokenizer has no {role} token: {names}. ")


@pytest.mark.parametrize("content", [b"{", b"{}", b"\xff\xfe", None])
def test_a_file_that_is_no_tokenizer_is_named(tmp_path, content):
    path = tmp_path / "No.json"
    if content is not None:
        path.write_bytes(content)
    words = complaint(load_tokenizer, corpus(), 300, tmp_path, path)
    reason = "cannot be read: No such file or directory." if content is None else "is no tokenizer.json: "
    assert words.startswith(f"data.tokenizer.file={path} {reason}")


def test_a_vocabulary_smaller_than_the_bytes_is_refused(tmp_path):
    words = complaint(load_tokenizer, corpus(), 260, tmp_path)
    assert words == "data.vocab_size=260 is too small. Bytes and special tokens alone are 261."
    assert vocabulary_size(load_tokenizer(corpus(), 261, tmp_path)) == 261


# Files


def test_train_and_held_out_folders_are_the_splits(tmp_path):
    write(tmp_path, train__b_md="# Two\n\nThree", train__a_TXT="\ufeffone", train__skip_rst="no", val__c_txt="four\n")
    assert read(tmp_path) == [Document("one", None), Document("# Two\n\nThree", None)]
    assert read(tmp_path, "test") == [Document("four\n", None)]


@pytest.mark.parametrize("held_out", ["val", "validation", "dev", "test", "test-00000-of-00001"])
def test_train_and_held_out_files_are_the_splits(tmp_path, held_out):
    (tmp_path / "train.jsonl").write_text(rows({"text": "one"}, {"text": " "}, {"text": "two"}))
    (tmp_path / f"{held_out}.jsonl").write_text(rows({"text": "three"}))
    (tmp_path / "LICENSE.txt").write_text("not a text of either")
    assert texts(TextFiles(tmp_path).documents("train")) == ["one", "two"]
    assert texts(TextFiles(tmp_path).documents("test")) == ["three"]


def test_shards_of_a_split_are_read_in_order(tmp_path):
    for name, text in {"train-00001-of-2": "b", "train-00000-of-2": "a", "trainer": "x", "test": "c"}.items():
        (tmp_path / f"{name}.jsonl").write_text(rows({"text": text}))
    assert texts(TextFiles(tmp_path).documents("train")) == ["a", "b"]


def test_class_folders_are_labels_and_every_tenth_of_each_is_held_out(tmp_path):
    for i in range(20):
        write(tmp_path, **{f"dogs__{i:02}_txt": f"dog {i}", f"cats__deep__{i:02}_txt": f"cat {i}"})
    source = TextFiles(tmp_path)
    assert source.classes == ("cats", "dogs")
    assert read(tmp_path, "test") == [
        Document(f"{name} {i}", label) for label, name in enumerate(("cat", "dog")) for i in (0, 10)
    ]
    train = read(tmp_path)
    assert (len(train), len(set(train) & set(read(tmp_path, "test")))) == (36, 0)


def test_of_a_few_documents_the_last_tenth_of_each_is_held_out(tmp_path):
    lines = [f"line {i:03}\n" for i in range(200)]
    write(tmp_path, book_txt="".join(lines), short_txt="one line only")
    for root in (tmp_path, tmp_path / "book.txt"):
        train, test = (texts(TextFiles(root).documents(split)) for split in ("train", "test"))
        assert (train[0] + test[0], len(test)) == ("".join(lines), 1)
        assert len(test[0]) == pytest.approx(len("".join(lines)) / 10, rel=0.1)
        assert train[1:] == ["one line only"] * (root == tmp_path)


def test_labels_of_lines_are_classes_numbers_by_size(tmp_path):
    labels = [10, 2, "b", "a", 2, 10]
    write(tmp_path, train_jsonl=rows(*({"text": f"t{i}", "label": label} for i, label in enumerate(labels))))
    write(tmp_path, test_jsonl=rows({"text": "t", "label": "a"}))
    source = TextFiles(tmp_path)
    assert source.classes == ("2", "10", "a", "b")
    assert [document.label for document in source.documents("train")] == [1, 0, 3, 2, 0, 1]
    assert [document.label for document in source.documents("test")] == [2]


def test_the_fingerprint_changes_with_a_files_text(tmp_path):
    write(tmp_path, a_txt="one", b_txt="two")
    before = TextFiles(tmp_path).fingerprint()
    assert TextFiles(tmp_path).fingerprint() == before
    write(tmp_path, b_txt="three")
    assert TextFiles(tmp_path).fingerprint() != before


BROKEN = {
    "latin1.txt": ("gr\u00fcn".encode("latin-1"), "latin1.txt is not UTF-8: byte 2 is 0xfc. Convert it"),
    "latin1.jsonl": (b'{"text": "a"}\n{"text": "\xe9"}\n', "latin1.jsonl is not UTF-8: byte 24 is 0xe9. Convert it"),
    "json.jsonl": ('{"text": "a"}\n\n{"text" "b"}\n', "json.jsonl line 3 is not JSON: Expecting ':' delimiter at "),
    "key.jsonl": (rows({"text": "a"}, {"txt": "b"}), "key.jsonl line 2 has no text under the key text. Mend"),
    "type.jsonl": (rows({"text": 5}), "type.jsonl line 1 has no text under the key text. Mend"),
    "list.jsonl": ("[1]\n", "list.jsonl line 1 has no text under the key text. Mend"),
    "label.jsonl": (
        rows({"text": "a", "label": [1]}),
        "label.jsonl line 1 has the label [1], neither a name nor a whole ",
    ),
    "half.jsonl": (
        rows({"text": "a", "label": 1}, {"text": "b"}, {"text": "c"}),
        "half.jsonl line 2 has no label, others have one. Label all",
    ),
    "no.parquet": ("PAR1 is not enough", "no.parquet is not Parquet: "),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named_with_its_line_or_byte(tmp_path, name):
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    content, reason = BROKEN[name]
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / name).write_bytes(content.encode() if isinstance(content, str) else content)
    write(tmp_path, test__a_txt="b")
    assert complaint(read, tmp_path).startswith(f"data.root={tmp_path}: train/{reason}")


def test_a_label_that_train_has_not_is_refused(tmp_path):
    write(tmp_path, train_jsonl=rows({"text": "a", "label": "x"}), test_jsonl=rows({"text": "b", "label": "y"}))
    assert "test.jsonl line 1 has the label y, which is none of train's. " in complaint(read, tmp_path, "test")


def test_a_root_without_texts_says_so(tmp_path):
    assert "missing cannot be read: no such file or directory" in complaint(TextFiles, tmp_path / "missing")
    assert "holds no texts: no file ending in .txt, .md, .jsonl or .parquet" in complaint(TextFiles, tmp_path)
    write(tmp_path, a_pdf="x")
    assert "a.pdf ends in none of .txt, .md, .jsonl, .parquet." in complaint(TextFiles, tmp_path / "a.pdf")


def test_parquet_rows_are_documents(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), importlib.import_module("pyarrow.parquet")
    table = arrow.table({"other": [1, 2, 3], "text": ["a", "", "b"], "label": [1, 0, 0]})
    parquet.write_table(table, tmp_path / "train.parquet")
    parquet.write_table(table.slice(2), tmp_path / "test.parquet")
    assert read(tmp_path) == [Document("a", 1), Document("b", 0)]
    assert read(tmp_path, "test") == [Document("b", 0)]


class FakeParquet:
    """As much of pyarrow.parquet as is used."""

    def __init__(self, columns: dict[str, list[object]]) -> None:
        self.columns, self.schema_arrow = columns, types.SimpleNamespace(names=list(columns))

    def iter_batches(self, columns: list[str]) -> Iterator[object]:
        chosen = [dict(zip(columns, row, strict=True)) for row in zip(*(self.columns[c] for c in columns), strict=True)]
        yield from (types.SimpleNamespace(to_pylist=lambda row=row: [row]) for row in chosen)


def fake_parquet(monkeypatch: pytest.MonkeyPatch, **columns: list[object]) -> None:
    module = types.SimpleNamespace(ParquetFile=lambda path: FakeParquet(columns))
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", module)


def test_parquet_without_a_column_of_text_says_which_there_are(tmp_path, monkeypatch):
    fake_parquet(monkeypatch, body=["a"], label=[1])
    write(tmp_path, a_parquet="")
    assert "a.parquet has no column text, but body, label. " in complaint(read, tmp_path)


def test_a_row_of_parquet_without_text_is_named(tmp_path, monkeypatch):
    fake_parquet(monkeypatch, id=[1, 2], text=["a", None])
    write(tmp_path, a_parquet="")
    assert "a.parquet row 2 has no text under the key text. " in complaint(read, tmp_path)


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    write(tmp_path, a_parquet="")
    words = complaint(read, tmp_path)
    assert words.endswith('a.parquet needs pyarrow, which is not installed. Run `pip install "unmask[text]"`.')


# The hub


class FakeSplit:
    """As much of a `datasets.Dataset` as is used."""

    def __init__(self, names: list[str] | None = None, **columns: list[object]) -> None:
        self.columns, self.column_names = columns, list(columns)
        self.features = {name: types.SimpleNamespace() for name in columns}
        if names:
            self.features["label"].names = names

    def __iter__(self) -> Iterator[dict[str, object]]:
        return (dict(zip(self.columns, row, strict=True)) for row in zip(*self.columns.values(), strict=True))

    def unique(self, column: str) -> list[object]:
        return list(dict.fromkeys(self.columns[column]))


def fake_hub(monkeypatch: pytest.MonkeyPatch, **splits: FakeSplit) -> list[tuple[object, ...]]:
    asked: list[tuple[object, ...]] = []

    def load_dataset(name: str, config: str | None, revision: str | None) -> dict[str, FakeSplit]:
        asked.append((name, config, revision))
        return splits

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    return asked


def test_a_data_set_of_the_hub_is_read_by_its_columns(monkeypatch):
    train, test = FakeSplit(["no", "yes"], body=["a", "", "b"], label=[1, 0, 0]), FakeSplit(body=["c"], label=[1])
    asked = fake_hub(monkeypatch, train=train, test=test)
    source = HFDataset("me/set", "small", "body", "label", "abc")
    assert source.fingerprint() == HFDataset("me/set", "small", "body", "label", "abc").fingerprint()
    assert not asked  # nothing is loaded to know whether it is cached
    assert source.classes == ("no", "yes")
    assert list(source.documents("train")) == [Document("a", 1), Document("b", 0)]
    assert asked == [("me/set", "small", "abc")]


def test_labels_without_names_are_their_values_and_validation_is_held_out_before_test(monkeypatch):
    unseen = FakeSplit(text=["z"], label=[-1])
    held_out = FakeSplit(text=["d"], label=[3])
    fake_hub(monkeypatch, train=FakeSplit(text=["a", "b"], label=[12, 3]), test=unseen, validation=held_out)
    source = HFDataset("set", label="label")
    assert source.classes == ("3", "12")
    assert list(source.documents("test")) == [Document("d", 0)]


def test_a_data_set_of_one_split_shares_no_document(monkeypatch):
    fake_hub(monkeypatch, train=FakeSplit(text=[story(i) for i in range(35)]))
    train, test = (texts(HFDataset("set").documents(split)) for split in ("train", "test"))
    assert (len(train), len(test), set(train) & set(test)) == (31, 4, set())


def test_mistakes_with_the_hub_are_one_sentence(monkeypatch):
    fake_hub(monkeypatch, train=FakeSplit(text=["a"], labels=[1]), test=FakeSplit(text=["a"], labels=[2]))
    words = complaint(lambda: list(HFDataset("set", text="txt").documents("train")))
    assert words.startswith("data.dataset=set has no column txt (data.text_column), but text, labels. Choose one of ")
    assert words.endswith("Did you mean text?")
    words = complaint(lambda: HFDataset("set", label="label").classes)
    assert "has no column label (data.label_column), but text, labels. " in words
    words = complaint(lambda: list(HFDataset("set", label="labels").documents("test")))
    assert words.startswith("data.dataset=set row 1 of test has the label 2, which is none of train's. ")
    fake_hub(monkeypatch, all=FakeSplit(text=["a"]))
    assert "has no split train, but all. " in complaint(lambda: list(HFDataset("set").documents("train")))
    monkeypatch.setitem(sys.modules, "datasets", None)
    words = complaint(lambda: list(HFDataset("set").documents("train")))
    assert words.endswith('needs the library datasets, which is not installed. Run `pip install "unmask[text]"`.')


@pytest.mark.parametrize("error", [ConnectionError("no\nnetwork."), FileNotFoundError("no\nset"), ValueError("no\n")])
def test_a_data_set_that_cannot_be_loaded_says_why_in_one_sentence(monkeypatch, error):
    def load_dataset(*args: object, **options: object) -> None:
        raise error

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    words = complaint(lambda: list(HFDataset("set").documents("train")))
    assert words.startswith("data.dataset=set cannot be loaded: no. Give another, or ")


# Installed documentation

DOCSTRING = """\
Compute the :func:`~package.part.mean` of ``values`` along an axis, ignoring those which are *not* finite,
as described by **Knuth** in `his book <https://example.org>`_ [1]_ for numbers of any size and sign.

Too short to keep.

Parameters
----------
values : array_like
    An array of numbers whose mean is wanted; it may be of any shape, and what is not finite
    in it is left out before the mean is computed.
axis : int, optional
    The axis.

Args:
    count (int, optional): how many of the values are looked at before the function gives up and raises an
        error that says which of them was the last one it saw
    other: not long.

* The first item of a list that is long enough to stand alone as a paragraph, because it goes on
  for two whole lines of text.
* The second item of a list that is long enough to stand alone as a paragraph, because it also goes on
  for two lines.

.. note::
    A note is prose as well and should be kept, since it tells the reader what to look out for when the
    function is called.

.. code-block:: python

    this code is indented below a directive and therefore is no prose although it has a good number of words in it

    and so it goes on after an empty line with a good number of words that are also no prose at all, none of it

Examples of a literal block follow this sentence, which itself is long enough to be kept as a paragraph of words::

    this is a literal block that has a good number of words and is yet no prose because it is indented below

>>> print("this is a session of the interpreter that has a good number of words but is no prose at all, none")
this is its output that has a good number of words but is no prose at all, as it belongs to the session above

```
this is fenced code that has a good number of words but is no prose at all, as it stands between the two fences
```

=====  ==============================================================================================
table  this is a table that has a good number of words but is no prose at all, as it has rules of signs
=====  ==============================================================================================
"""
PROSE = [
    "Compute the mean of values along an axis, ignoring those which are not finite, as described by Knuth in his book "
    "for numbers of any size and sign.",
    "An array of numbers whose mean is wanted; it may be of any shape, and what is not finite in it is left out before "
    "the mean is computed.",
    "how many of the values are looked at before the function gives up and raises an error that says which of them was "
    "the last one it saw",
    "The first item of a list that is long enough to stand alone as a paragraph, because it goes on for two whole "
    "lines of text.",
    "The second item of a list that is long enough to stand alone as a paragraph, because it also goes on for two "
    "lines.",
    "A note is prose as well and should be kept, since it tells the reader what to look out for when the function is "
    "called.",
    "Examples of a literal block follow this sentence, which itself is long enough to be kept as a paragraph of words:",
]


def test_prose_is_kept_and_code_tables_and_markup_are_not():
    assert paragraphs(DOCSTRING) == PROSE


def test_docstrings_are_found_wherever_they_stand_and_code_is_not_run():
    source = b'''"module"
raise SystemExit
x = "no"
if x:
    try:
        class A:
            "class"
            async def f(self):
                "function"
                return "no"
    except ValueError:
        def g(): "handler"
add_docstr(f, r"""call {x}""".format(x="argument"))
print("no")
'''
    found = list(docstrings(source))
    assert found[:4] == ["module", "class", "function", "handler"]
    assert sorted(found[4:]) == ["argument", "call {x}"]
    assert list(docstrings(b"def broken(:")) == []


def test_warnings_about_other_peoples_code_are_not_shown():
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        assert list(docstrings(b'"a \\d b"')) == ["a \\d b"]
    assert not shown


@pytest.fixture(scope="module")
def docs(tmp_path_factory) -> InstalledDocs:
    return InstalledDocs(("omegaconf", "PIL", "rich", "joblib"), tmp_path_factory.mktemp("docs"))


def test_installed_documentation_shares_neither_document_nor_paragraph_between_splits(docs):
    found = {split: list(docs.documents(split)) for split in ("train", "test")}
    lines = [line.casefold() for split in found.values() for text, _ in split for line in text.split("\n")]
    assert len(lines) == len(set(lines)) > 300
    assert all(len(line.split()) >= 20 for line in lines)
    names = [name for name, _, _ in docs._modules()]
    assert len(names) == len(set(names)) == len(found["train"]) + len(found["test"])
    assert 0.02 < len(found["test"]) / len(names) < 0.25
    assert {label for _, label in found["train"]} == {0, 1, 2, 3}


def test_installed_documentation_is_cached_as_it_is_extracted(docs, monkeypatch):
    fresh = list(InstalledDocs(docs.classes).documents("train"))
    list(docs.documents("train"))
    monkeypatch.setattr(documents, "docstrings", None)  # whoever reads a source again fails
    again = InstalledDocs(docs.classes, docs._cache)
    assert list(again.documents("train")) == fresh
    assert again.fingerprint() != InstalledDocs(("omegaconf",)).fingerprint()


def test_documentation_is_read_without_importing_its_package():
    program = """if True:
        import sys
        from unmask.data.documents import InstalledDocs
        assert next(InstalledDocs(("wandb",)).documents("train")).label == 0
        assert "wandb" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_reference_of_the_language_is_part_of_pythons_documentation(monkeypatch):
    monkeypatch.setattr(documents, "_modules_of", lambda package: ())
    reference = "\n".join(texts(InstalledDocs(("python",)).documents("train")))
    assert len(reference) > 100_000
    assert "expression" in reference


@pytest.mark.parametrize(
    ("packages", "words"),
    [
        (("no_such_package",), "no package no_such_package is installed. Install it, or leave it out."),
        ((), "packages=[] must name packages, each once."),
        (("rich", "rich"), "packages=['rich', 'rich'] must name packages, each once."),
    ],
)
def test_packages_that_cannot_be_read_are_named(packages, words):
    assert words in complaint(lambda: list(InstalledDocs(packages).documents("train")))


# The configs


def source_of(*overrides: str, split: str = "train") -> TextBlocks:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        source = build_source(compose("train", overrides=list(overrides)), split)
    assert isinstance(source, TextBlocks)
    return source


def test_the_config_of_text_files_builds_both_splits(tmp_path):
    lines = rows(*({"text": story(i), "label": WORDS[i % 2]} for i in range(100)))
    root = write(tmp_path / "set", all_jsonl=lines)
    common = ("data=text", f"data.root={root}", "data.vocab_size=300", "data.block_size=16", f"paths.cache={tmp_path}")
    train, test = (source_of(*common, split=split) for split in ("train", "test"))
    assert (len(train[0].value), train.classes) == (16, ("cat", "the"))
    assert len(train) > 5 * len(test) > 0


def test_the_config_of_installed_documentation_builds(tmp_path):
    common = ("data=docs", "+data.corpus.packages=[omegaconf,joblib]", f"paths.cache={tmp_path}", "data.vocab_size=300")
    assert len(source_of(*common)[0].value) == 64


def test_the_config_of_the_hub_passes_on_what_it_is_told(tmp_path, monkeypatch):
    asked = fake_hub(monkeypatch, train=FakeSplit(body=[story(i) for i in range(200)]))
    options = ("data.config=small", "data.text_column=body", "data.revision=abc", "data.vocab_size=300")
    assert len(source_of("data=hf_text", "data.dataset=me/set", *options, f"paths.cache={tmp_path}")) > 0
    assert set(asked) == {("me/set", "small", "abc")}


def test_a_mistake_below_the_source_is_still_one_sentence(tmp_path):
    words = complaint(source_of, "data=text", f"data.root={tmp_path}/none", f"paths.cache={tmp_path}")
    assert words.startswith(f"data.root={tmp_path}/none cannot be read: no such file")


# WordNet

SYNSETS = """  1 This line is part of the licence.
{:08} 05 n 02 cat 0 true_cat 0 001 @ 00001740 n 0000 | a "feline" mammal; "a | {}"
{:08} 38 v 01 run 0 000 01 + 02 00 | move fast by using one's feet {}
{:08} 38 v 01 hurry 0 000 01 + 02 00 | in the same words as others
"""


def fetch(tmp_path: Path, apt_get: str = "exit 0") -> subprocess.CompletedProcess[str]:
    """The script with apt played by one-line programs: dpkg unpacks whatever lies in `package`."""
    tools = tmp_path / "tools"
    tools.mkdir(exist_ok=True)
    dpkg = f'mkdir -p "$3/usr/share" && cp -r "{tmp_path}/package/." "$3/usr/share"'
    for name, line in {"apt-cache": "exit 0", "apt-get": apt_get, "dpkg": dpkg}.items():
        (tools / name).write_text(f"#!/bin/sh\n{line}\n")
        (tools / name).chmod(0o755)
    command = ["sh", str(ROOT / "scripts" / "fetch_wordnet.sh"), str(tmp_path / "a cache" / "set")]
    env = {"PATH": f"{tools}:{os.environ['PATH']}"}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_the_script_writes_wordnets_glosses_as_labelled_lines_and_names_the_licence(tmp_path):
    for folder in ("doc/wordnet-base", "wordnet"):
        (tmp_path / "package" / folder).mkdir(parents=True)
    (tmp_path / "package/doc/wordnet-base/copyright").write_text("licence")
    for part, name in enumerate(("noun", "verb", "adj", "adv")):
        numbers = range(part * 100, part * 100 + 100)
        lines = "".join(SYNSETS.format(3 * i, i, 3 * i + 1, i, 3 * i + 2) for i in numbers)
        (tmp_path / "package/wordnet" / f"data.{name}").write_text(lines)
    assert "WordNet licence" in fetch(tmp_path).stdout
    assert sorted(os.listdir(tmp_path / "a cache" / "set")) == [
        "LICENSE", "nouns.tsv", "test.jsonl", "train.jsonl",
    ]  # fmt: skip
    source = TextFiles(tmp_path / "a cache" / "set")
    assert source.classes == ("noun.animal", "verb.motion")
    train, test = (list(source.documents(split)) for split in ("train", "test"))
    expected = {Document(f'a "feline" mammal; "a | {i}"', 0) for i in range(400)}
    expected |= {Document(f"move fast by using one's feet {i}", 1) for i in range(400)}
    expected |= {Document("in the same words as others", 1)}
    assert (set(train + test), len(train) + len(test)) == (expected, 801)
    assert len(test) == pytest.approx(80, abs=30)
    again = fetch(tmp_path, apt_get="exit 1")
    assert (again.returncode, again.stderr) == (0, "")


@pytest.mark.parametrize(
    ("apt_get", "reason"), [("exit 1", "the download failed."), ("exit 0", "does not hold data.noun")]
)
def test_the_script_leaves_nothing_behind_when_it_fails_and_says_why(tmp_path, apt_get, reason):
    (tmp_path / "package").mkdir()
    result = fetch(tmp_path, apt_get)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert reason in result.stderr
    assert not list(tmp_path.glob("a cache/*"))
