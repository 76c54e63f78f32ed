"""Trains the breast cancer classifier and writes the model, its held-out rows and an example.

    python train.py

The data is scikit-learn's bundled copy of the Wisconsin Diagnostic set. Everything comes from
SEED, so another run gives the same trees.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.model_selection import StratifiedKFold, cross_val_predict, train_test_split

import scores

SEED = 1992
HERE = Path(__file__).parent
MODEL = HERE / "breast-cancer.onnx"
EXAMPLE_ROWS = 4


def classifier() -> GradientBoostingClassifier:
    """Shallow, slow and subsampled: on 455 rows, stronger settings only overfit."""
    return GradientBoostingClassifier(
        n_estimators=200, learning_rate=0.08, max_depth=3, subsample=0.6,
        max_features="sqrt", min_samples_leaf=5, random_state=SEED,
    )


def split():
    """Train and held-out rows (80 / 20, stratified). Values are rounded to float32 first, as
    the served model reads them."""
    data = load_breast_cancer()
    rows = data.data.astype(np.float32)
    return data, *train_test_split(rows, data.target, test_size=0.2, random_state=SEED, stratify=data.target)


def export(model: GradientBoostingClassifier) -> None:
    """`zipmap=False` makes the probabilities a plain [-1, 2] tensor."""
    graph = to_onnx(
        model,
        initial_types=[("input", FloatTensorType([None, 30]))],
        options={id(model): {"zipmap": False}},
        target_opset={"": 18, "ai.onnx.ml": 3},
    )
    for output in graph.graph.output:  # say [-1, 2] and [-1] rather than leave shapes open
        output.type.tensor_type.shape.dim[0].dim_param = "batch"
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    graph.graph.name = "breast-cancer"
    graph.doc_string = "0 malignant, 1 benign. Not a medical device. Licence: MIT OR Apache-2.0"
    onnx.checker.check_model(graph)
    MODEL.write_bytes(graph.SerializeToString())


def write_held_out(names: list[str], rows: np.ndarray, targets: np.ndarray) -> None:
    """The held-out rows as CSV; repr keeps every float32 exact."""
    lines = [",".join([*(name.replace(" ", "_") for name in names), "target"])]
    for row, target in zip(rows, targets, strict=True):
        lines.append(",".join([*(str(value) for value in row), str(target)]))
    (HERE / "held-out.csv").write_text("\n".join(lines) + "\n")


def write_example(session: onnxruntime.InferenceSession, rows: np.ndarray, targets: np.ndarray) -> None:
    """An Open Inference Protocol V2 request with real held-out rows, and what it must give."""
    labels, probabilities = session.run(["label", "probabilities"], {"input": rows})
    flat = lambda values: [v.item() for v in np.asarray(values).reshape(-1)]
    shortest = lambda values: [float(str(np.float32(v))) for v in np.asarray(values).reshape(-1)]
    example = {
        "request": {
            "inputs": [{"name": "input", "datatype": "FP32", "shape": list(rows.shape), "data": shortest(rows)}],
            "outputs": [{"name": "label"}, {"name": "probabilities"}],
        },
        "expected_outputs": [
            {"name": "label", "datatype": "INT64", "shape": list(labels.shape), "data": flat(labels)},
            {"name": "probabilities", "datatype": "FP32", "shape": list(probabilities.shape), "data": shortest(probabilities)},
        ],
        "truth": flat(targets),
    }
    (HERE / "example.json").write_text(json.dumps(example, indent=1) + "\n")


def main() -> None:
    data, train_rows, held_rows, train_targets, held_targets = split()
    model = classifier().fit(train_rows, train_targets)
    export(model)
    write_held_out(list(data.feature_names), held_rows, held_targets)
    session = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    probabilities = session.run(["probabilities"], {"input": held_rows})[0][:, 1]
    difference = np.abs(probabilities - model.predict_proba(held_rows)[:, 1]).max()
    assert difference < 1e-5, f"onnxruntime and scikit-learn differ by {difference}"
    write_example(session, held_rows[:EXAMPLE_ROWS], held_targets[:EXAMPLE_ROWS])
    result = scores.score(held_targets, probabilities)
    folds = StratifiedKFold(10, shuffle=True, random_state=SEED)
    crossed = cross_val_predict(
        classifier(), data.data.astype(np.float32), data.target, cv=folds, method="predict_proba"
    )[:, 1]
    result["cross_validated"] = scores.score(data.target, crossed)
    (HERE / "scores.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    print("largest difference from scikit-learn", difference)


if __name__ == "__main__":
    main()
