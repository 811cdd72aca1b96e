"""Models that a row serves over the OpenAI Responses API, under the row's own address and key.

A row has one ``provider_class``, and with it one wire format. A model that speaks another under the same row is named in
``generate_map``, with that format's provider class as the value; ``{model}`` in the key stands for the wire id::

    ProviderConfig(
        base_url="https://api.acme.ai/v1",
        generate_map={"responses/{model}": "llm_master.generators.responses:responses"},
    )

``acme/responses/acme-large`` is then ``POST /v1/responses`` with the model ``acme-large``, while ``acme/acme-large`` stays
a chat completion. Whole answers, streams, plans and counts of tokens all go the class's way.
"""

from __future__ import annotations

from typing import ClassVar

from llm_master.providers.responses import ResponsesProvider

responses = ResponsesProvider


class OpenResponsesProvider(ResponsesProvider):
    """Of servers of open models, which show their reasoning itself and take it back so: some refuse to be asked to encrypt it."""

    encrypts: ClassVar[bool] = False


open_responses = OpenResponsesProvider
