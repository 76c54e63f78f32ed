"""Stories of files and batches: work that can wait."""

import json
import time

import openai

from asking import EMBEDDING_MODEL, MODEL, PATIENCE, client, expect_error

ENDED = ("completed", "failed", "expired", "cancelled")


def chat_line(name, text, **extra):
    body = {"model": MODEL, "messages": [{"role": "user", "content": text}], "max_tokens": 8, "temperature": 0, **extra}
    return {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body}


def upload(lines):
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    return client.files.create(file=("lines.jsonl", content), purpose="batch")


def run(lines, endpoint, **extra):
    file = upload(lines)
    batch = client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h", **extra)
    assert batch.object == "batch" and batch.status == "validating" and batch.input_file_id == file.id, batch
    until = time.monotonic() + PATIENCE
    while batch.status not in ENDED:
        assert time.monotonic() < until, f"the batch did not end: {batch}"
        time.sleep(0.1)
        batch = client.batches.retrieve(batch.id)
    return batch


def outcomes(file):
    return {line["custom_id"]: line for line in map(json.loads, client.files.content(file).text.splitlines())}


def a_batch_is_uploaded_answered_and_read():
    lines = [chat_line(f"r{number}", f"To be, or not to be {number}") for number in range(6)]
    lines.append(chat_line("bad", "x", model="rialto/nobody:v1"))
    batch = run(lines, "/v1/chat/completions", metadata={"story": "batches"})
    assert batch.status == "completed" and batch.completed_at >= batch.in_progress_at >= batch.created_at, batch
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (7, 6, 1), batch
    assert batch.metadata == {"story": "batches"} and batch.expires_at == batch.created_at + 24 * 3600, batch
    output, errors = outcomes(batch.output_file_id), outcomes(batch.error_file_id)
    assert sorted(output) == [f"r{number}" for number in range(6)] and list(errors) == ["bad"], (output, errors)
    cost = 0
    for line in output.values():
        assert line["error"] is None and line["response"]["status_code"] == 200, line
        answer = openai.types.chat.ChatCompletion.model_validate(line["response"]["body"])
        assert answer.choices[0].message.content and answer.usage.completion_tokens <= 8, answer
        cost += int(line["response"]["body"]["usage"]["trade"]["cost_nanodollars"])
    assert errors["bad"]["response"]["status_code"] == 404, errors
    # What it cost is what its answers' receipts say, to the last digit; sellers bid below what they post.
    trade = batch.model_extra["trade"]
    assert int(trade["cost_nanodollars"]) == cost, (trade, cost)
    assert int(trade["savings_nanodollars"]) == int(trade["posted_nanodollars"]) - cost >= 0, trade
    assert batch.usage.total_tokens == batch.usage.input_tokens + batch.usage.output_tokens > 0, batch


def a_batch_of_vectors_is_answered():
    lines = [
        {"custom_id": f"v{number}", "method": "POST", "url": "/v1/embeddings",
         "body": {"model": EMBEDDING_MODEL, "input": f"number {number}"}}
        for number in range(3)
    ]
    batch = run(lines, "/v1/embeddings")
    assert batch.status == "completed" and batch.request_counts.completed == 3, batch
    for line in outcomes(batch.output_file_id).values():
        assert line["response"]["body"]["data"][0]["embedding"], line


def a_bad_file_fails_with_its_line():
    batch = run([chat_line("a", "x"), chat_line("a", "y")], "/v1/chat/completions")
    assert batch.status == "failed" and batch.failed_at and batch.output_file_id is None, batch
    [error] = batch.errors.data
    assert error.line == 2 and error.param == "custom_id" and error.code and error.message, error


def a_batch_is_cancelled():
    file = upload([chat_line(f"r{number}", "Speak on", max_tokens=64) for number in range(200)])
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    batch = client.batches.cancel(batch.id)
    assert batch.status in ("cancelling", "cancelled") and batch.cancelling_at, batch
    until = time.monotonic() + PATIENCE
    while batch.status != "cancelled":
        assert time.monotonic() < until, batch
        time.sleep(0.1)
        batch = client.batches.retrieve(batch.id)
    assert batch.cancelled_at and batch.request_counts.completed < 200, batch


def files_and_batches_are_listed_and_deleted():
    file = upload([chat_line("a", "x")])
    assert file.object == "file" and file.purpose == "batch" and file.bytes > 0 and file.filename == "lines.jsonl", file
    assert client.files.retrieve(file.id).id == file.id
    assert json.loads(client.files.content(file.id).text)["custom_id"] == "a"
    assert any(one.id == file.id for one in client.files.list(purpose="batch", limit=1))
    assert client.files.delete(file.id).deleted
    expect_error(openai.NotFoundError, 404, lambda: client.files.retrieve(file.id))
    pages = [batch.id for batch in client.batches.list(limit=1)]
    assert len(pages) == len(set(pages)) >= 2, pages
    expect_error(openai.NotFoundError, 404, lambda: client.batches.retrieve("batch_none"))
    expect_error(
        openai.BadRequestError, 400, lambda: client.files.create(file=("a.txt", b"x"), purpose="assistants")
    )


STORIES = [
    a_batch_is_uploaded_answered_and_read,
    a_batch_of_vectors_is_answered,
    a_bad_file_fails_with_its_line,
    a_batch_is_cancelled,
    files_and_batches_are_listed_and_deleted,
]
