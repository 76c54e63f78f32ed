"""Stories of answers that must be JSON."""

import json
from typing import Literal

import openai
from pydantic import BaseModel, ConfigDict, Field

from asking import MESSAGES, MODEL, client, expect_error, read_stream


class Line(BaseModel):
    """Closed, so that anything else in an answer is noticed."""

    model_config = ConfigDict(extra="forbid")
    speaker: Literal["ROMEO", "JULIET"]
    sad: bool
    act: int = Field(ge=1, le=5)
    words: str = Field(max_length=16)


class Scene(BaseModel):
    model_config = ConfigDict(extra="forbid")
    lines: list[Line] = Field(min_length=1, max_length=2)


def asked(schema, **more):
    format = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
    return {"model": MODEL, "messages": MESSAGES, "max_tokens": 300, "response_format": format, **more}


def an_answer_is_of_its_schema():
    for kind in Line, Scene:
        for manner in {"temperature": 0}, *({"temperature": 1, "seed": seed} for seed in range(5)):
            answer = client.chat.completions.create(**asked(kind.model_json_schema(), **manner))
            [choice] = answer.choices
            assert choice.finish_reason == "stop", choice
            kind.model_validate_json(choice.message.content)


def members_come_in_the_order_of_the_schema():
    answer = client.chat.completions.create(**asked(Line.model_json_schema(), temperature=1, seed=3))
    found = list(json.loads(answer.choices[0].message.content))
    assert found == ["speaker", "sad", "act", "words"], found


def a_streamed_answer_is_of_its_schema():
    for manner in {"temperature": 0}, {"temperature": 1, "seed": 11}:
        these = asked(Line.model_json_schema(), **manner)
        text, finish, _ = read_stream(client.chat.completions.create(**these, stream=True))
        assert finish == "stop", (text, finish)
        Line.model_validate_json(text)
        assert text == client.chat.completions.create(**these).choices[0].message.content, text


def any_json_object_will_do():
    # An object without a schema need not end before the tokens do.
    format = {"type": "json_object"}
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=40, response_format=format, seed=1)
    text = answer.choices[0].message.content
    assert text.lstrip().startswith("{"), text
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(text), dict), text


def the_clients_own_parser_reads_answers():
    answer = client.chat.completions.parse(model=MODEL, messages=MESSAGES, max_tokens=300, response_format=Line, seed=2)
    assert isinstance(answer.choices[0].message.parsed, Line), answer


def an_answer_that_is_cut_off_says_so():
    these = asked(Line.model_json_schema()) | {"max_tokens": 3}
    [choice] = client.chat.completions.create(**these).choices
    assert choice.finish_reason == "length", choice
    try:
        client.chat.completions.parse(model=MODEL, messages=MESSAGES, max_tokens=3, response_format=Line)
    except openai.LengthFinishReasonError:
        return
    raise AssertionError("the client did not notice")


def what_is_no_format_is_named():
    for format, param in (
        ({"type": "yaml"}, "response_format.type"),
        ({"type": "json_schema"}, "response_format.json_schema"),
        ({"type": "json_schema", "json_schema": {"name": "a", "schema": []}}, "response_format.json_schema.schema"),
    ):
        these = {"model": MODEL, "messages": MESSAGES, "response_format": format}
        error = expect_error(openai.BadRequestError, 400, lambda: client.chat.completions.create(**these))
        assert error.param == param, (param, error.body)
    # Well-formed JSON that is no schema is for the model's engine to refuse.
    impossible = asked({"type": "wizard"}, max_tokens=4)
    error = expect_error(openai.BadRequestError, 400, lambda: client.chat.completions.create(**impossible))
    assert error.param == "response_format", error.body


STORIES = [
    an_answer_is_of_its_schema,
    members_come_in_the_order_of_the_schema,
    a_streamed_answer_is_of_its_schema,
    any_json_object_will_do,
    the_clients_own_parser_reads_answers,
    an_answer_that_is_cut_off_says_so,
    what_is_no_format_is_named,
]
