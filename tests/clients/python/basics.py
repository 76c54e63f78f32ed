"""Stories of models, chats, completions and errors."""

import os

import openai
from openai import OpenAI

from asking import MESSAGES, MODEL, client, expect_error, read_stream


def models_are_listed():
    models = {model.id: model for model in client.models.list()}
    assert MODEL in models, sorted(models)
    assert models[MODEL].object == "model"
    assert models[MODEL].owned_by


def a_model_is_retrieved():
    model = client.models.retrieve(MODEL)
    assert model.id == MODEL and model.object == "model", model


def chat_answers():
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=MESSAGES, max_tokens=16)
    assert raw.headers.get("x-request-id"), dict(raw.headers)
    answer = raw.parse()
    assert answer.object == "chat.completion" and answer.id and answer.created > 0
    [choice] = answer.choices
    assert choice.message.role == "assistant" and choice.message.content, choice
    assert choice.finish_reason in ("stop", "length"), choice.finish_reason
    assert answer.usage.prompt_tokens > 0 and 0 < answer.usage.completion_tokens <= 16, answer.usage
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def a_streamed_chat_is_the_same_chat():
    # With temperature 0 the model says the same each time, so the stream can be held against the whole answer.
    asked = {"model": MODEL, "messages": MESSAGES, "max_tokens": 24, "temperature": 0}
    whole = client.chat.completions.create(**asked)
    stream = client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    text, finish, usage = read_stream(stream)
    assert text == whole.choices[0].message.content, (text, whole.choices[0].message.content)
    assert finish == whole.choices[0].finish_reason, finish
    assert usage is not None and usage.prompt_tokens == whole.usage.prompt_tokens, usage
    assert usage.completion_tokens == whole.usage.completion_tokens, (usage, whole.usage)


def usage_comes_only_when_asked_for():
    text, finish, usage = read_stream(
        client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=4, stream=True)
    )
    assert text and finish in ("stop", "length") and usage is None, (text, finish, usage)


def a_cancelled_stream_leaves_the_gateway_well():
    stream = client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=200, stream=True)
    for count, _ in enumerate(stream, start=1):
        if count == 3:
            break
    assert count == 3, f"the stream ended after {count} chunks"
    stream.close()
    chat_answers()


def completions_answer():
    answer = client.completions.create(model=MODEL, prompt="To be, or", max_tokens=8)
    assert answer.object == "text_completion" and answer.choices[0].text, answer
    assert 0 < answer.usage.completion_tokens <= 8, answer.usage


def a_streamed_completion_is_the_same_completion():
    asked = {"model": MODEL, "prompt": "To be, or", "max_tokens": 12, "temperature": 0}
    whole = client.completions.create(**asked)
    chunks = list(client.completions.create(**asked, stream=True))
    assert len(chunks) > 1, "a stream of one chunk streams nothing"
    text = "".join(choice.text for chunk in chunks for choice in chunk.choices)
    assert text == whole.choices[0].text, (text, whole.choices[0].text)


def a_bad_key_is_refused():
    stranger = OpenAI(api_key="sk-rialto-of-nobody", max_retries=0)
    expect_error(openai.AuthenticationError, 401, stranger.models.list)


def an_unknown_model_is_not_found():
    def ask():
        client.chat.completions.create(model="rialto/nothing:v0", messages=MESSAGES)

    error = expect_error(openai.NotFoundError, 404, ask)
    assert error.code == "model_not_found", error.body
    expect_error(openai.NotFoundError, 404, lambda: client.models.retrieve("rialto/nothing:v0"))


def a_bad_parameter_is_named():
    def ask(**more):
        return lambda: client.chat.completions.create(**{"model": MODEL, "messages": MESSAGES, **more})

    for param, call in {
        "temperature": ask(temperature=9),
        "max_tokens": ask(max_tokens=0),
        "messages": ask(messages=[]),
    }.items():
        error = expect_error(openai.BadRequestError, 400, call)
        assert error.param == param, (param, error.body)


def a_repeated_key_is_answered_once():
    # The client retries POSTs: what carries the same key is the same request, and is charged once.
    asked = {"model": MODEL, "messages": MESSAGES, "max_tokens": 12, "temperature": 1.0}
    headers = {"Idempotency-Key": f"story-{os.getpid()}-{os.urandom(8).hex()}"}
    first = client.chat.completions.create(**asked, extra_headers=headers)
    second = client.chat.completions.create(**asked, extra_headers=headers)
    assert first.id == second.id, (first.id, second.id)
    assert first.choices[0].message.content == second.choices[0].message.content


STORIES = [
    models_are_listed,
    a_model_is_retrieved,
    chat_answers,
    a_streamed_chat_is_the_same_chat,
    usage_comes_only_when_asked_for,
    a_cancelled_stream_leaves_the_gateway_well,
    completions_answer,
    a_streamed_completion_is_the_same_completion,
    a_bad_key_is_refused,
    an_unknown_model_is_not_found,
    a_bad_parameter_is_named,
    a_repeated_key_is_answered_once,
]
