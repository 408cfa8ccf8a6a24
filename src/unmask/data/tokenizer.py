"""The tokenizer of a corpus: trained once and cached, or any `tokenizer.json`."""

from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from unmask.data.documents import Corpus, cache_file, written_aside
from unmask.errors import ConfigError
from unmask.vocabulary import special_tokens

_FORMAT = 1  # raise it when another tokenizer comes out of the same texts
_FIRST = ["<s>", "<pad>", "</s>", "<unk>"]
_LEAST = len(_FIRST) + 256 + 1  # a token for each byte, so that every text can be written, and the mask


def load_tokenizer(corpus: Corpus, vocab_size: int, cache: str | Path, file: str | Path | None = None) -> str:
    """A byte-level BPE like RoBERTa's, of a corpus' train split; or the one of a file.

    The special tokens have RoBERTa's places: `<s>` 0, `<pad>` 1, `</s>` 2, `<unk>` 3, `<mask>` last.

    Args:
        corpus: what it is trained on.
        vocab_size: tokens at most, the special ones included.
        cache: folder where it is kept.
        file: a `tokenizer.json` to take instead.

    Returns:
        The text of a `tokenizer.json`.

    Raises:
        ConfigError: the vocabulary is too small, or the file is no tokenizer for masked text.
    """
    if file is not None:
        return _read(Path(file).expanduser())
    if vocab_size < _LEAST:
        raise ConfigError(f"data.vocab_size={vocab_size} is too small. Bytes and special tokens alone are {_LEAST}.")
    path = cache_file(cache, "tokenizer", ".json", _FORMAT, corpus.fingerprint(), vocab_size)
    if not path.exists():
        print(f"training a tokenizer of {vocab_size} tokens (once)", flush=True)
        text = _train(corpus, vocab_size).to_str()
        with written_aside(path) as aside:
            aside.write_text(text, encoding="utf-8")
    return path.read_text(encoding="utf-8")


def _train(corpus: Corpus, vocab_size: int) -> Tokenizer:
    tokenizer = Tokenizer(BPE(unk_token="<unk>"))
    # No space is put before a text's first word, so that decoding gives back exactly what was encoded.
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=vocab_size - 1,
        special_tokens=_FIRST,
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((document.text for document in corpus.documents("train")), trainer)
    tokenizer.add_special_tokens(["<mask>"])
    return tokenizer


def _read(path: Path) -> str:
    try:
        text = Tokenizer.from_str(path.read_text(encoding="utf-8")).to_str()
    except OSError as error:
        raise ConfigError(f"data.tokenizer.file={path} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # the library raises this very class, and UnicodeDecodeError is no better
        raise ConfigError(f"data.tokenizer.file={path} is no tokenizer.json: {error}.") from error
    special_tokens(text)
    return text
