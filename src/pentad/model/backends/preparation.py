"""From a request to tokens, off the event loop: grammars on threads that tenants share."""

from __future__ import annotations

import asyncio

from pentad.model.backends.codec import ChatCodec
from pentad.model.backends.prepared import Prepared, offered
from pentad.model.backends.sizes import prompt_chars
from pentad.model.tenant_workers import compilers
from pentad.model.workers import in_thread
from pentad.types import Request


async def prepare(codec: ChatCodec, request: Request) -> Prepared:
    """`codec.prepare`, without holding up the event loop or other tenants.

    A long prompt takes a while to tokenize, a hostile template to be stopped, a hostile grammar to be
    refused.

    Raises what `codec.prepare` raises, and Overloaded where the tenant has too many grammars waiting.
    """
    codec.refuse_by_size(request)
    grammar = None
    if request.format.kind != "text" or offered(request):
        grammar = await asyncio.wrap_future(compilers().submit(request.tenant, codec.grammar, request))
    chars = prompt_chars(request) + len(request.prediction)
    return await in_thread(codec.prepare, request, grammar, chars=chars)
