"""langchain-tests' standard classes, unchanged, with langchain-openai over the server at PENTAD_URL."""

import os
from typing import Any

import pytest
from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from langchain_tests.integration_tests import ChatModelIntegrationTests, EmbeddingsIntegrationTests

SERVER = {"base_url": f"{os.environ['PENTAD_URL']}/v1", "api_key": "unused", "max_retries": 0}


class TestChat(ChatModelIntegrationTests):
    """The chat completions of the server."""

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {**SERVER, "model": "scripted", "stream_usage": True}

    @property
    def has_tool_choice(self) -> bool:
        return True

    @property
    def supports_json_mode(self) -> bool:
        return True


class TestResponses(TestChat):
    """The same over /v1/responses."""

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {**SERVER, "model": "scripted", "use_responses_api": True}


class TestEmbeddings(EmbeddingsIntegrationTests):
    """The server's vectors."""

    @property
    def embeddings_class(self) -> type[Embeddings]:
        return OpenAIEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {**SERVER, "model": "vectors", "check_embedding_ctx_length": False}


pytestmark = pytest.mark.filterwarnings("default")
