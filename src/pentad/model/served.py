"""ServedModels: what a service offers, by which names, and what is loaded of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pentad.errors import InvalidRequest, ModelNotFound
from pentad.execution.backend import Backend, Embedder, Reranker
from pentad.model.backends.pooled import slot_of
from pentad.model.cards import ModelCard
from pentad.model.embedding_recipe import recipe_of
from pentad.model.routing.automatic import AUTO
from pentad.resource.model_slot import ModelSlot

LATEST = ":latest"
"""What Ollama's clients add to a name without a tag."""


class ServedModels:
    """Backends, embedders and rerankers by the name that they are served under; models may come and go.

    Args:
        backends: of models that generate.
        embedders: of models that embed.
        rerankers: of models that score documents.
        default: the model of requests that name none, listed first; None takes the first backend.
        aliases: further name to the name of a model.
        created_s: Unix time, for the cards.

    Raises:
        ModelNotFound: the default is not there.
        InvalidRequest: an alias of no model, or one with a model's name.
    """

    def __init__(
        self,
        backends: Mapping[str, Backend],
        embedders: Mapping[str, Embedder],
        rerankers: Mapping[str, Reranker],
        *,
        default: str | None,
        aliases: Mapping[str, str],
        created_s: int,
    ) -> None:
        self.default = default if default is not None else next(iter(backends))
        if self.default not in backends:
            raise ModelNotFound(
                f"no model {self.default!r} to be the default", hint=f"known: {', '.join(backends)}"
            )
        order = [self.default, *(name for name in backends if name != self.default)]
        self.backends = {name: backends[name] for name in order}
        self.embedders = dict(embedders)
        self.rerankers = dict(rerankers)
        self.aliases = dict(aliases)
        self._created_s = created_s
        for alias, name in self.aliases.items():
            if alias in self or name not in self:
                trouble = (
                    "is a model's own name" if alias in self else f"stands for {name!r}, which is not served"
                )
                raise InvalidRequest(
                    f"the alias {alias!r} {trouble}",
                    hint=f"served are: {', '.join(self.names())}",
                    param="aliases",
                )

    def __contains__(self, name: object) -> bool:
        return name in self.backends or name in self.embedders or name in self.rerankers

    def names(self) -> list[str]:
        """Of all models, without aliases."""
        return [*self.backends, *self.embedders, *self.rerankers]

    def canonical(self, name: str) -> str:
        """The model's own name for one of its names; what nobody knows comes back as it is."""
        for known in (name, name.removesuffix(LATEST)):
            if known in self:
                return known
            if known in self.aliases:
                return self.aliases[known]
        return name

    def slot(self, name: str) -> ModelSlot[Any] | None:
        """The model's place in the pool; None for one that is always there, or elsewhere, or unknown."""
        name = self.canonical(name)
        return slot_of(self.backends.get(name) or self.embedders.get(name) or self.rerankers.get(name))

    def progress(self, name: str) -> str | None:
        """What a model does that requests wait for; None while none does."""
        slot = self.slot(name)
        return None if slot is None else slot.progress()

    def backend(self, name: str) -> Backend:
        """The model that generates under that name; an empty one is the default's. Raises ModelNotFound."""
        found = self.backends.get(self.canonical(name or self.default))
        if found is None:
            raise ModelNotFound(
                f"no model {name!r} here",
                hint=f"set `model` to one of: {', '.join(self.backends)}",
                param="model",
            )
        return found

    def embedder(self, name: str) -> Embedder:
        """The model that embeds under that name. Raises ModelNotFound."""
        found = self.embedders.get(self.canonical(name))
        if found is None:
            known = ", ".join(self.embedders) or "none is served"
            raise ModelNotFound(
                f"no embedding model {name!r} here", hint=f"set `model` to one of: {known}", param="model"
            )
        return found

    def reranker(self, name: str) -> Reranker:
        """The model that scores documents under that name. Raises ModelNotFound."""
        found = self.rerankers.get(self.canonical(name))
        if found is None:
            known = ", ".join(self.rerankers) or "none is served"
            raise ModelNotFound(
                f"no reranker {name!r} here", hint=f"set `model` to one of: {known}", param="model"
            )
        return found

    def add(self, name: str, model: Backend | Embedder | Reranker) -> None:
        """Offers one more model, or another one under a name."""
        if isinstance(model, Embedder):
            self.embedders[name] = model
        elif isinstance(model, Reranker):
            self.rerankers[name] = model
        else:
            self.backends[name] = model

    def alias(self, name: str, of: str) -> None:
        """Offers a model under one more name. Raises InvalidRequest for the name of another model."""
        if name in self:
            raise InvalidRequest(
                f"{name!r} is a model's own name", hint="choose another name", param="destination"
            )
        self.aliases[name] = self.canonical(of)

    def forget_alias(self, name: str) -> bool:
        """Takes a further name away; whether it was one."""
        found = [known for known in (name, name.removesuffix(LATEST)) if known in self.aliases]
        return bool(found) and self.aliases.pop(found[0]) is not None

    def remove(self, name: str) -> None:
        """Offers a model no more, nor its aliases. Raises InvalidRequest for the default."""
        if name == self.default:
            raise InvalidRequest(
                f"model {name!r} is the default of this server",
                hint="serve another one first, and remove this one then",
                param="model",
            )
        self.backends.pop(name, None)
        self.embedders.pop(name, None)
        self.rerankers.pop(name, None)
        self.aliases = {alias: of for alias, of in self.aliases.items() if of != name}

    def cards(self) -> list[ModelCard]:
        """A card per model: the default first, then the other generators, the embedders, the rerankers."""
        cards = [
            ModelCard(
                name=name,
                created_s=self._created_s,
                kind="generate",
                context_length=backend.capabilities.context_length,
                capabilities=backend.capabilities,
                state=_state(backend),
                aliases=self._aliases_of(name),
            )
            for name, backend in self.backends.items()
        ]
        cards += [
            ModelCard(
                name=name,
                created_s=self._created_s,
                kind="embed",
                dimensions=embedder.dimensions,
                prompts=tuple(recipe_of(embedder).prompts),
                state=_state(embedder),
                aliases=self._aliases_of(name),
            )
            for name, embedder in self.embedders.items()
        ]
        cards += [
            ModelCard(
                name=name,
                created_s=self._created_s,
                kind="rerank",
                state=_state(reranker),
                aliases=self._aliases_of(name),
            )
            for name, reranker in self.rerankers.items()
        ]
        return cards

    def choices(self) -> list[ModelCard]:
        """A card per name that stands for a choice; none where one model would always be chosen."""
        if len(self.backends) < 2:
            return []
        longest = max(backend.capabilities.context_length for backend in self.backends.values())
        return [
            ModelCard(name=name, created_s=self._created_s, kind="generate", context_length=longest)
            for name in AUTO
            if name not in self and name not in self.aliases
        ]

    def _aliases_of(self, name: str) -> tuple[str, ...]:
        return tuple(alias for alias, of in self.aliases.items() if of == name)


def _state(model: Backend | Embedder | Reranker) -> str:
    slot = slot_of(model)
    return "loaded" if slot is None else slot.state
