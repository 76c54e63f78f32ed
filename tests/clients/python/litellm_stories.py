"""Stories of LiteLLM as a client of a running gateway: `model="openai/…"` and `api_base`, as its documentation has it for
whatever speaks OpenAI's protocol. Reads what `asking.py` reads."""

import asyncio
import json
import os
import sys

# Otherwise it fetches a list of prices from the Internet at its start.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

import litellm

from asking import EMBEDDING_MODEL, MESSAGES, MODEL
from telling import tell

# It prints where to get help, and lists of providers, around every error and every stream.
litellm.suppress_debug_info = True
HERE = {"api_base": os.environ["OPENAI_BASE_URL"], "api_key": os.environ["OPENAI_API_KEY"]}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"place": {"enum": ["Verona", "Venice"]}},
            "required": ["place"],
            "additionalProperties": False,
        },
    },
}


def asked(**more):
    return {"model": f"openai/{MODEL}", "messages": MESSAGES, "max_tokens": 24, "temperature": 0, **HERE, **more}


def check_usage(usage):
    assert usage.prompt_tokens > 0 and 0 < usage.completion_tokens <= 24, usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, usage


def a_chat_is_completed():
    answer = litellm.completion(**asked())
    [choice] = answer.choices
    assert choice.message.role == "assistant" and choice.message.content, choice
    assert choice.finish_reason in ("stop", "length"), choice
    assert MODEL in answer.model, answer.model
    check_usage(answer.usage)


def a_stream_is_the_same_chat():
    whole = litellm.completion(**asked())
    chunks = list(litellm.completion(**asked(stream=True, stream_options={"include_usage": True})))
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == whole.choices[0].message.content, (text, whole)
    built = litellm.stream_chunk_builder(chunks, messages=MESSAGES)
    assert built.usage.completion_tokens == whole.usage.completion_tokens, (built.usage, whole.usage)
    assert built.choices[0].finish_reason == whole.choices[0].finish_reason, built


def it_works_asynchronously():
    async def both():
        stream = await litellm.acompletion(**asked(stream=True))
        return await litellm.acompletion(**asked()), [chunk async for chunk in stream]

    whole, chunks = asyncio.run(both())
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == whole.choices[0].message.content, (text, whole)


def a_tool_is_called():
    calling = asked(max_tokens=100, tools=[WEATHER], tool_choice="required")
    [choice] = litellm.completion(**calling).choices
    assert choice.finish_reason == "tool_calls", choice
    [call] = choice.message.tool_calls
    assert call.function.name == "weather" and call.id, call
    assert json.loads(call.function.arguments)["place"] in ("Verona", "Venice"), call
    streamed = litellm.stream_chunk_builder(list(litellm.completion(**calling, stream=True)), messages=MESSAGES)
    [again] = streamed.choices[0].message.tool_calls
    assert again.function.arguments == call.function.arguments, (again, call)


def an_answer_is_of_its_schema():
    schema = WEATHER["function"]["parameters"]
    format = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
    answer = litellm.completion(**asked(max_tokens=100, response_format=format))
    assert json.loads(answer.choices[0].message.content)["place"] in ("Verona", "Venice"), answer


def a_text_is_completed():
    answer = litellm.text_completion(model=f"text-completion-openai/{MODEL}", prompt="To be, or", max_tokens=8, **HERE)
    assert answer.choices[0].text and 0 < answer.usage.completion_tokens <= 8, answer


def texts_have_vectors():
    answer = litellm.embedding(model=f"openai/{EMBEDDING_MODEL}", input=["sweet sorrow", "winter"], **HERE)
    assert [one["index"] for one in answer.data] == [0, 1], answer
    assert len(answer.data[0]["embedding"]) == len(answer.data[1]["embedding"]) > 0, answer
    assert answer.usage.prompt_tokens > 0, answer.usage


def errors_have_their_own_classes():
    for kind, status, more in [
        (litellm.NotFoundError, 404, {"model": "openai/rialto/nothing:v0"}),
        (litellm.AuthenticationError, 401, {"api_key": "sk-rialto-of-nobody"}),
        (litellm.BadRequestError, 400, {"temperature": 9}),
        (litellm.ContextWindowExceededError, 400, {"messages": [{"role": "user", "content": "words " * 2_000}]}),
    ]:
        for stream in False, True:
            try:
                litellm.completion(**asked(stream=stream, **more) if "model" not in more else asked(stream=stream) | more)
            except litellm.exceptions.APIError as error:
                raise AssertionError(f"{error} where {kind.__name__} was expected") from error
            except kind as error:
                assert error.status_code == status, (kind, error.status_code)
            else:
                raise AssertionError(f"no error where {kind.__name__} was expected")


def the_models_are_known_to_its_router():
    router = litellm.Router([{"model_name": "bard", "litellm_params": {"model": f"openai/{MODEL}", **HERE}}])
    answer = router.completion("bard", MESSAGES, max_tokens=8)
    assert answer.choices[0].message.content, answer


STORIES = [
    a_chat_is_completed,
    a_stream_is_the_same_chat,
    it_works_asynchronously,
    a_tool_is_called,
    an_answer_is_of_its_schema,
    a_text_is_completed,
    texts_have_vectors,
    errors_have_their_own_classes,
    the_models_are_known_to_its_router,
]

if __name__ == "__main__":
    sys.exit(tell("litellm", STORIES))
