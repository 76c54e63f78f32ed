"""Compares what slither found with what was looked at and accepted, with a reason."""

import json
import sys
from collections import Counter


def places(found):
    """Each finding as (detector, where): the function it is in, and the variable if it is about one."""
    for result in found["results"].get("detectors", []):
        first = result["elements"][0]
        name, parent = first["name"], first
        while (parent := parent.get("type_specific_fields", {}).get("parent")) is not None:
            if parent["type"] in ("contract", "function"):
                name = f"{parent['name']}.{name}"
        yield (result["check"], name), result


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        found = json.load(file)
    with open(sys.argv[2], encoding="utf-8") as file:
        accepted = {(entry["check"], entry["where"]): entry["why"] for entry in json.load(file)}
    if not found["success"]:
        sys.exit(f"slither failed: {found['error']}")
    results = list(places(found))
    new = [result for place, result in results if place not in accepted]
    stale = set(accepted) - {place for place, _ in results}
    for place, result in results:
        if place not in accepted:
            print(f"NEW {result['impact']} {place[0]} {place[1]}\n{result['description']}")
    for place in sorted(stale):
        print(f"no longer found, remove it from accepted.json: {place}")
    counts = Counter(result["impact"] for _, result in results)
    print(f"slither: {counts['High']} high, {counts['Medium']} medium, of which {len(new)} not explained")
    sys.exit(1 if new or stale else 0)


main()
