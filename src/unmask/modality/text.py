"""Text: token ids in, one token of a vocabulary each."""

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream
from torch import Tensor, nn

from unmask.address import noise
from unmask.errors import ConfigError
from unmask.media import Media, Note
from unmask.modality.base import Modality, Transform
from unmask.modality.guesses import Guess, guesses
from unmask.modality.text_sheet import Piece, text_sheet
from unmask.nn.init import TOKEN_STD
from unmask.nn.position import FixedPosition, sincos_1d
from unmask.nn.word_head import WordHead
from unmask.schema import Batch, Mask, Output, Sample
from unmask.vocabulary import special_tokens, vocabulary_size

POSITION_OFFSET = 2  # RoBERTa's first position is its padding id + 1; the rows before it are never read
GUESSES = 3  # tokens for each hidden place
HIDDEN, RIGHT, WRONG = "#ffe08a", "#b5e3b5", "#f6b8b3"


class Text(Modality):
    """Learned embeddings of tokens and of their positions, as in RoBERTa (arXiv 1907.11692).

    An encoder that sees all places sees hidden tokens as `<mask>`, as a random token or as they are
    (arXiv 1810.04805); MAE's, of visible tokens, sees those that stay as they are. The first token, those between
    documents and padding are never hidden.

    Args:
        width: D, token width.
        block_size: N, tokens of the longest text, `<s>` included; longer ones are cut.
        tokenizer: the text of a `tokenizer.json`.
        random_tokens: share of hidden tokens that a random one stands for.
        kept_tokens: share of hidden tokens that stay as they are.

    Raises:
        ConfigError: the two shares are more than one, or the tokenizer is not made for masked text.
    """

    copied = ("modality", "encoder.norm")  # a post-norm encoder's first norm is RoBERTa's norm of the embeddings
    kind = "texts"
    adaptable = ("block_size",)
    words: Tensor
    boundaries: Tensor

    def __init__(
        self, width: int, block_size: int, tokenizer: str, random_tokens: float = 0.1, kept_tokens: float = 0.1
    ) -> None:
        super().__init__()
        if random_tokens + kept_tokens > 1:
            raise ConfigError(
                f"modality.random_tokens={random_tokens} and modality.kept_tokens={kept_tokens} are more than all "
                "hidden tokens. Choose shares whose sum is at most 1."
            )
        self.settings = {
            "width": width, "block_size": block_size, "tokenizer": tokenizer, "random_tokens": random_tokens,
            "kept_tokens": kept_tokens,
        }  # fmt: skip
        self.random_tokens, self.kept_tokens = random_tokens, kept_tokens
        self.grid = (block_size,)
        self.target_size = vocabulary_size(tokenizer)  # ids may have gaps
        special = special_tokens(tokenizer)
        self.mask_id = special.mask
        self.tokens = nn.Embedding(self.target_size, width)
        self.positions = nn.Embedding(POSITION_OFFSET + block_size, width)
        for table in (self.tokens, self.positions):
            nn.init.normal_(table.weight, std=TOKEN_STD)
        words = set(Tokenizer.from_str(tokenizer).get_vocab().values()) - set(special)
        self.register_buffer("words", torch.tensor(sorted(words)), persistent=False)
        boundaries = torch.tensor([special.bos, special.pad, special.eos])
        self.register_buffer("boundaries", boundaries, persistent=False)

    def transform(self, train: bool) -> Transform:
        """Cut to the block size; nothing is random."""
        return TextTransform(self.grid[0])

    def fitted(self, weights: dict[str, Tensor], grid: tuple[int, ...]) -> dict[str, Tensor]:
        """The first of the learned positions."""
        rows, known = len(self.positions.weight), len(weights["positions.weight"])
        if rows > known:
            raise ConfigError(
                f"input.block_size={self.grid[0]} is more than the {known - POSITION_OFFSET} positions that this "
                "backbone has learned. Choose at most so many."
            )
        return weights | {"positions.weight": weights["positions.weight"][:rows]}

    def counts(self, batch: Batch) -> Tensor | None:
        """Tokens of each text."""
        return batch.lengths

    def grid_of(self, batch: Batch) -> tuple[int, ...]:
        """Tokens of the longest text."""
        return (batch.inputs.shape[1],)

    def never_hidden(self, batch: Batch) -> Tensor:
        """The tokens that begin, end and pad texts."""
        return (batch.inputs[..., None] == self.boundaries).any(-1)

    def embed(self, batch: Batch, visible: Tensor | None = None) -> Tensor:
        """Look the wanted tokens up."""
        return self.tokens(batch.inputs if visible is None else batch.inputs.gather(1, visible))

    def add_position(self, tokens: Tensor, visible: Tensor | None = None, real: Tensor | None = None) -> Tensor:
        """Add the learned table; padding comes last, so it moves no other token."""
        if visible is None:
            return tokens + self.positions.weight[POSITION_OFFSET : POSITION_OFFSET + tokens.shape[1]]
        return tokens + self.positions(visible + POSITION_OFFSET)

    def new_mask_token(self) -> None:
        """None: `<mask>` is a token like others."""
        return None

    def filling(self, batch: Batch, mask: Mask, mask_token: Tensor | None) -> Tensor:
        """(B, N, D) embeddings of the corrupted text."""
        return self.tokens(self.corrupt(batch, mask))

    def corrupt(self, batch: Batch, mask: Mask) -> Tensor:
        """(B, N) ids with hidden tokens replaced, each by its own draw; for M masks a sample, (B M, N)."""
        masks = len(mask.hidden) // len(batch)
        rows = batch.repeated(masks)
        ids = rows.inputs
        positions = rows.positions * masks + torch.arange(len(rows), device=ids.device) % masks
        # Two draws a token lie side by side, so that they do not depend on how far the batch is padded.
        what, which = noise(batch.seed, "corrupt", positions, 2 * ids.shape[1]).view(len(ids), -1, 2).unbind(-1)
        random = self.words[(which * len(self.words)).long()]
        replaced = torch.where(what < self.random_tokens, random, self.mask_id)
        return torch.where(mask.is_hidden(ids.shape[1]) & (what < 1 - self.kept_tokens), replaced, ids)

    def position(self, width: int) -> FixedPosition:
        """Gives the (N, width) sine-cosine table."""
        return FixedPosition(sincos_1d(width, self.grid[0], "model.decoder.width"))

    def keep(self, batch: Batch, mask: Mask) -> Mask:
        """Show an encoder of visible tokens the share of hidden ones that stay as they are.

        If no word had to be told from what is seen of it, short runs would learn how frequent words are, and no more.
        """
        kept = int(mask.hidden.shape[1] * self.kept_tokens)
        if not kept:
            return mask
        drawn = noise(batch.seed, "keep", batch.positions, batch.inputs.shape[1]).gather(1, mask.hidden)
        counted = torch.ones_like(mask.hidden, dtype=torch.bool) if mask.counted is None else mask.counted
        rank = drawn.masked_fill(~counted, torch.inf).argsort(dim=1, stable=True).argsort(dim=1)
        own = (counted.sum(1, keepdim=True).double() * self.kept_tokens).long()
        # A short text keeps fewer; entries that do not count fill up, and there are always enough.
        order = torch.where(counted, (rank >= own) * 2, 1).argsort(dim=1, stable=True)
        hidden = mask.hidden.gather(1, order)
        visible = torch.cat([mask.visible, hidden[:, :kept]], dim=1)
        return Mask(visible, hidden, None if mask.counted is None else counted.gather(1, order), kept)

    def head(self, width: int) -> WordHead:
        """Tied to the embedding: untied, short runs learn how frequent words are, and no more."""
        return WordHead(width, self.tokens)

    def target(self, batch: Batch, mask: Mask, normalize: bool) -> Tensor:
        """(B, H) ids of the hidden tokens."""
        return batch.inputs.gather(1, mask.hidden)

    def reconstruction_loss(self, prediction: Tensor, batch: Batch, mask: Mask, normalize: bool) -> Output:
        """Cross-entropy over the vocabulary, at the hidden tokens of the whole batch.

        Args:
            prediction: (B, H, P) logits.
            batch: what was hidden from.
            mask: what was hidden.
            normalize: means nothing for words.
        """
        prediction, target = prediction.float(), self.target(batch, mask, normalize)
        error = F.cross_entropy(prediction.flatten(0, 1), target.flatten(), reduction="none")
        loss = mask.mean(error.view_as(target))
        right = (prediction.detach().argmax(-1) == target).float()
        return Output(loss, {"accuracy": mask.mean(right), "perplexity": loss.detach().exp()})

    def raw_features(self, batch: Batch) -> Tensor:
        """Bag of words: log(1 + how often each token stands in the text), without special tokens."""
        bag = torch.zeros(len(batch), self.target_size, device=batch.inputs.device)
        real = self.real(batch)
        weight = torch.ones_like(batch.inputs) if real is None else real
        return bag.scatter_add_(1, batch.inputs, weight.float()).log1p()[:, self.words]

    def picture(self, batch: Batch, mask: Mask, prediction: Tensor | None, normalized: bool) -> np.ndarray:
        """Each text three times: with what is hidden marked, with it blank, and with the likeliest tokens in place."""
        tokenizer = Tokenizer.from_str(self.settings["tokenizer"])
        ids, hidden = batch.inputs, mask.is_hidden(batch.inputs.shape[1])
        predicted = None if prediction is None else ids.scatter(1, mask.hidden, prediction.argmax(-1))
        lengths = [ids.shape[1]] * len(ids) if batch.lengths is None else batch.lengths.tolist()
        paragraphs = []
        for row, length in enumerate(lengths):
            blank, text = hidden[row, :length].tolist(), ids[row, :length].tolist()
            pieces = _pieces(tokenizer, text)
            paragraphs.append(("text", [Piece(p, HIDDEN if b else None) for p, b in zip(pieces, blank, strict=True)]))
            seen = [Piece(None if b else p, None) for p, b in zip(pieces, blank, strict=True)]
            paragraphs.append((f"visible ({sum(blank) / max(1, length):.0%} hidden)", seen))
            if predicted is not None:
                guess = predicted[row, :length].tolist()
                colours = [
                    None if not b else RIGHT if g == t else WRONG for b, g, t in zip(blank, guess, text, strict=True)
                ]
                filled = [Piece(p, colour) for p, colour in zip(_pieces(tokenizer, guess), colours, strict=True)]
                paragraphs.append(("prediction (green: right, red: wrong)", filled))
        return text_sheet(paragraphs)

    def media(self, batch: Batch, mask: Mask, prediction: Tensor | None, normalized: bool) -> dict[str, Media]:
        """Each text with its hidden tokens, and the likeliest tokens for each of their places."""
        if prediction is None:
            return {}
        tokenizer = Tokenizer.from_str(self.settings["tokenizer"])
        share, best = prediction.float().softmax(-1).topk(GUESSES)
        notes = []
        for row, ids in enumerate(batch.inputs):
            length = len(ids) if batch.lengths is None else int(batch.lengths[row])
            counts = mask.hidden[row] < length if mask.counted is None else mask.counted[row]
            where = mask.hidden[row].masked_fill(~counts, len(ids)).argsort()[: int(counts.sum())]
            places, text = mask.hidden[row, where].tolist(), ids[:length].tolist()
            made = []
            for place, tokens, shares in zip(
                places, best[row, where].tolist(), share[row, where].tolist(), strict=True
            ):
                likeliest = [(_alone(tokenizer, t), s) for t, s in zip(tokens, shares, strict=True)]
                right = tokens.index(text[place]) if text[place] in tokens else None
                made.append(Guess(_alone(tokenizer, text[place]), likeliest, right))
            notes.append(guesses(f"text {row + 1}", _pieces(tokenizer, text), places, made))
        return {"guesses": Note("\n".join(notes))}


class TextTransform(Transform):
    """Cut a text to its first tokens."""

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size

    def __call__(self, sample: Sample) -> Tensor:
        """int64 (n,) to int64 (at most block_size,)."""
        return sample.value[: self.block_size]


def _pieces(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    """What each token adds to the text; nothing where a character is not whole yet, the next token has it all."""
    stream = DecodeStream(skip_special_tokens=False)
    return [stream.step(tokenizer, token) or "" for token in ids]


def _alone(tokenizer: Tokenizer, token: int) -> str:
    """A token's own text, a part of a character as a question mark."""
    text: str = tokenizer.decode([token], skip_special_tokens=False)
    return text
