"""Images by OpenAI's images API, and by the APIs that took its shape.

``content`` is the first image's address, or empty where the API sends only bytes; ``images`` holds them all.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from llm_master.errors import InvalidRequestError, ServerError
from llm_master.media import Image, from_data_uri
from llm_master.providers.base import BaseLLMProvider, extract_prompt
from llm_master.providers.sdk import call
from llm_master.types import LLMResponse, Message, Usage, WireAnswer

RECRAFT_DEFAULT = "recraft-image-gen"
"""A name that names no version of the model: the API's own default is used."""

RECRAFT_STYLED = "recraftv3"
"""The newest of Recraft's models that knows ``RECRAFT_V3_ONLY``: https://www.recraft.ai/docs/api-reference/styles"""

RECRAFT_V3_ONLY = frozenset({"style", "substyle", "text_layout", "negative_prompt"})

RECRAFT_UNIT = Decimal("0.001")
"""US dollars of one API unit: https://www.recraft.ai/docs/api-reference/pricing"""


async def openai_image(provider: BaseLLMProvider, messages: Sequence[Message], model: str, **options: Any) -> LLMResponse:
    """Make images of the last user message; where it holds images, edit those.

    Sources: https://platform.openai.com/docs/api-reference/images/create, .../images/createEdit

    Args:
        provider: Its ``client`` has ``images.generate`` and ``images.edit``.
        messages: The conversation. Images are content parts with data URIs.
        model: The wire id.
        **options: As the API has them: ``n``, ``size``, ``quality``, ``background``, ``output_format``, ... (``moderation`` by
            ``extra_body=``, since ``query`` has one of its own); for an edit also ``mask``, a PNG as a data URI, bytes or an
            ``Image``, transparent where the first image may change.

    Returns:
        The images' bytes, or their addresses where the API gives those. ``usage`` counts tokens where the model is billed
        by them, and the images.

    Raises:
        InvalidRequestError: No text, or an image that is only known by its address.
        ServerError: An answer without an image.
    """
    arguments = {"model": model, "prompt": prompt_of(messages), **options}
    given = [uploaded(image, f"image-{number}") for number, image in enumerate(images_of(messages), 1)]
    if given:
        if "mask" in arguments:
            arguments["mask"] = uploaded(arguments["mask"], "mask")
        answer = await call(provider.client, "images.edit", image=given, **arguments)
    elif "mask" in arguments:
        raise InvalidRequestError("a mask is given and no image: put the image to change into the message")
    else:
        answer = await call(provider.client, "images.generate", **arguments)
    response = response_of(answer, model, output_format=options.get("output_format"))
    tokens = getattr(answer, "usage", None)
    if tokens is not None:
        response.usage.input_tokens = getattr(tokens, "input_tokens", None)
        response.usage.output_tokens = getattr(tokens, "output_tokens", None)
        response.usage.image_input_tokens = getattr(getattr(tokens, "input_tokens_details", None), "image_tokens", None)
    # The author of an SVG is another model, whose tokens are counted apart.
    response.usage.others_worked = getattr(answer, "svg_usage", None) is not None
    return response


async def recraft_image(provider: BaseLLMProvider, messages: Sequence[Message], model: str, **options: Any) -> LLMResponse:
    """Make images of the last user message with Recraft.

    Source: https://www.recraft.ai/docs/api-reference/usage

    Args:
        provider: Its ``client`` has ``images.generate``.
        messages: The conversation.
        model: ``recraftv3``, ``recraftv4_1``, ...; ``recraft-image-gen`` is the API's default, or, with an option that only
            older models know, as ``style``, the newest of those.
        **options: ``style``, ``substyle``, ``style_id``, ``controls``, ``n``, ``size`` (``1024x1024`` or ``16:9``),
            ``response_format`` (``url``, which holds for about a day, or ``b64_json``), ...

    Returns:
        The images. ``usage.cost`` is what the API says that it charged.

    Raises:
        InvalidRequestError: No text, or an image in the message, which this part of the API does not take.
        ServerError: An answer without an image.
    """
    if images_of(messages):
        raise InvalidRequestError("Recraft makes images from text here: leave the images out of the message")
    arguments = {"prompt": prompt_of(messages), **options}
    if model != RECRAFT_DEFAULT:
        arguments["model"] = model
    elif not RECRAFT_V3_ONLY.isdisjoint(options):
        arguments["model"] = RECRAFT_STYLED
    answer = await call(provider.client, "images.generate", **arguments)
    response = response_of(answer, arguments.get("model", model))
    credits = getattr(answer, "credits", None)
    if isinstance(credits, (int, float)):
        response.usage.cost = Decimal(str(credits)) * RECRAFT_UNIT
    return response


def prompt_of(messages: Sequence[Message]) -> str:
    """The text of the last user message, which must have one."""
    prompt = extract_prompt(messages)
    if not prompt.strip():
        raise InvalidRequestError("the last user message has no text: say what the image should show")
    return prompt


def images_of(messages: Sequence[Message]) -> list[Image]:
    """The images in the last user message."""
    last = next((message for message in reversed(messages) if message.get("role") == "user"), {})
    content = last.get("content")
    found = []
    for part in content if isinstance(content, list) else ():
        if isinstance(part, Mapping) and part.get("type") == "image_url":
            link = part["image_url"]
            found.append(Image.from_url(link["url"] if isinstance(link, Mapping) else link))
    return found


def uploaded(image: Any, name: str) -> tuple[str, bytes, str]:
    """An image as the SDK uploads it: file name, bytes, media type."""
    if isinstance(image, tuple):
        return image  # the SDK's own form
    if isinstance(image, str):
        image = Image.from_url(image)
    elif isinstance(image, bytes):
        image = Image(image)
    if not isinstance(image, Image) or image.data is None:
        raise InvalidRequestError(f"{name} is only known by its address, and this API wants the file: give its bytes, or a data URI")
    media_type = image.media_type or image_type(image.data)
    return f"{name}.{media_type.rpartition('/')[2]}", image.data, media_type


def response_of(answer: Any, model: str, *, output_format: Any = None) -> LLMResponse:
    """The answer of ``images.generate`` or ``images.edit``."""
    output_format = getattr(answer, "output_format", None) or output_format
    images = [image_of(item, output_format) for item in getattr(answer, "data", None) or ()]
    if not images:
        raise ServerError("answered without an image", model=model)
    wire = WireAnswer(200, getattr(answer, "_request_id", None))
    return LLMResponse(images[0].url or "", model, Usage(images=len(images)), images=images, finish_reason="stop", wire=wire)


def image_of(item: Any, output_format: Any) -> Image:
    """One image of ``data``."""
    image = Image(url=item.url or None, revised_prompt=getattr(item, "revised_prompt", None))
    if image.url is not None and (inside := from_data_uri(image.url)) is not None:
        image.url, (image.media_type, image.data) = None, inside
    if item.b64_json:
        try:
            image.data = base64.b64decode(item.b64_json)
        except ValueError as exc:
            raise ServerError(f"answered with an image that is no base64: {exc}") from exc
        image.media_type = MEDIA_TYPES.get(str(output_format)) or image_type(image.data)
    if image.data is None and image.url is None:
        raise ServerError("answered with an image that has neither bytes nor an address")
    return image


MEDIA_TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp", "gif": "image/gif", "svg": "image/svg+xml"}
"""By ``output_format``."""


def image_type(data: bytes) -> str:
    """The media type by a file's first bytes."""
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith(b"GIF8"):
        return "image/gif"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data.lstrip()[:5] in (b"<svg ", b"<?xml"):
        return "image/svg+xml"
    return "image/png"
