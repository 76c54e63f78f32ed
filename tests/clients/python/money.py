"""What the gateway charged, as `rialto` tells it. Reads RIALTO_DATA_DIR, the market's folder, as `rialto` itself does, and
RIALTO_PROGRAM."""

import json
import os
import subprocess
import time

from asking import PATIENCE

PROGRAM = os.environ.get("RIALTO_PROGRAM", "target/release/rialto")


def rialto(*arguments):
    """What the program says with `--json`."""
    return json.loads(subprocess.run([PROGRAM, *arguments, "--json"], check=True, capture_output=True).stdout)


class Key:
    """An API key of its own, whose spending is this story's alone. Money is in nano-dollars, the budget in dollars."""

    def __init__(self, name, budget):
        made = rialto("key", "create", name, "--budget", budget)
        self.id, self.secret = made["row"]["id"], made["key"]

    def row(self):
        [row] = [row for row in rialto("key", "list") if row["id"] == self.id]
        return row

    def spent(self):
        """What was spent, once nothing is held for what still goes on."""
        until = time.monotonic() + PATIENCE
        while (row := self.row())["held"]:
            assert time.monotonic() < until, f"still held: {row}"
            time.sleep(0.05)
        return row["spent"]
