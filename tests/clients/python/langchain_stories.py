"""Stories of LangChain (`langchain-openai`) against a running gateway: its classes as its documentation uses them, told
only where the gateway is. Reads what `asking.py` reads."""

import asyncio
import sys
from typing import Literal

import openai
from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from pydantic import BaseModel, Field

from asking import EMBEDDING_MODEL, MODEL
from telling import tell

SAID = [SystemMessage("You are Hamlet."), HumanMessage("To be, or not to be")]


def chat(**more):
    return ChatOpenAI(**{"model": MODEL, "max_tokens": 24, "temperature": 0, **more})


@tool
def weather(place: Literal["Verona", "Venice"]) -> str:
    """Tells the weather."""
    return f"It rains in {place}."


class Line(BaseModel):
    """A line of a play."""

    speaker: Literal["ROMEO", "JULIET"]
    act: int = Field(ge=1, le=5)


def check_usage(usage):
    assert usage["input_tokens"] > 0 and 0 < usage["output_tokens"] <= 24, usage
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"], usage


def a_chat_is_invoked():
    answer = chat().invoke(SAID)
    assert isinstance(answer, AIMessage) and answer.content, answer
    assert answer.response_metadata["finish_reason"] in ("stop", "length"), answer.response_metadata
    assert answer.response_metadata["model_name"] == MODEL, answer.response_metadata
    check_usage(answer.usage_metadata)


def a_stream_is_the_same_chat():
    whole = chat().invoke(SAID)
    pieces = list(chat(stream_usage=True).stream(SAID))
    assert len(pieces) > 2, "a stream of one piece streams nothing"
    assert "".join(piece.content for piece in pieces) == whole.content, pieces
    [usage] = [piece.usage_metadata for piece in pieces if piece.usage_metadata]
    assert usage["output_tokens"] == whole.usage_metadata["output_tokens"], (usage, whole.usage_metadata)


def it_works_asynchronously_and_in_batches():
    async def both():
        return await asyncio.gather(chat().ainvoke(SAID), chat().abatch([SAID, SAID]))

    one, batch = asyncio.run(both())
    assert [answer.content for answer in batch] == [one.content] * 2, (one, batch)


def a_chain_of_a_prompt_and_a_model():
    chain = ChatPromptTemplate.from_messages([("system", "You are {who}."), ("human", "{said}")]) | chat()
    assert chain.invoke({"who": "Hamlet", "said": "To be, or not to be"}).content == chat().invoke(SAID).content


def a_bound_tool_is_called_and_its_result_read():
    bound = chat(max_tokens=100).bind_tools([weather], tool_choice="weather", strict=True)
    asked = [HumanMessage("What weather has Verona?")]
    answer = bound.invoke(asked)
    [call] = answer.tool_calls
    assert call["name"] == "weather" and call["args"]["place"] in ("Verona", "Venice") and call["id"], call
    result = weather.invoke(call)
    assert isinstance(result, ToolMessage) and call["args"]["place"] in result.content, result
    # The conversation goes on with what the tool said; nothing more is called.
    talked = chat(max_tokens=16).invoke([*asked, answer, result])
    assert talked.content and not talked.tool_calls, talked


def a_streamed_call_adds_up():
    bound = chat(max_tokens=100).bind_tools([weather], tool_choice="required", strict=True)
    whole = None
    for piece in bound.stream([HumanMessage("What weather has Verona?")]):
        whole = piece if whole is None else whole + piece
    [call] = whole.tool_calls
    assert call["name"] == "weather" and call["args"]["place"] in ("Verona", "Venice"), whole


def an_answer_has_the_structure_asked_for():
    for method in "json_schema", "function_calling":
        line = chat(max_tokens=100).with_structured_output(Line, method=method, strict=True).invoke(SAID)
        assert isinstance(line, Line), (method, line)


def a_text_is_completed():
    text = OpenAI(model=MODEL, max_tokens=8, temperature=0).invoke("To be, or")
    assert isinstance(text, str) and text, text


def texts_have_vectors():
    # As LangChain asks of whoever is not OpenAI: texts are sent as they are, not as OpenAI's tokens.
    embedder = OpenAIEmbeddings(model=EMBEDDING_MODEL, check_embedding_ctx_length=False)
    two = embedder.embed_documents(["sweet sorrow", "the winter of our discontent"])
    assert len(two) == 2 and len(two[0]) == len(two[1]) > 0, [len(one) for one in two]
    one = embedder.embed_query("sweet sorrow")
    assert max(abs(a - b) for a, b in zip(one, two[0], strict=True)) < 1e-4, "the same text has another vector"


def errors_have_their_own_classes():
    for kind, code, ask in [
        (openai.NotFoundError, "model_not_found", lambda: chat(model="rialto/nothing:v0").invoke(SAID)),
        (openai.AuthenticationError, "invalid_api_key", lambda: chat(api_key="sk-rialto-of-nobody").invoke(SAID)),
        (openai.BadRequestError, "invalid_value", lambda: chat(temperature=9).invoke(SAID)),
        (ContextOverflowError, "context_length_exceeded", lambda: chat().invoke("words " * 2_000)),
    ]:
        try:
            ask()
        except openai.APIStatusError as error:
            assert isinstance(error, kind) and error.body["code"] == code, (kind, error, error.body)
        else:
            raise AssertionError(f"no error where {kind.__name__} was expected")


STORIES = [
    a_chat_is_invoked,
    a_stream_is_the_same_chat,
    it_works_asynchronously_and_in_batches,
    a_chain_of_a_prompt_and_a_model,
    a_bound_tool_is_called_and_its_result_read,
    a_streamed_call_adds_up,
    an_answer_has_the_structure_asked_for,
    a_text_is_completed,
    texts_have_vectors,
    errors_have_their_own_classes,
]

if __name__ == "__main__":
    sys.exit(tell("langchain", STORIES))
