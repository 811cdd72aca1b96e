"""Texts to embed. In a file of its own, which imports nothing: a client's process imports it."""

from __future__ import annotations

COUNT = 10_000
BATCH = 2048
"""Inputs in one request: https://platform.openai.com/docs/api-reference/embeddings/create"""

INPUTS = [f"Text {number}: a rate limit keeps one client from taking what belongs to all." for number in range(COUNT)]
