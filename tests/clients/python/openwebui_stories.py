"""Stories of Open WebUI against a running gateway: the package's own router, asked what its pages ask: "verify connection",
the list of models, chats and vectors. Only who is logged in is ours. Reads what `asking.py` reads."""

import contextlib
import io
import json
import os
import pathlib
import tempfile
import time
from importlib.util import find_spec

URL, KEY = os.environ["OPENAI_BASE_URL"], os.environ["OPENAI_API_KEY"]
home = tempfile.TemporaryDirectory(prefix="openwebui")
package = pathlib.Path(find_spec("open_webui").origin).parent
os.environ |= {
    "DATA_DIR": home.name,
    "STATIC_DIR": f"{home.name}/static",
    "FRONTEND_BUILD_DIR": str(package / "frontend"),
    "WEBUI_SECRET_KEY": "stories",
    "OFFLINE_MODE": "true",
    # Without it the router has no path for vectors: its knowledge bases call the function below it.
    "ENABLE_OPENAI_API_PASSTHROUGH": "true",
    # Without the parts that compute by themselves, which take gigabytes.
    "USE_SLIM_DOCKER": "true",
    "CORS_ALLOW_ORIGIN": URL,
    "GLOBAL_LOG_LEVEL": "ERROR",
}

from fastapi import FastAPI
from fastapi.testclient import TestClient

# It makes its database as it is loaded, and tells at length.
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    from open_webui.models.users import UserModel
    from open_webui.routers import openai as router
    from open_webui.utils.auth import get_admin_user, get_verified_user

from telling import tell

MODEL = os.environ.get("RIALTO_CHAT_MODEL", "rialto/shakespeare:q8_0")
EMBEDDING_MODEL = os.environ.get("RIALTO_EMBEDDING_MODEL", "rialto/shakespeare-words:f32")
NOW = int(time.time())
ADMIN = UserModel(
    id="1", email="a@b.c", name="Admin", role="admin", last_active_at=NOW, updated_at=NOW, created_at=NOW
)

app = FastAPI()
app.state.OPENAI_MODELS = {}
app.include_router(router.router, prefix="/openai")
app.dependency_overrides |= {get_admin_user: lambda: ADMIN, get_verified_user: lambda: ADMIN}
page = TestClient(app)


def connect():
    """What the page of connections stores when it is saved."""
    connection = {"enable": True, "tags": [], "prefix_id": "", "model_ids": [], "connection_type": "external"}
    form = {
        "ENABLE_OPENAI_API": True,
        "OPENAI_API_BASE_URLS": [URL],
        "OPENAI_API_KEYS": [KEY],
        "OPENAI_API_CONFIGS": {"0": connection},
    }
    saved = page.post("/openai/config/update", json=form)
    assert saved.status_code == 200, saved.text
    assert saved.json()["OPENAI_API_BASE_URLS"] == [URL], saved.text


def asked(**more):
    """A chat as the page sends it: with its own data about the conversation, which the server keeps to itself."""
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": "To be, or not to be"}],
        "max_tokens": 24,
        "temperature": 0,
        "metadata": {"user_id": "1", "chat_id": "c", "message_id": "m", "session_id": "s", "features": {}},
        **more,
    }


def stream(**more):
    with page.stream("POST", "/openai/chat/completions", json=asked(stream=True, **more)) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream"), response.headers
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]", lines[-1]
    return [json.loads(line) for line in lines[:-1]]


def the_connection_is_verified():
    for config in None, {}, {"auth_type": "bearer"}:
        answer = page.post("/openai/verify", json={"url": URL, "key": KEY, "config": config})
        assert answer.status_code == 200, answer.text
        assert answer.json()["object"] == "list", answer.text
        assert MODEL in [model["id"] for model in answer.json()["data"]], answer.text


def a_wrong_key_is_not():
    answer = page.post("/openai/verify", json={"url": URL, "key": "sk-rialto-of-nobody"})
    assert answer.status_code == 401, answer.text
    assert answer.json()["error"]["message"] and answer.json()["error"]["code"] == "invalid_api_key", answer.text


def the_models_of_the_connection_are_listed():
    connect()
    models = {model["id"]: model for model in page.get("/openai/models").json()["data"]}
    assert MODEL in models and EMBEDDING_MODEL in models, sorted(models)
    assert models[MODEL]["name"] and models[MODEL]["urlIdx"] == 0, models[MODEL]
    # The list of one connection, as the page of connections shows it.
    one = page.get("/openai/models/0")
    assert one.status_code == 200 and MODEL in [model["id"] for model in one.json()["data"]], one.text


def a_chat_is_answered():
    answer = page.post("/openai/chat/completions", json=asked())
    assert answer.status_code == 200, answer.text
    [choice] = answer.json()["choices"]
    assert choice["message"]["content"] and choice["finish_reason"] in ("stop", "length"), choice
    assert answer.json()["usage"]["completion_tokens"] > 0, answer.text


def a_streamed_chat_is_the_same_chat():
    whole = page.post("/openai/chat/completions", json=asked()).json()
    events = stream(stream_options={"include_usage": True})
    text = "".join(choice["delta"].get("content") or "" for event in events for choice in event["choices"])
    assert text == whole["choices"][0]["message"]["content"], (text, whole)
    assert events[-1]["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"], events[-1]


def what_the_page_can_set_is_understood():
    # The sliders and fields under "advanced parameters" that this protocol has.
    set_ = {"seed": 7, "top_p": 0.9, "frequency_penalty": 0.1, "presence_penalty": 0.1, "stop": ["zounds"]}
    assert stream(**set_, max_tokens=8, temperature=0.8), "nothing came"


def titles_and_tags_are_asked_for_like_chats():
    # What it asks by itself after the first answer: a chat without a stream, with `max_completion_tokens`.
    body = asked(max_completion_tokens=16, stream=False)
    del body["max_tokens"]
    answer = page.post("/openai/chat/completions", json=body)
    assert answer.status_code == 200 and answer.json()["choices"][0]["message"]["content"], answer.text


def a_tool_is_called():
    parameters = {
        "type": "object",
        "properties": {"place": {"enum": ["Verona", "Venice"]}},
        "required": ["place"],
        "additionalProperties": False,
    }
    tools = [{"type": "function", "function": {"name": "weather", "parameters": parameters}}]
    arguments = ""
    for event in stream(tools=tools, tool_choice="required", max_tokens=100):
        for choice in event["choices"]:
            for call in choice["delta"].get("tool_calls") or []:
                arguments += call["function"].get("arguments") or ""
    assert json.loads(arguments)["place"] in ("Verona", "Venice"), arguments


def texts_have_vectors():
    answer = page.post("/openai/embeddings", json={"model": EMBEDDING_MODEL, "input": ["sweet sorrow", "winter"]})
    assert answer.status_code == 200, answer.text
    assert [len(one["embedding"]) > 0 for one in answer.json()["data"]] == [True, True], answer.text


def an_error_reaches_the_page():
    answer = page.post("/openai/chat/completions", json=asked(temperature=9))
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "temperature", answer.text
    answer = page.post("/openai/chat/completions", json=asked(stream=True, temperature=9))
    assert answer.status_code == 400 and answer.json()["error"]["message"], answer.text


STORIES = [
    the_connection_is_verified,
    a_wrong_key_is_not,
    the_models_of_the_connection_are_listed,
    a_chat_is_answered,
    a_streamed_chat_is_the_same_chat,
    what_the_page_can_set_is_understood,
    titles_and_tags_are_asked_for_like_chats,
    a_tool_is_called,
    texts_have_vectors,
    an_error_reaches_the_page,
]

if __name__ == "__main__":
    # One event loop for all, as in its server: sessions outlive a request.
    with page:
        failed = tell("openwebui", STORIES)
        home.cleanup()
        # It has no end of its own without its whole server, and would complain of what is still open.
        os._exit(failed)
