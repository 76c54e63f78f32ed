"""Stories of numbers: how likely tokens are, seeds, and vectors of texts."""

import math

import openai

from asking import EMBEDDING_MODEL, MESSAGES, MODEL, client, expect_error

TELLING = {"model": MODEL, "messages": MESSAGES, "max_tokens": 20, "logprobs": True}


def check_token(token, top):
    assert -9999 <= token.logprob <= 0, token
    assert len(token.top_logprobs) == top, token
    assert all(-9999 <= one.logprob <= 0 for one in token.top_logprobs), token
    likely = [one.logprob for one in token.top_logprobs]
    assert likely == sorted(likely, reverse=True), token
    assert sum(math.exp(one) for one in likely) < 1.001, token
    assert bytes(token.bytes).decode(errors="replace") == token.token, token


def each_token_has_its_probability():
    for top in 0, 5, 20:
        answer = client.chat.completions.create(**TELLING, top_logprobs=top, temperature=0)
        content = answer.choices[0].logprobs.content
        assert len(content) == answer.usage.completion_tokens, (len(content), answer.usage)
        for token in content:
            check_token(token, top)
            if top:
                # With temperature 0 the likeliest token is the one that is chosen.
                assert token.top_logprobs[0].bytes == token.bytes, token
                assert token.top_logprobs[0].logprob == token.logprob, token
        spelt = b"".join(bytes(token.bytes) for token in content)
        assert spelt.startswith(answer.choices[0].message.content.encode()), spelt


def probabilities_are_of_the_model_and_not_of_the_temperature():
    # The same first token, however it was drawn, has the same probability.
    cold = client.chat.completions.create(**TELLING | {"max_tokens": 1}, top_logprobs=20, temperature=0)
    first = {bytes(one.bytes): one.logprob for one in cold.choices[0].logprobs.content[0].top_logprobs}
    compared = 0
    for seed in range(8):
        warm = client.chat.completions.create(**TELLING | {"max_tokens": 1}, temperature=1.5, seed=seed)
        token = warm.choices[0].logprobs.content[0]
        if bytes(token.bytes) in first:
            compared += 1
            assert abs(first[bytes(token.bytes)] - token.logprob) < 1e-3, (token, first)
    assert compared > 0, "none of eight tokens was among the twenty likeliest"


def a_stream_tells_the_same_probabilities():
    asked = TELLING | {"top_logprobs": 2, "temperature": 0}
    whole = client.chat.completions.create(**asked)
    content = []
    for chunk in client.chat.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            content += choice.logprobs.content if choice.logprobs else []
    assert content == whole.choices[0].logprobs.content, content


def nothing_is_told_that_nobody_asked_for():
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=2)
    assert answer.choices[0].logprobs is None, answer
    for more, param in ({"top_logprobs": 2}, "top_logprobs"), ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"):
        asked = {"model": MODEL, "messages": MESSAGES, **more}
        error = expect_error(openai.BadRequestError, 400, lambda: client.chat.completions.create(**asked))
        assert error.param == param, error.body


def completions_tell_theirs_in_the_old_way():
    answer = client.completions.create(model=MODEL, prompt="To be, or", max_tokens=8, logprobs=3, temperature=0)
    told = answer.choices[0].logprobs
    count = answer.usage.completion_tokens
    assert [len(told.tokens), len(told.token_logprobs), len(told.top_logprobs), len(told.text_offset)] == [count] * 4, told
    assert "".join(told.tokens).startswith(answer.choices[0].text), told
    assert told.text_offset[0] == 0 and told.text_offset == sorted(told.text_offset), told
    for token, logprob, top in zip(told.tokens, told.token_logprobs, told.top_logprobs):
        assert top[token] == logprob == max(top.values()) and 1 <= len(top) <= 4, (token, top)
    streamed = []
    asked = {"model": MODEL, "prompt": "To be, or", "max_tokens": 8, "logprobs": 3, "temperature": 0}
    for chunk in client.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            streamed += choice.logprobs.text_offset if choice.logprobs else []
    assert streamed == told.text_offset, streamed


def a_seed_decides_the_answer():
    def answer(seed):
        answer = client.chat.completions.create(
            model=MODEL, messages=MESSAGES, max_tokens=24, temperature=1, seed=seed
        )
        return answer.choices[0].message.content

    said = [answer(seed) for seed in range(4)]
    assert said == [answer(seed) for seed in range(4)], said
    assert len(set(said)) > 1, said


def length(vector):
    return math.sqrt(sum(one * one for one in vector))


def texts_become_vectors_in_order():
    texts = ["O Romeo, Romeo! wherefore art thou Romeo?", "Once more unto the breach", "wherefore art thou Romeo"]
    answer = client.embeddings.create(model=EMBEDDING_MODEL, input=texts, encoding_format="float")
    assert [one.index for one in answer.data] == [0, 1, 2] and answer.usage.prompt_tokens > 0, answer.usage
    vectors = [one.embedding for one in answer.data]
    assert len({len(vector) for vector in vectors}) == 1 and all(length(vector) > 0 for vector in vectors)

    def alike(one, other):
        return sum(a * b for a, b in zip(one, other)) / length(one) / length(other)

    assert alike(vectors[0], vectors[2]) > alike(vectors[0], vectors[1])
    [alone] = client.embeddings.create(model=EMBEDDING_MODEL, input=texts[1], encoding_format="float").data
    assert all(abs(a - b) < 1e-4 for a, b in zip(alone.embedding, vectors[1], strict=True))


def base64_carries_the_same_vectors():
    # Without a wish the client asks for base64 and decodes it itself.
    [decoded] = client.embeddings.create(model=EMBEDDING_MODEL, input="To be").data
    [numbers] = client.embeddings.create(model=EMBEDDING_MODEL, input="To be", encoding_format="float").data
    assert all(abs(a - b) < 1e-6 for a, b in zip(decoded.embedding, numbers.embedding, strict=True))
    [raw] = client.embeddings.create(model=EMBEDDING_MODEL, input="To be", encoding_format="base64").data
    assert isinstance(raw.embedding, str) and len(raw.embedding) > len(numbers.embedding), type(raw.embedding)


def what_no_vector_is_made_of_is_named():
    for more, param in (
        ({"input": [1, 2, 3]}, "input[0]"),
        ({"input": [[1, 2]]}, "input[0]"),
        ({"input": []}, "input"),
        ({"input": "To be", "dimensions": 8}, "dimensions"),
    ):
        asked = {"model": EMBEDDING_MODEL, **more}
        error = expect_error(openai.BadRequestError, 400, lambda: client.embeddings.create(**asked))
        assert error.param == param, (param, error.body)


STORIES = [
    each_token_has_its_probability,
    probabilities_are_of_the_model_and_not_of_the_temperature,
    a_stream_tells_the_same_probabilities,
    nothing_is_told_that_nobody_asked_for,
    completions_tell_theirs_in_the_old_way,
    a_seed_decides_the_answer,
    texts_become_vectors_in_order,
    base64_carries_the_same_vectors,
    what_no_vector_is_made_of_is_named,
]
