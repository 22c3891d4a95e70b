"""Masked token modelling: hide fields of some events, or whole events, and say what stood there.

Sources: Devlin et al., "BERT", NAACL 2019, with the fields of an event as the tokens' parts; Dong et al., "Unified
Language Model Pre-training for Natural Language Understanding and Generation" (UniLM), NeurIPS 2019, for one
transformer that is read from left to right by one task and from both sides by another.

Shape suffixes: b batch, l event, f field, d width.
"""

import torch
from torch import Tensor, nn

from unlabeled.core.encoder import Backbone
from unlabeled.core.masking import check_field_prior
from unlabeled.core.pretext.base import Loss, Pretext
from unlabeled.core.pretext.event_modelling import field_surprisal
from unlabeled.core.seeds import generator
from unlabeled.core.tokens import EventFields

# Of a field at most so many are hidden: where nothing is left, there is nothing to tell it from.
MOST = 0.9


class MaskedTokens(Pretext):
    """Cross-entropy of hidden fields given the whole rest of the history, ``mean over hidden of -log p(field | rest)``.

    The encoder reads what came before and after, also one that is causal for everything else: the same weights, without
    the causal mask (UniLM). A hidden field's embedding is replaced by one learned vector a field.

    Args:
        tokenizer: the backbone's event tokenizer.
        ratio: share of the fields that is hidden, at most :data:`MOST`. Beside event modelling of payments 0.15 to 0.5
            were alike (benchmarks/results/fraud_tasks.md).
        run: hide whole events that follow one another (about ``ratio`` of the history) instead of scattered fields:
            inpainting of a history.
        prior: positive weights (F,): a field with twice the weight is hidden twice as often (where that is possible).
            Not with ``run``, which hides every field of an event.
        hidden: width of the head's hidden layer; not measured.
        seed: with the step, fixes what is hidden.

    Raises:
        ValueError: the ratio is not above 0 and at most :data:`MOST`, the prior is not one positive, finite weight a
            field, or there is a prior for a run of whole events.
    """

    def __init__(
        self,
        tokenizer: EventFields,
        *,
        ratio: float = 0.25,
        run: bool = False,
        prior: Tensor | None = None,
        hidden: int = 128,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 < ratio <= MOST:
            raise ValueError(f"the mask ratio must be above 0 and at most {MOST}, got {ratio}")
        if prior is not None:
            check_field_prior(prior, len(tokenizer.sizes))
            if run:
                raise ValueError("a run hides whole events, every field of them: a prior of fields has no say in it")
        self.ratio, self.run, self.seed = ratio, run, seed
        weights = torch.ones(len(tokenizer.sizes)) if prior is None else prior
        self.register_buffer("chance", (ratio * weights / weights.mean()).clamp(max=MOST), persistent=False)
        self.blank = nn.Parameter(torch.zeros(len(tokenizer.sizes), tokenizer.dim))
        nn.init.normal_(self.blank, std=0.02)
        self.mix = nn.Sequential(nn.LayerNorm(tokenizer.dim), nn.Linear(tokenizer.dim, hidden), nn.GELU())
        self.heads = nn.ModuleList([nn.Linear(hidden, size) for size in tokenizer.sizes])

    def hide(self, codes_blf: Tensor, step: int) -> Tensor:
        """True where a field is hidden, (B, L, F); never in padding, at least one field of every history."""
        draw = generator(self.seed, "hide", step)
        b, length, f = codes_blf.shape
        real = (codes_blf[..., 0] != 0).cpu()
        count = real.sum(dim=1)
        if self.run:
            # Of more than one event one is left to tell the others from.
            size = torch.minimum((count * self.ratio).round().long(), count - 1).clamp(min=1)
            start = (torch.rand(b, generator=draw) * (count - size + 1).clamp(min=1)).long()
            place = torch.arange(length)
            event = (place >= start[:, None]) & (place < (start + size)[:, None])
            hidden = event[..., None].expand(b, length, f) & real[..., None]
        else:
            hidden = (torch.rand(b, length, f, generator=draw) < self.get_buffer("chance").cpu()) & real[..., None]
            first = (torch.rand(b, generator=draw) * count.clamp(min=1)).long()
            field = torch.randint(0, f, (b,), generator=draw)
            none = ~hidden.flatten(1).any(dim=1) & (count > 0)
            hidden[none.nonzero()[:, 0], first[none], field[none]] = True
        return hidden.to(codes_blf.device)

    def logits(self, backbone: Backbone, codes_blf: Tensor, hidden_blf: Tensor) -> list[Tensor]:
        """One tensor a field, (B, L, size), read from the history in which the hidden fields are blank."""
        tokenizer = backbone.tokenizer
        assert isinstance(tokenizer, EventFields)
        fields = torch.where(hidden_blf[..., None], self.blank, tokenizer.fields(codes_blf))
        x = self.mix(backbone.encoder(tokenizer.assembled(fields, codes_blf), both_sides=True)[:, 1:])
        return [head(x) for head in self.heads]

    def loss(self, backbone: Backbone, batch: Tensor, step: int) -> Loss:
        hidden = self.hide(batch, step)
        real = batch[..., 0] != 0
        logits = [x[real] for x in self.logits(backbone, batch, hidden)]
        asked = hidden[real].to(logits[0].dtype)
        surprisal = field_surprisal(logits, batch[real])
        total = (surprisal * asked).sum() / asked.sum().clamp(min=1)
        return Loss(total, {"masked_token": total.detach()})
