"""Stories of the official clients' own retries, of Python and of JavaScript: whatever breaks between them and the gateway, a
call is charged once. Reads what `asking.py` and `money.py` read, and RIALTO_RETRYING_JS, where the JavaScript client is."""

import collections
import concurrent.futures
import json
import os
import subprocess
import sys

import openai
from openai import OpenAI

from asking import MESSAGES, MODEL, PATIENCE, client
from breaking import AFTER, Breaking
from money import Key, rialto
from telling import tell

ASKED = {"model": MODEL, "messages": MESSAGES, "max_tokens": 24, "temperature": 0}
STATUSES = (408, 409, 429, 500, 502, 503, 504)
JAVASCRIPT = os.environ["RIALTO_RETRYING_JS"]

proxy = Breaking()
whole = client.chat.completions.create(**ASKED)
TEXT, COST = whole.choices[0].message.content, int(whole.usage.model_extra["trade"]["cost_nanodollars"])


def python(case):
    """What a call of the Python client, as it comes, came to."""
    client = OpenAI(base_url=case["url"], api_key=case["key"], timeout=PATIENCE)
    try:
        if not case["stream"]:
            answer = client.chat.completions.create(**ASKED)
            cost = int(answer.usage.model_extra["trade"]["cost_nanodollars"])
            return {"text": answer.choices[0].message.content, "cost": cost}
        text, cost = "", None
        for chunk in client.chat.completions.create(**ASKED, stream=True, stream_options={"include_usage": True}):
            text += "".join(choice.delta.content or "" for choice in chunk.choices)
            cost = int(chunk.usage.model_extra["trade"]["cost_nanodollars"]) if chunk.usage else cost
        return {"text": text, "cost": cost}
    except Exception as error:  # What it is, is what the story looks at.
        return {"error": type(error).__name__, "status": getattr(error, "status_code", None)}


def all_python(cases):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        return list(pool.map(python, cases))


def all_javascript(cases):
    said = subprocess.run(["node", JAVASCRIPT], input=json.dumps(cases), check=True, capture_output=True, text=True)
    return json.loads(said.stdout)


def make(plans):
    """Calls with a key each, streamed and not."""
    cases = []
    for plan in plans:
        for stream in False, True:
            key = Key(f"{plan} {stream}", "0.01")
            cases.append({"plan": plan, "url": proxy.url(plan), "stream": stream, "key": key})
    return cases


def run(plans, check):
    """Makes calls that break so, with both clients, and checks what each came to."""
    for call in all_python, all_javascript:
        cases = make(plans)
        ended = call([{"url": case["url"], "stream": case["stream"], "key": case["key"].secret} for case in cases])
        spent = [case["key"].spent() for case in cases]
        receipts = collections.Counter(row["key"] for row in rialto("receipts", "--limit", "1000"))
        wrong = []
        for case, *came in zip(cases, ended, spent, strict=True):
            came.append(receipts[case["key"].id])
            if not check(case | {"by": call}, *came):
                wrong.append((call.__name__, case["plan"], case["stream"], *came))
        assert not wrong, wrong


def is_answer(case, end, spent, receipts):
    """The right answer, which was bought once."""
    return end == {"text": TEXT, "cost": COST} and (spent, receipts) == (COST, 1)


def every_status_is_retried_and_charged_once():
    run([f"{when}{status}" for when in "SA" for status in STATUSES], is_answer)


def two_in_a_row_are_charged_once():
    run(["A503,A500", "swallowed,A429", "lost,swallowed", "S502,A504", "A409,reset", "lost,lost"], is_answer)


def every_broken_connection_is_charged_once():
    def check(case, end, spent, receipts):
        # Of an answer that has begun, Python's client asks for a whole one again, and JavaScript's for none.
        if case["plan"] in ("headers", "cut") and (case["stream"] or case["by"] is all_javascript):
            return "error" in end and end["status"] is None and (spent, receipts) == (COST, 1)
        return is_answer(case, end, spent, receipts)

    run(["reset", *AFTER], check)


def a_refused_connection_is_charged_once():
    # A proxy of its own and one after the other, since while it is shut it is shut for all.
    proxy = Breaking()
    for stream in False, True:
        for call in all_python, all_javascript:
            key = Key(f"refused {stream}", "0.01")
            [end] = call([{"url": proxy.url("refused"), "stream": stream, "key": key.secret}])
            assert end == {"text": TEXT, "cost": COST} and key.spent() == COST, (call, end, key.row())


def a_long_stream_that_is_cut_is_charged_for_what_was_given():
    key = Key("cut", "0.1")
    client = OpenAI(base_url=proxy.url("cut"), api_key=key.secret, timeout=PATIENCE)
    asked = {"model": MODEL, "prompt": "To be, or not to be", "max_tokens": 400, "temperature": 0}
    try:
        list(client.completions.create(**asked, stream=True))
    except Exception as error:  # The client lets its transport's through.
        assert not isinstance(error, openai.APIStatusError), error
    else:
        raise AssertionError("it was not cut")
    # Nobody asks again, so it is broken off after a while.
    left = key.spent()
    again = client.with_options(base_url=os.environ["OPENAI_BASE_URL"]).completions.create(**asked)
    assert 0 < left <= int(again.usage.model_extra["trade"]["cost_nanodollars"]) == key.spent() - left, (left, key.row())


def an_error_that_stays_is_told_and_charged_once():
    def check(case, end, spent, receipts):
        before = case["plan"][0] in "Sr"
        right = end.get("status") == {"S": 503, "A": 500}.get(case["plan"][0]) and "error" in end
        return right and (spent, receipts) == ((0, 0) if before else (COST, 1))

    run(["S503,S503,S503", "A500,A500,A500", "swallowed,swallowed,swallowed", "reset,reset,reset"], check)


STORIES = [
    every_status_is_retried_and_charged_once,
    two_in_a_row_are_charged_once,
    every_broken_connection_is_charged_once,
    a_refused_connection_is_charged_once,
    a_long_stream_that_is_cut_is_charged_for_what_was_given,
    an_error_that_stays_is_told_and_charged_once,
]

if __name__ == "__main__":
    sys.exit(tell("retries", STORIES))
