"""Whom the stories ask, and how they look at what comes back."""

import os

import openai
from openai import OpenAI

MODEL = os.environ.get("RIALTO_CHAT_MODEL", "rialto/shakespeare:q8_0")
EMBEDDING_MODEL = os.environ.get("RIALTO_EMBEDDING_MODEL", "rialto/shakespeare-words:f32")
MESSAGES = [{"role": "user", "content": "To be, or not to be"}]

# Seconds that anything is waited for that must happen: only a hang takes so long, also on a busy machine.
PATIENCE = 180

# Retries are off, so that what the gateway answers is what the story sees.
client = OpenAI(max_retries=0, timeout=PATIENCE)


def expect_error(kind, status, call):
    """The call must fail with this class and status, and carry an OpenAI error body."""
    try:
        call()
    except openai.APIStatusError as error:
        assert type(error) is kind, f"{type(error).__name__}, not {kind.__name__}: {error}"
        assert error.status_code == status, error.status_code
        assert isinstance(error.body, dict) and error.body.get("message"), error.body
        assert error.body.get("type"), error.body
        assert "code" in error.body and "param" in error.body, error.body
        return error
    raise AssertionError(f"no error where {kind.__name__} was expected")


def read_stream(stream):
    """The whole text, the last finish reason and the usage of a chat stream."""
    text, finish, usage = "", None, None
    for chunk in stream:
        assert chunk.object == "chat.completion.chunk", chunk
        if chunk.usage is not None:
            assert usage is None, "usage came twice"
            assert chunk.choices == [], "usage comes in a chunk of its own"
            usage = chunk.usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
    return text, finish, usage
