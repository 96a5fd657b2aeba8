"""A request as the one text that servers of plain text take."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

from pentad.errors import Incompatible, InvalidRequest
from pentad.model.template.chat import CHATML, ChatTemplate
from pentad.types import Request

if TYPE_CHECKING:
    from pentad.model.backends.endpoint import Endpoint

_CONTROL = re.compile(r"<\|[^|<>\s]{1,40}\|>|\[/?INST\]|</?s>|<(?:start|end)_of_turn>")
"""Control tokens as chat templates write them."""


def prompt_of(request: Request, endpoint: Endpoint) -> str:
    """The text that the model is to go on with.

    Raises:
        Incompatible: a conversation, and no template is known for it; token ids; pictures.
        InvalidRequest: a message holds a control token, which would act as one there.
    """
    if request.token_ids is not None or request.media:
        what = "token ids" if request.token_ids is not None else "parts beside text"
        raise Incompatible(
            f"engine {endpoint.engine.name!r} takes no {what}", hint="send text or messages", param="prompt"
        )
    if request.text is not None:
        return request.text
    if endpoint.chat_template is None:
        raise Incompatible(
            f"model {endpoint.model!r} is sent plain text, and nobody said how it writes conversations",
            hint="set its `chat_template` in `backends` to chatml or a Jinja file, or send `prompt`",
            param="messages",
        )
    messages = [{"role": m.role, "content": m.content} for m in request.messages or ()]
    template = _template(endpoint.chat_template)
    segments = template.render(messages, options=request.template_options, continues=request.continues)
    for segment in segments:
        if not segment.is_control:
            raise InvalidRequest(
                f"a message holds {segment.text!r}, which would act as a control token of the model",
                hint="take it out, or write it otherwise",
                param="messages",
            )
    return "".join(segment.text for segment in segments)


@functools.cache
def _template(source: str) -> ChatTemplate:
    source = CHATML if source == "chatml" else source
    return ChatTemplate(source, special=tuple(set(_CONTROL.findall(source))))
