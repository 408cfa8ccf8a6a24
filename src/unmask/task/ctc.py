"""What is said: characters from transcripts, by connectionist temporal classification."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.backbone import Backbone
from unmask.decoding.alphabet import Alphabet, normalise
from unmask.decoding.ctc import BeamSearch, greedy
from unmask.decoding.ngram import read_arpa
from unmask.decoding.wer import Errors, character_errors, total, word_errors
from unmask.errors import ConfigError
from unmask.modality.speech import Speech
from unmask.nn.init import init_normal
from unmask.schema import Batch, Label, Mask, Output
from unmask.task.base import Record, Task


class CTC(Task):
    """One linear layer over every frame, trained with CTC (Graves et al., ICML 2006; arXiv 2006.11477).

    In training hidden frames are a mask token and spans of channels are zero, as in wav2vec 2.0; the convolutions of
    the waveform do not learn.

    Args:
        backbone: encodes speech.
        characters: what transcripts are made of, see `Alphabet`.
        punctuation: transcripts keep it.
        dropout: share of the encoder's values that training drops before the head.
        channel_ratio: p; of D channels p D / channel_length spans begin, drawn for each clip.
        channel_length: of such a span.
        language_model: an ARPA file that a beam search asks; None for the best path.
        beam: hypotheses kept.
        alpha: weight of the language model, in natural logarithms.
        beta: what each word adds.
        gamma: what each character of an unknown word adds.

    Raises:
        ConfigError: the backbone is of another modality, or the language model cannot be read.
    """

    decides = "wer"
    larger_is_better = False
    transcribed = True

    def __init__(
        self,
        backbone: Backbone,
        characters: str,
        punctuation: bool = False,
        dropout: float = 0.0,
        channel_ratio: float = 0.0,
        channel_length: int = 64,
        language_model: str | None = None,
        beam: int = 50,
        alpha: float = 0.5,
        beta: float = 2.0,
        gamma: float = -1.0,
    ) -> None:
        super().__init__()
        self.settings = {
            "characters": characters, "punctuation": punctuation, "dropout": dropout, "channel_ratio": channel_ratio,
            "channel_length": channel_length, "language_model": language_model, "beam": beam, "alpha": alpha,
            "beta": beta, "gamma": gamma,
        }  # fmt: skip
        self.backbone, self.alphabet = backbone, Alphabet(characters, punctuation)
        self.channel_ratio, self.channel_length = channel_ratio, channel_length
        speech = check_speech(backbone)
        speech.conv.requires_grad_(False)
        self.mask_token = speech.new_mask_token()
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(backbone.encoder.width, len(self.alphabet)).apply(init_normal)
        self.search = None
        if language_model is not None:
            model = read_arpa(Path(language_model))
            self.search = BeamSearch(self.alphabet, model, alpha, beta, gamma, beam)

    @classmethod
    def fits(cls, backbone: Backbone) -> None:
        """For speech."""
        check_speech(backbone)

    @classmethod
    def learn(cls, classes: Sequence[str], labels: Sequence[Label | None]) -> dict[str, Any]:
        """The characters of the training transcripts."""
        return {"characters": Alphabet.of(str(label) for label in labels).characters}

    def encode_label(self, label: Any) -> Tensor:
        """Ids of the characters."""
        return torch.tensor(self.alphabet.encode(label))

    def name_label(self, label: Any) -> str:
        """The transcript as it is compared."""
        return normalise(label, self.alphabet.punctuation)

    def forward(self, batch: Batch, mask: Mask | None = None) -> Output:
        """The sum over a clip's alignments, as a mean over clips; clips shorter than their transcript do not count."""
        assert batch.labels is not None
        log_probs, lengths = self.log_probs(batch, mask)
        wanted = batch.label_lengths
        if wanted is None:
            wanted = torch.full_like(lengths, batch.labels.shape[1])
        loss = F.ctc_loss(log_probs.transpose(0, 1), batch.labels, lengths, wanted, reduction="sum", zero_infinity=True)
        return Output(loss / len(batch), {"loss_per_character": loss.detach() / wanted.sum()})

    def log_probs(self, batch: Batch, mask: Mask | None = None) -> tuple[Tensor, Tensor]:
        """(B, T, C) float32, and the (B,) frames that count."""
        local = self._channels_hidden(self.backbone.modality.embed(batch))
        encoded = self.tokens(batch, mask, fill=self.mask_token, keep_hidden=True, local=local)
        logits = self.head(self.dropout(encoded[:, self.backbone.prefix :])).float()
        counts = self.backbone.modality.counts(batch)
        return logits.log_softmax(-1), torch.full_like(batch.positions, logits.shape[1]) if counts is None else counts

    def predict(self, batch: Batch, views: int = 1) -> list[Record]:
        """What is said, by the best path or with the language model."""
        log_probs, lengths = self.log_probs(batch)
        if self.search is None:
            return [{"prediction": self.alphabet.decode(ids)} for ids in greedy(log_probs, lengths)]
        best = [found[0] for found in self.search(log_probs, lengths)]
        return [{"prediction": self.alphabet.decode(one.ids), "score": one.score} for one in best]

    def compared(self, record: Record) -> Record:
        """With the errors of this clip."""
        words = word_errors([record["label"]], [record["prediction"]])[0]
        letters = character_errors([record["label"]], [record["prediction"]])[0]
        return {
            **record, "word_errors": words.edits, "words": words.length, "character_errors": letters.edits,
            "characters": letters.length,
        }  # fmt: skip

    def remark(self, labels: Sequence[Label | None]) -> str | None:
        """Characters that cannot be learned."""
        known = set(self.alphabet.characters)
        unseen = sorted(set().union(*(self.name_label(label) for label in labels)) - known)
        if not unseen:
            return None
        return f"note: test transcripts hold {' '.join(unseen)}, which no training transcript does: always an error"

    def score(self, records: Sequence[Record]) -> dict[str, float]:
        """Word and character error rates over all clips."""
        words = total(Errors(r["word_errors"], r["words"]) for r in records)
        letters = total(Errors(r["character_errors"], r["characters"]) for r in records)
        return {"wer": words.rate, "cer": letters.rate}

    def _channels_hidden(self, tokens: Tensor) -> Tensor:
        """(B, N, D) with spans of channels at zero, the same in all frames of a clip."""
        batch, _, width = tokens.shape
        spans = round(self.channel_ratio * width / self.channel_length)
        if not self.training or not spans:
            return tokens
        starts = torch.rand(batch, width - self.channel_length + 1, device=tokens.device).argsort(1)[:, :spans]
        index = torch.arange(width, device=tokens.device)
        inside = (index >= starts[..., None]) & (index < starts[..., None] + self.channel_length)
        return tokens.masked_fill(inside.any(1)[:, None], 0.0)


def check_speech(backbone: Backbone) -> Speech:
    """Its modality.

    Raises:
        ConfigError: it is another.
    """
    modality = backbone.modality
    if not isinstance(modality, Speech):
        raise ConfigError(
            f"task=ctc writes down speech, and this backbone is of modality={type(modality).__name__.lower()}. "
            "Give one of modality=speech."
        )
    return modality
