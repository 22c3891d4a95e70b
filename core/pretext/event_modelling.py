"""Next-event and masked-field modelling over histories of events.

Sources: next-token prediction (Radford et al., 2018) over whole events; masked fields as in BERT
(Devlin et al., 2019) with a uniformly drawn number of visible fields (Uria et al., 2014). One head
serves both: it reads the history's state and the event's visible fields, none of them for the next-event
question.

Shape suffixes: b batch, l event, f field, d width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled.core.encoder import Backbone
from unlabeled.core.masking import check_field_prior, random_fields
from unlabeled.core.pretext.base import Loss, Pretext
from unlabeled.core.tokens import EventFields


class EventModelling(Pretext):
    """Cross-entropy of each field of each event, given the events before it and some of its other fields.

    ``total = mean over fields, real events of -log p(field | history) + -log p(hidden field | history,
    visible fields)``. The history's state comes from a causal encoder whose first token is a start token.

    Args:
        tokenizer: the backbone's event tokenizer (for field sizes).
        prior: positive weights (F,), domain knowledge about which fields are worth hiding: a field with more weight is
            hidden more often in the second half of the loss (:func:`~unlabeled.core.masking.random_fields`). The first
            half asks for every field alike. ``None`` for none; weights of 3 and 10 for what is not of the calendar were
            no better (benchmarks/results/fraud_tasks.md).
        hidden: width of the head's hidden layer; not measured.
        seed: with the step, fixes which fields are visible.

    Raises:
        ValueError: the prior is not one positive, finite weight a field.
    """

    prior: Tensor | None

    def __init__(
        self, tokenizer: EventFields, *, prior: Tensor | None = None, hidden: int = 128, seed: int = 0
    ) -> None:
        super().__init__()
        if prior is not None:
            check_field_prior(prior, len(tokenizer.sizes))
        self.register_buffer("prior", prior, persistent=False)
        self.seed = seed
        self.mix = nn.Sequential(nn.LayerNorm(tokenizer.dim), nn.Linear(tokenizer.dim, hidden), nn.GELU())
        self.heads = nn.ModuleList([nn.Linear(hidden, size) for size in tokenizer.sizes])
        self.hint = nn.Linear(tokenizer.dim, tokenizer.dim, bias=False)

    def logits(self, history: Tensor, seen: Tensor | None = None) -> list[Tensor]:
        """One tensor a field, (..., size), given states (..., D) and, if any, the sum of visible fields (..., D)."""
        x = self.mix(history if seen is None else history + self.hint(seen))
        return [head(x) for head in self.heads]

    def loss(self, backbone: Backbone, batch: Tensor, step: int) -> Loss:
        tokenizer = backbone.tokenizer
        assert isinstance(tokenizer, EventFields)
        assert backbone.encoder.causal
        history = backbone(batch)[:, :-1]
        real = batch[..., 0] != 0
        history, codes = history[real], batch[real]
        visible = random_fields(codes.shape, seed=self.seed, step=step, prior=self.prior).to(codes.device)
        seen = (tokenizer.fields(codes) * visible[..., None]).sum(dim=1)
        ahead = field_surprisal(self.logits(history), codes)
        masked = field_surprisal(self.logits(history, seen), codes)
        hidden = (~visible).to(masked.dtype)
        next_event = ahead.mean()
        masked_field = (masked * hidden).sum() / hidden.sum().clamp(min=1)
        return Loss(
            next_event + masked_field, {"next_event": next_event.detach(), "masked_field": masked_field.detach()}
        )

    @torch.no_grad()
    def surprisal(self, backbone: Backbone, history: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """How unexpected each field was, in nats: ``-log p(field | history)`` and ``-log p(field | history, other
        fields)``, both (N, F), for states (N, D) and codes (N, F)."""
        tokenizer = backbone.tokenizer
        assert isinstance(tokenizer, EventFields)
        ahead = field_surprisal(self.logits(history), codes)
        fields = tokenizer.fields(codes)
        whole = fields.sum(dim=1)
        rest = []
        for i, head in enumerate(self.heads):
            x = self.mix(history + self.hint(whole - fields[:, i]))
            rest.append(F.cross_entropy(head(x), codes[:, i], reduction="none"))
        return ahead, torch.stack(rest, dim=1)


def field_surprisal(logits: list[Tensor], codes: Tensor) -> Tensor:
    """``-log p`` of the codes that came, (N, F), in nats."""
    return torch.stack([F.cross_entropy(x, codes[:, i], reduction="none") for i, x in enumerate(logits)], dim=1)
