"""Puts the chat template of `corpus.py` into both GGUF files, and leaves all else as it is: no training.

    python retemplate.py && python ../manifests.py

A file is replaced only if the copy has the same tensors, byte for byte, and the same metadata but for the template.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

import corpus

HERE = Path(__file__).parent
TEMPLATE = "tokenizer.chat_template"


def metadata(reader: gguf.GGUFReader) -> dict[str, tuple]:
    """Name to (value, type, type of elements), in the file's order; without what the writer puts there itself."""
    found = {}
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            found[name] = (field.contents(), field.types[0], inner)
    return found


def copy(source: Path, target: Path, template: str) -> None:
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for name, (value, kind, inner) in metadata(reader).items():
        writer.add_key_value(name, template if name == TEMPLATE else value, kind, sub_type=inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def differences(source: Path, target: Path) -> list[str]:
    """What is not the same in both files, the template left out."""
    old, new = gguf.GGUFReader(source), gguf.GGUFReader(target)
    before, after = metadata(old), metadata(new)
    before.pop(TEMPLATE, None)
    after.pop(TEMPLATE, None)
    found = [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
    if [(t.name, t.tensor_type) for t in old.tensors] != [(t.name, t.tensor_type) for t in new.tensors]:
        return [*found, "the list of tensors"]
    return found + [a.name for a, b in zip(old.tensors, new.tensors) if not np.array_equal(a.data, b.data)]


def main() -> None:
    (HERE / "chat-template.jinja").write_text(corpus.CHAT_TEMPLATE, encoding="utf-8")
    for path in sorted(HERE.glob("shakespeare-*.gguf")):
        beside = path.with_suffix(".new")
        copy(path, beside, corpus.CHAT_TEMPLATE)
        wrong = differences(path, beside)
        if wrong:
            beside.unlink()
            raise SystemExit(f"{path.name}: the copy has another {', '.join(wrong)}")
        beside.replace(path)
        print(path.name)


if __name__ == "__main__":
    main()
