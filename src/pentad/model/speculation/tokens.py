"""Whether two models mean the same by a token's number."""

from __future__ import annotations

from pentad.errors import Incompatible
from pentad.model.loading import ModelFiles


def check_tokenizer(target: ModelFiles, draft: ModelFiles) -> None:
    """Raises Incompatible unless every token that both models have is the same text in both.

    Vocabularies may be padded to different sizes. Cost: one comparison per token.
    """
    ours, theirs = target.tokenizer, draft.tokenizer
    for id in range(min(ours.vocab_size, theirs.vocab_size)):
        if ours.token_bytes(id) != theirs.token_bytes(id) or ours.token(id) != theirs.token(id):
            raise Incompatible(
                f"draft model {draft.name!r} has another tokenizer than {target.name!r}: "
                f"token {id} is {theirs.token(id)!r} there and {ours.token(id)!r} here",
                hint="choose a draft model of the same family, or --speculation ngram, which needs none",
                param="draft_models",
            )
