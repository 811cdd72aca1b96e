"""llama.cpp's own ``/v1/embeddings``, of a model whose vectors mean nothing and are always the same."""

from __future__ import annotations

import math
from array import array

import pytest
from servers.llama import CONTEXT, LlamaServer

from llm_master import PROVIDER_CONFIGS, ProviderConfig, ProviderError, QueryLLM, ServerError

pytestmark = pytest.mark.servers

WIDTH = 64


@pytest.fixture
def llm(llama_embeddings: LlamaServer) -> QueryLLM:
    PROVIDER_CONFIGS["attic"] = ProviderConfig(base_url=llama_embeddings.base_url, requires_key=False, embed_batch_size=64, max_retries=0)
    return QueryLLM()


def alike(one: array[float], other: array[float]) -> float:
    """The cosine of their angle."""
    lengths = math.sqrt(sum(x * x for x in one)) * math.sqrt(sum(x * x for x in other))
    return sum(x * y for x, y in zip(one, other, strict=True)) / lengths


async def test_one_text_and_several(llm: QueryLLM) -> None:
    alone = await llm.embed("attic/tiny", "a cat")
    several = await llm.embed("attic/tiny", ["a dog", "a cat", "a cat"])
    assert (len(alone), len(alone[0]), len(several)) == (1, WIDTH, 3)
    assert alike(alone[0], several[1]) > 0.9999 and alike(several[1], several[2]) > 0.9999
    assert alike(several[0], several[1]) < 0.999
    assert several.usage.input_tokens is not None and alone.usage.input_tokens is not None
    assert several.usage.input_tokens > alone.usage.input_tokens > 0
    assert (several.cost, several.provider, several.receipt.attempts[0].model_served) == (None, "attic", "tiny")


async def test_both_encodings_give_the_same_vectors(llm: QueryLLM) -> None:
    texts = ["a cat", "ein Hund", "кошка", "犬", "🐈"]
    numbers = await llm.embed("attic/tiny", texts, encoding_format="float")
    encoded = await llm.embed("attic/tiny", texts, encoding_format="base64")
    by_default = await llm.embed("attic/tiny", texts)
    assert isinstance(numbers.raw["data"][0]["embedding"], list)
    assert isinstance(encoded.raw["data"][0]["embedding"], str) and isinstance(by_default.raw["data"][0]["embedding"], str)
    for vectors in zip(numbers, encoded, by_default, strict=True):
        assert alike(vectors[0], vectors[1]) > 0.99999 and alike(vectors[1], vectors[2]) > 0.99999
        assert vectors[0].tolist() == pytest.approx(vectors[1].tolist(), abs=1e-5)


async def test_three_hundred_texts_in_their_order(llm: QueryLLM) -> None:
    texts = [f"text number {number % 100} of a hundred" for number in range(300)]
    answer = await llm.embed("attic/tiny", texts)
    assert len(answer) == 300 and len(answer.receipt.attempts) == 5
    for number in range(100):
        assert alike(answer[number], answer[number + 100]) > 0.9999 < alike(answer[number], answer[number + 200])
    sample = await llm.embed("attic/tiny", [texts[7], texts[42], texts[99]])
    for vector, place in zip(sample, (7, 142, 299), strict=True):
        assert alike(vector, answer[place]) > 0.9999
    different = {tuple(round(number, 3) for number in vector) for vector in answer.embeddings[:100]}
    assert len(different) == 100


async def test_a_text_that_is_too_long_is_refused(llm: QueryLLM) -> None:
    with pytest.raises(ProviderError, match="attic: .*too large|attic: .*context") as caught:
        await llm.embed("attic/tiny", ["short", "x" * 3 * CONTEXT])
    assert caught.value.provider == "attic" and caught.value.receipt.attempts[0].status == caught.value.status


async def test_a_server_that_makes_no_embeddings_says_so(llama: LlamaServer) -> None:
    PROVIDER_CONFIGS["attic"] = ProviderConfig(base_url=llama.base_url, requires_key=False, max_retries=0)
    with pytest.raises(ServerError, match="attic: 501 This server does not support embeddings"):
        await QueryLLM().embed("attic/tiny", "a cat")
