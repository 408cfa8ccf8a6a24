"""What data and models must both know of a tokenizer: its special tokens and how many ids there are."""

from typing import NamedTuple

from tokenizers import Tokenizer

from unmask.errors import ConfigError


class SpecialTokens(NamedTuple):
    """Ids of the tokens that no text holds; `unk` is None where every text can be written without it."""

    bos: int
    pad: int
    eos: int
    unk: int | None
    mask: int


_NAMES = {
    "bos": ("<s>", "[CLS]"),
    "pad": ("<pad>", "[PAD]"),
    "eos": ("</s>", "[SEP]"),
    "unk": ("<unk>", "[UNK]"),
    "mask": ("<mask>", "[MASK]"),
}
_OPTIONAL = ("unk",)


def special_tokens(tokenizer_json: str) -> SpecialTokens:
    """The special tokens of a tokenizer, under RoBERTa's names or else BERT's.

    Args:
        tokenizer_json: the text of a `tokenizer.json`.

    Raises:
        ConfigError: one is missing.
    """
    tokenizer = Tokenizer.from_str(tokenizer_json)
    ids: dict[str, int | None] = {}
    for role, names in _NAMES.items():
        known = [tokenizer.token_to_id(name) for name in names]
        ids[role] = next((token for token in known if token is not None), None)
        if ids[role] is None and role not in _OPTIONAL:
            raise ConfigError(
                f"data.tokenizer has no {role} token: neither {' nor '.join(names)}. "
                "Give the tokenizer.json of a masked language model, such as roberta-base, or null to train one."
            )
    return SpecialTokens(**ids)  # type: ignore[arg-type]  # only unk can be None here


def vocabulary_size(tokenizer_json: str) -> int:
    """One more than the highest id: the rows an embedding table needs, also where ids have gaps."""
    return max(Tokenizer.from_str(tokenizer_json).get_vocab(with_added_tokens=True).values()) + 1
