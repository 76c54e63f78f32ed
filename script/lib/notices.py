"""Prints the licences and notices that come with the programs: every package that `rialto` and `rialto-worker` link.

Reads what `cargo metadata --locked` prints, on standard input. A text that several packages share is printed once.
"""

import json
import pathlib
import re
import sys

PROGRAMS = ("rialto-cli", "rialto-worker")
# Also the texts of what a package brings along in folders of its own, such as llama.cpp.
DEPTH = 4
NAMES = re.compile(r"(un)?licen[cs]e|copying|copyright|notice|patents", re.IGNORECASE)
SOURCE = re.compile(r"\.(rs|py|c|cc|cpp|h|hpp|js|html|json|toml|sh|in)$", re.IGNORECASE)
MOST_BYTES = 1 << 20


def linked(metadata):
    """The packages of the registry that are in the programs, by name and version."""
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    waiting = [key for key, package in packages.items() if package["name"] in PROGRAMS]
    if len(waiting) != len(PROGRAMS):
        sys.exit(f"the workspace does not have all of {', '.join(PROGRAMS)}")
    seen = set()
    while waiting:
        key = waiting.pop()
        if key in seen:
            continue
        seen.add(key)
        for dependency in nodes[key]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                waiting.append(dependency["pkg"])
    found = [packages[key] for key in seen if packages[key]["source"]]
    return sorted(found, key=lambda package: (package["name"], package["version"]))


def texts(package):
    """The licences and notices in a package's folder."""
    folder = pathlib.Path(package["manifest_path"]).parent
    for path in sorted(folder.rglob("*")):
        depth = len(path.relative_to(folder).parts)
        if depth > DEPTH or SOURCE.search(path.name) or not NAMES.search(path.name):
            continue
        if path.is_file() and path.stat().st_size <= MOST_BYTES:
            yield path.read_text(encoding="utf-8", errors="replace").strip()


def main():
    packages = linked(json.load(sys.stdin))
    owners = {}
    print("What Rialto's programs contain besides Rialto, from https://crates.io, where the sources are:\n")
    for package in packages:
        authors = ", ".join(package["authors"])
        by = f", by {authors}" if authors else ""
        name = f"{package['name']} {package['version']}"
        print(f"{name}: {package['license'] or package['license_file']}{by}")
        for text in dict.fromkeys(texts(package)):
            owners.setdefault(text, []).append(name)
    for text, names in sorted(owners.items(), key=lambda item: item[1]):
        print(f"\n{'=' * 100}\n{', '.join(names)}\n{'=' * 100}\n\n{text}")


main()
