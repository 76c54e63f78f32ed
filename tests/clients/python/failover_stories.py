"""Stories of answers whose seller dies in the middle, told by the official client. Two sellers join the market, and one is
killed as a power cut does it. They compute exactly, so that whoever goes on says what the other would have said; otherwise
two words that are as likely may change places. Reads what `asking.py` and `money.py` read."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import openai
from openai import OpenAI

from asking import MODEL, PATIENCE
from money import PROGRAM, Key, rialto
from telling import tell

MOST = 400
# A text to go on with, since this model's chats are over after a sentence.
ASKED = {"model": MODEL, "prompt": "To be, or not to be", "max_tokens": MOST, "temperature": 0}


class Seller:
    """A seller with a data directory of its own."""

    def __init__(self, name):
        self.folder = pathlib.Path(folder.name) / name
        self.folder.mkdir()
        (self.folder / "config.toml").write_text("[provider]\nexact = true\n")
        self.account = self.process = None

    def start(self):
        """Joins, and answers a first time."""
        # No setting of the market's is its.
        own = {name: value for name, value in os.environ.items() if not name.startswith("RIALTO_")}
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                [PROGRAM, "provide", "--ticket", rialto("ticket")["ticket"], "--config", self.folder / "config.toml",
                 "--data-dir", self.folder / "data", "--json", "--no-bench", "--node-listen", "127.0.0.1:0",
                 "--model", "models/shakespeare/manifest-q8_0.toml"],
                stdout=subprocess.PIPE, stderr=log, env=own,
            )
        for line in self.process.stdout:
            if said := json.loads(line).get("provider"):
                self.account = said
                return self.ask()
        raise AssertionError(f"the seller ended: {(self.folder / 'log').read_text()[-2000:]}")

    def ask(self, **more):
        """Its answer, as soon as it is known and its pause after a failure is over."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return client.completions.create(**ASKED | more, extra_body={"provider": {"only": [self.account]}})
            except openai.APIStatusError as error:
                assert time.monotonic() < until, f"the seller never answered: {error}"
                time.sleep(0.2)

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.wait()


folder = tempfile.TemporaryDirectory(prefix="sellers")
key = Key("failover", "0.1")
client = OpenAI(api_key=key.secret, max_retries=0, timeout=PATIENCE)


first, second = Seller("first"), Seller("second")


def receipts_of(parts):
    """The receipts of these parts, by channel and number."""
    kept = {}
    for row in rialto("receipts", "--limit", "1000"):
        receipt = row["signed"]["receipt"]
        kept[receipt["channel"], receipt["sequence"]] = receipt
    return [kept[part["channel"], part["receipt"]] for part in parts]


def stream_until(strike):
    """Streams an answer from the first seller, which `strike` strikes in the middle."""
    text, finish, usage, ids, at = "", None, None, set(), 0
    sellers = {"order": [first.account, second.account], "allow_fallbacks": False}
    stream = client.completions.create(
        **ASKED, stream=True, stream_options={"include_usage": True}, extra_body={"provider": sellers}
    )
    for number, chunk in enumerate(stream):
        ids.add((chunk.id, chunk.object, chunk.model, chunk.created))
        if number == 10:
            strike()
            at = len(text)
        assert finish is None or not chunk.choices, "it goes on after its end"
        for choice in chunk.choices:
            text += choice.text
            finish = choice.finish_reason or finish
        if chunk.usage:
            assert usage is None, "usage came twice"
            usage = chunk.usage
    assert len(ids) == 1 and 0 < at < len(text), (ids, at)
    return text, finish, usage


def breaks_off(strike):
    """What holds of an answer whose seller `strike` strikes."""
    first.start()
    whole = second.ask() if second.process else second.start()
    before = key.spent()
    text, finish, usage = stream_until(strike)
    first.stop()
    # One answer in one stream, to the letter what it would have been.
    assert (text, finish) == (whole.choices[0].text, whole.choices[0].finish_reason), (text, whole)
    assert usage.prompt_tokens == whole.usage.prompt_tokens, (usage, whole.usage)
    assert usage.completion_tokens == whole.usage.completion_tokens <= MOST, (usage, whole.usage)
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, usage
    # Each is paid for its part, and the client pays the sum.
    trade = usage.model_extra["trade"]
    broken, ended = trade["parts"]
    assert (broken["provider"], ended["provider"]) == (first.account, second.account), trade
    assert broken.get("receipt") is None and ended["receipt"] == trade["receipt"], trade
    costs = [int(part["cost_nanodollars"]) for part in trade["parts"]]
    assert sum(costs) == int(trade["cost_nanodollars"]) and min(costs) > 0, trade
    assert abs(usage.model_extra["cost"] - sum(costs) / 1e9) < 1e-12, usage
    # What the dead one is owed is spoken for, and the key's limit holds with it.
    row = key.row()
    assert row["spent"] - before == costs[1] and row["held"] >= costs[0], (row, before, trade)
    assert row["spent"] + row["held"] <= row["budget"] * 1000, row
    # It comes back with its own records, and its receipt comes with the next trade.
    later = first.start().usage.model_extra["trade"]
    assert later["channel"] == broken["channel"], (later, trade)
    assert key.spent() - before == sum(costs) + int(later["cost_nanodollars"]), (key.row(), before, trade)
    one, other, last = receipts_of([broken | {"receipt": later["receipt"] - 1}, ended, later])
    assert (one["cost"], other["cost"]) == tuple(costs), (one, other, trade)
    assert one["total"] + last["cost"] == last["total"], (one, last)
    assert one["usage"]["output"] + other["usage"]["output"] == usage.completion_tokens, (one, other)
    # The second part's input is the prompt and what was said of the answer.
    assert one["usage"]["input"] == usage.prompt_tokens < other["usage"]["input"], (one, other)
    first.stop()


def the_seller_is_killed_in_the_middle():
    breaks_off(lambda: first.process.kill())


def the_seller_falls_silent_in_the_middle():
    breaks_off(lambda: first.process.send_signal(signal.SIGSTOP))


STORIES = [the_seller_is_killed_in_the_middle, the_seller_falls_silent_in_the_middle]

if __name__ == "__main__":
    failed = tell("failover", STORIES)
    first.stop()
    second.stop()
    folder.cleanup()
    sys.exit(failed)
