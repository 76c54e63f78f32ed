"""Stories of tools: what is offered, called, streamed, and answered.

The model that a fresh market sells has never seen a tool. So what must be a call is one that fits the schema and says
nothing sensible, and what may be a call is text as a rule.
"""

from typing import Literal

import openai
from pydantic import BaseModel, ConfigDict, Field

from asking import MODEL, client, expect_error

ASKED = [{"role": "user", "content": "What weather has Verona?"}]


class Weather(BaseModel):
    model_config = ConfigDict(extra="forbid")
    place: Literal["Verona", "Venice"]
    days: int = Field(ge=1, le=9)


class Wait(BaseModel):
    model_config = ConfigDict(extra="forbid")
    patient: bool


def tool(name, properties):
    """As short as can be: all that is offered and said has to fit into 512 tokens of a small vocabulary."""
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return {"type": "function", "function": {"name": name, "parameters": schema}}


WEATHER = tool("weather", {"place": {"enum": ["Verona", "Venice"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}})
WAIT = tool("wait", {"patient": {"type": "boolean"}})
OFFERED = {"weather": Weather, "wait": Wait}
CALLING = {"model": MODEL, "messages": ASKED, "tools": [WEATHER, WAIT], "max_tokens": 100, "temperature": 0}


def check_call(call):
    """The call is of a tool that is offered, with arguments of its schema."""
    assert call.type == "function" and call.id, call
    OFFERED[call.function.name].model_validate_json(call.function.arguments)


def only_call(answer):
    [choice] = answer.choices
    assert choice.finish_reason == "tool_calls", choice
    assert choice.message.content is None, choice.message
    [call] = choice.message.tool_calls
    check_call(call)
    return call


def a_required_call_is_one_of_those_offered():
    for seed in range(4):
        answer = client.chat.completions.create(**CALLING | {"temperature": 1, "seed": seed}, tool_choice="required")
        only_call(answer)
        assert answer.usage.completion_tokens > 0, answer.usage


def a_named_call_is_of_that_tool():
    for name in OFFERED:
        choice = {"type": "function", "function": {"name": name}}
        call = only_call(client.chat.completions.create(**CALLING, tool_choice=choice))
        assert call.function.name == name, call


def a_model_that_may_call_may_also_talk():
    for more in {}, {"tool_choice": "auto"}, {"parallel_tool_calls": False}:
        [choice] = client.chat.completions.create(**CALLING, **more).choices
        if choice.message.tool_calls:
            assert choice.finish_reason in ("tool_calls", "length"), choice
            for call in choice.message.tool_calls:
                check_call(call)
        else:
            assert choice.message.content and choice.finish_reason in ("stop", "length"), choice


def a_model_that_must_not_call_talks():
    [choice] = client.chat.completions.create(**CALLING | {"max_tokens": 16}, tool_choice="none").choices
    assert choice.message.content and not choice.message.tool_calls, choice


def a_streamed_call_is_the_same_call():
    whole = only_call(client.chat.completions.create(**CALLING, tool_choice="required"))
    deltas, finish, roles = [], None, []
    for chunk in client.chat.completions.create(**CALLING, tool_choice="required", stream=True):
        for choice in chunk.choices:
            assert not choice.delta.content, choice
            roles += [choice.delta.role] if choice.delta.role else []
            deltas += choice.delta.tool_calls or []
            finish = choice.finish_reason or finish
    first, *rest = deltas
    assert roles == ["assistant"] and finish == "tool_calls", (roles, finish)
    assert first.index == 0 and first.id and first.type == "function", first
    assert first.function.name == whole.function.name and first.function.arguments == "", first
    assert rest and all(one.index == 0 and one.id is None and one.function.name is None for one in rest), rest
    assert "".join(one.function.arguments for one in rest) == whole.function.arguments, rest


def what_a_tool_says_goes_back():
    asked = CALLING | {"tools": [WEATHER]}
    first = client.chat.completions.create(**asked, tool_choice="required")
    call = only_call(first)
    said = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
    messages = [*ASKED, first.choices[0].message, said]
    [choice] = client.chat.completions.create(**asked | {"messages": messages, "max_tokens": 16}).choices
    assert choice.message.content or choice.message.tool_calls, choice
    # The answer of a tool that nobody called.
    stray = asked | {"messages": [*ASKED, said]}
    error = expect_error(openai.BadRequestError, 400, lambda: client.chat.completions.create(**stray))
    assert error.param == "messages[1].tool_call_id", error.body


def the_clients_own_parser_reads_calls():
    answer = client.chat.completions.parse(
        **CALLING | {"tools": [openai.pydantic_function_tool(Weather, name="weather")]}, tool_choice="required"
    )
    [call] = answer.choices[0].message.tool_calls
    assert isinstance(call.function.parsed_arguments, Weather), call


def the_clients_own_stream_puts_calls_together():
    with client.chat.completions.stream(
        **CALLING | {"tools": [openai.pydantic_function_tool(Weather, name="weather")]}, tool_choice="required"
    ) as stream:
        kinds = {event.type for event in stream}
        answer = stream.get_final_completion()
    assert "tool_calls.function.arguments.delta" in kinds and "tool_calls.function.arguments.done" in kinds, kinds
    [call] = answer.choices[0].message.tool_calls
    assert isinstance(call.function.parsed_arguments, Weather), call
    assert answer.choices[0].finish_reason == "tool_calls", answer


def what_cannot_be_offered_is_named():
    broken = {"type": "function", "function": {"name": "a b"}}
    for more, param in (
        ({"tools": [WEATHER, broken]}, "tools[1].function.name"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
        ({"tool_choice": {"type": "function", "function": {"name": "fly"}}}, "tool_choice.function.name"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"functions": [{"name": "weather"}]}, "functions"),
    ):
        error = expect_error(openai.BadRequestError, 400, lambda: client.chat.completions.create(**CALLING | more))
        assert error.param == param, (param, error.body)


STORIES = [
    a_required_call_is_one_of_those_offered,
    a_named_call_is_of_that_tool,
    a_model_that_may_call_may_also_talk,
    a_model_that_must_not_call_talks,
    a_streamed_call_is_the_same_call,
    what_a_tool_says_goes_back,
    the_clients_own_parser_reads_calls,
    the_clients_own_stream_puts_calls_together,
    what_cannot_be_offered_is_named,
]
