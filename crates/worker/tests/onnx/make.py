"""Makes the fixtures: a small model of every family that the engine must run, with inputs and the outputs that Python's
onnxruntime gives for them.

    PYTHONHASHSEED=0 python make.py

Writes NAME.onnx and NAME.json beside it. Tensors are hexadecimal bytes, little-endian, row-major; a string is its length
in four bytes and its UTF-8, as in the market's protocol.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import TensorProto, checker, helper, numpy_helper
from skl2onnx import to_onnx
from skl2onnx.common import _container
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_diabetes, load_wine
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC

HERE = Path(__file__).parent
SEED = 5
ROWS = 7
OPSET = 18
TYPES = {
    "tensor(bool)": "BOOL", "tensor(uint8)": "UINT8", "tensor(int8)": "INT8", "tensor(uint16)": "UINT16",
    "tensor(int16)": "INT16", "tensor(uint32)": "UINT32", "tensor(int32)": "INT32", "tensor(uint64)": "UINT64",
    "tensor(int64)": "INT64", "tensor(float16)": "FP16", "tensor(float)": "FP32", "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}  # fmt: skip
random = np.random.default_rng(SEED)


def whole(values):
    """Truth values as whole numbers. skl2onnx passes numpy's for histogram trees, which onnx takes no more."""
    is_list = isinstance(values, list) and any(isinstance(value, (bool, np.bool_)) for value in values)
    return [int(value) for value in values] if is_list else values


make_node = _container.make_node
_container.make_node = lambda *names, **attributes: make_node(*names, **{key: whole(values) for key, values in attributes.items()})


def hexadecimal(values: np.ndarray) -> str:
    if values.dtype.kind in "OUS":
        texts = [str(text).encode() for text in values.reshape(-1)]
        return b"".join(len(text).to_bytes(4, "little") + text for text in texts).hex()
    return np.ascontiguousarray(values).tobytes().hex()


def tensor(name: str, datatype: str, values: np.ndarray) -> dict:
    return {"name": name, "datatype": datatype, "shape": list(values.shape), "data": hexadecimal(values)}


def from_maps(maps: list[dict]) -> np.ndarray:
    """A classifier's map for each row, as one tensor with its keys in order."""
    return np.array([[row[key] for key in sorted(row)] for row in maps], np.float32)


def write(name: str, model, feeds: dict[str, np.ndarray], batched: bool = True, declared: dict | None = None) -> None:
    """The model, its signature, one case, and the classes that a promise needs: see `tests/onnx.rs`."""
    data = model.SerializeToString()
    (HERE / f"{name}.onnx").write_bytes(data)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    extents = lambda one: [n if isinstance(n, int) else -1 for n in one.shape]
    kinds = {one.name: TYPES.get(one.type) for one in session.get_outputs()} | (declared or {})
    inputs, outputs, expected = [], [], []
    for one in session.get_inputs():
        inputs.append({"name": one.name, "datatype": TYPES[one.type], "shape": extents(one)})
    for one, values in zip(session.get_outputs(), session.run(None, feeds), strict=True):
        if one.type.startswith("seq(map"):
            values = from_maps(values)
            outputs.append({"name": one.name, "datatype": "FP32", "shape": [-1, values.shape[1]]})
        elif one.type.startswith("seq"):
            outputs.append({"name": one.name, "datatype": kinds[one.name], "shape": [-1, -1]})
            continue
        else:
            shape = extents(one) if len(one.shape) == values.ndim else [-1] * values.ndim
            outputs.append({"name": one.name, "datatype": TYPES[one.type], "shape": shape})
        expected.append(tensor(one.name, outputs[-1]["datatype"], np.asarray(values)))
    given = [tensor(one["name"], one["datatype"], feeds[one["name"]]) for one in inputs]
    case = {"inputs": inputs, "outputs": outputs, "batched": batched, "given": given, "expected": expected}
    (HERE / f"{name}.json").write_text(json.dumps(case) + "\n")
    print(f"{name:28} {len(data):7} bytes")


def learned(name: str, estimator, table, zipmap: bool = False) -> None:
    """An estimator of scikit-learn, trained on a table that comes with it."""
    rows, targets = table.data.astype(np.float32), table.target
    estimator.fit(rows, targets)
    is_classifier = hasattr(estimator, "classes_")
    options = {id(estimator): {"zipmap": zipmap}} if is_classifier else None
    model = to_onnx(estimator, rows[:1], options=options, target_opset=OPSET)
    write(name, model, {"X": rows[random.permutation(len(rows))[:ROWS]]})


def scikit_learn() -> None:
    wine, diabetes = load_wine(), load_diabetes()
    small = {"n_estimators": 20, "max_depth": 3, "random_state": SEED}
    scaled = lambda estimator: make_pipeline(StandardScaler(), estimator)
    learned("logistic-regression", scaled(LogisticRegression()), wine)
    learned("random-forest", RandomForestClassifier(**small), wine)
    learned("gradient-boosting", GradientBoostingClassifier(**small), wine)
    learned("hist-gradient-boosting", HistGradientBoostingClassifier(max_iter=20, max_depth=3, random_state=SEED), wine)
    learned("mlp", scaled(MLPClassifier((16,), max_iter=300, random_state=SEED)), wine)
    learned("svc", scaled(SVC(random_state=SEED)), wine)
    learned("nearest-neighbours", KNeighborsClassifier(3), wine)
    learned("zipmap", scaled(LogisticRegression()), wine, zipmap=True)
    learned("linear-regressor", LinearRegression(), diabetes)
    learned("random-forest-regressor", RandomForestRegressor(**small), diabetes)
    learned("gradient-boosting-regressor", GradientBoostingRegressor(**small), diabetes)
    learned("hist-gradient-boosting-regressor", HistGradientBoostingRegressor(max_iter=20, max_depth=3, random_state=SEED), diabetes)


def strings() -> None:
    """Columns of words beside columns of numbers, and a text of words; the answers are words too."""
    count = 200
    colours = random.choice(["red", "green", "blue", "naïve 東京"], count)
    sizes = random.choice(["small", "large"], count)
    weight = random.normal(size=(count, 2)).astype(np.float32)
    columns = np.array([colours, sizes], dtype=object).T
    answer = np.where((colours == "red") ^ (weight[:, 0] > 0), "yes", "no")
    table = np.concatenate([columns, weight.astype(object)], axis=1)
    encoder = ColumnTransformer([("words", OneHotEncoder(handle_unknown="ignore"), [0, 1]), ("numbers", StandardScaler(), [2, 3])])
    estimator = make_pipeline(encoder, LogisticRegression()).fit(table, answer)
    types = [("colour", StringTensorType([None, 1])), ("size", StringTensorType([None, 1])), ("weight", FloatTensorType([None, 2]))]
    model = to_onnx(estimator, initial_types=types, options={id(estimator): {"zipmap": False}}, target_opset=OPSET)
    given = columns[:ROWS].copy()
    given[0, 0] = "never seen"
    write("words-and-numbers", model, {"colour": given[:, :1], "size": given[:, 1:], "weight": weight[:ROWS]})

    lines = ["to be or not to be", "the sea and the ship", "my lord the king", "a ship on the sea", "the king my lord is dead", "be it so"]
    subjects = ["self", "sea", "king", "sea", "king", "self"]
    estimator = make_pipeline(TfidfVectorizer(token_pattern="[a-z]+", lowercase=False), LogisticRegression()).fit(lines, subjects)
    model = to_onnx(estimator, initial_types=[("text", StringTensorType([None, 1]))], options={id(estimator): {"zipmap": False}}, target_opset=OPSET)
    given = np.array([["the king of the sea"], ["to be a ship"], ["nothing known"]], dtype=object)
    write("text", model, {"text": given})


def graph(name: str, nodes: list, inputs: list, outputs: list, weights: dict[str, np.ndarray], feeds: dict, **more) -> None:
    value = lambda one: helper.make_tensor_value_info(*one)
    initial = [numpy_helper.from_array(values, key) for key, values in weights.items()]
    body = helper.make_graph(nodes, name, [value(one) for one in inputs], [one if not isinstance(one, tuple) else value(one) for one in outputs], initial)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9, producer_name="rialto")
    checker.check_model(model)
    write(name, model, feeds, **more)


def weights(*shape: int) -> np.ndarray:
    """Random, of the size that keeps a signal's size."""
    fan = np.prod(shape[1:]) if len(shape) > 1 else 1
    return (random.normal(size=shape) / np.sqrt(fan)).astype(np.float32)


def images() -> None:
    node = helper.make_node
    body = [
        node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1]), node("Relu", ["c1"], ["r1"]),
        node("MaxPool", ["r1"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["p1", "w2", "b2"], ["c2"], pads=[1, 1, 1, 1]), node("Relu", ["c2"], ["r2"]),
        node("MaxPool", ["r2"], ["p2"], kernel_shape=[2, 2], strides=[2, 2]), node("Flatten", ["p2"], ["f"]),
        node("Gemm", ["f", "w3", "b3"], ["logits"], transB=1), node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]  # fmt: skip
    layers = lambda channels, side: {"w1": weights(8, channels, 3, 3), "b1": weights(8), "w2": weights(16, 8, 3, 3), "b2": weights(16),
                                     "w3": weights(10, 16 * (side // 4) ** 2), "b3": weights(10)}
    out = ("probabilities", TensorProto.FLOAT, ["batch", 10])
    digits = random.random((ROWS, 1, 28, 28)).astype(np.float32)
    graph("cnn", body, [("x", TensorProto.FLOAT, ["batch", 1, 28, 28])], [out], layers(1, 28), {"x": digits})

    # As cameras give them: bytes, the colours last.
    from_bytes = [
        node("Cast", ["image"], ["cast"], to=TensorProto.FLOAT), node("Div", ["cast", "most"], ["unit"]),
        node("Transpose", ["unit"], ["x"], perm=[0, 3, 1, 2]), *body, node("ArgMax", ["probabilities"], ["class"], axis=1, keepdims=0),
    ]  # fmt: skip
    picture = random.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    out = [out, ("class", TensorProto.INT64, ["batch"])]
    graph("image", from_bytes, [("image", TensorProto.UINT8, ["batch", 32, 32, 3])], out,
          layers(3, 32) | {"most": np.array(255, np.float32)}, {"image": picture})


def sequences() -> None:
    """A recurrent network over any number of steps, time first: its first dimension is no batch."""
    node, hidden = helper.make_node, 12
    nodes = [node("GRU", ["steps", "w", "r"], ["all", "last"], hidden_size=hidden), node("Squeeze", ["last", "zero"], ["state"]),
             node("Gemm", ["state", "v"], ["next"])]
    parts = {"w": weights(1, 3 * hidden, 4), "r": weights(1, 3 * hidden, hidden), "v": weights(hidden, 4), "zero": np.array([0])}
    graph("gru", nodes, [("steps", TensorProto.FLOAT, ["time", "batch", 4])], [("next", TensorProto.FLOAT, ["batch", 4])], parts,
          {"steps": weights(9, 2, 4)}, batched=False)
    nodes = [node("Transpose", ["x"], ["steps"], perm=[1, 0, 2]), node("LSTM", ["steps", "w", "r", "", "lengths"], ["all", "last"], hidden_size=hidden),
             node("Squeeze", ["last", "zero"], ["state"])]
    parts = {"w": weights(1, 4 * hidden, 4), "r": weights(1, 4 * hidden, hidden), "zero": np.array([0])}
    graph("lstm-lengths", nodes, [("x", TensorProto.FLOAT, ["batch", "time", 4]), ("lengths", TensorProto.INT32, ["batch"])],
          [("state", TensorProto.FLOAT, ["batch", hidden])], parts, {"x": weights(3, 6, 4), "lengths": np.array([6, 2, 4], np.int32)})
    pieces = helper.make_tensor_sequence_value_info("pieces", TensorProto.FLOAT, None)
    graph("sequence-of-tensors", [node("SplitToSequence", ["x"], ["pieces"], axis=0)], [("x", TensorProto.FLOAT, ["batch", 2])], [pieces], {},
          {"x": weights(3, 2)}, declared={"pieces": "FP32"})


def types_and_ranks() -> None:
    """Every element type comes back as it went, in ranks from none to six."""
    kinds = [
        ("BOOL", TensorProto.BOOL, np.array([True, False])), ("UINT8", TensorProto.UINT8, np.array([0, 255], np.uint8)),
        ("INT8", TensorProto.INT8, np.array([-128, 127], np.int8)), ("UINT16", TensorProto.UINT16, np.array([0, 65535], np.uint16)),
        ("INT16", TensorProto.INT16, np.array([-32768, 32767], np.int16)), ("UINT32", TensorProto.UINT32, np.array([0, 2**32 - 1], np.uint32)),
        ("INT32", TensorProto.INT32, np.array([-(2**31), 2**31 - 1], np.int32)), ("UINT64", TensorProto.UINT64, np.array([0, 2**64 - 1], np.uint64)),
        ("INT64", TensorProto.INT64, np.array([-(2**63), 2**63 - 1])), ("FP16", TensorProto.FLOAT16, np.array([-0.0, 65504], np.float16)),
        ("FP32", TensorProto.FLOAT, np.array([-0.0, np.inf], np.float32)), ("FP64", TensorProto.DOUBLE, np.array([5e-324, -np.inf])),
        ("BYTES", TensorProto.STRING, np.array(["", "naïve 東京 🙂"], dtype=object)),
    ]  # fmt: skip
    nodes, inputs, outputs, feeds = [], [], [], {}
    for rank, (name, kind, values) in enumerate(kinds):
        shape = [2] + [1] * (rank % 6)
        nodes.append(helper.make_node("Identity", [name], [f"{name}_out"]))
        inputs.append((name, kind, ["batch", *shape[1:]]))
        outputs.append((f"{name}_out", kind, ["batch", *shape[1:]]))
        feeds[name] = values.reshape(shape)
    graph("types", nodes, inputs, outputs, {}, feeds)
    node = helper.make_node
    graph("scalar", [node("Mul", ["factor", "cube"], ["product"]), node("ReduceSum", ["product"], ["sum"], keepdims=0)],
          [("factor", TensorProto.DOUBLE, []), ("cube", TensorProto.DOUBLE, [2, 3, 2, 1, 2, 2])],
          [("product", TensorProto.DOUBLE, [2, 3, 2, 1, 2, 2]), ("sum", TensorProto.DOUBLE, [])], {},
          {"factor": np.array(-0.1), "cube": random.random((2, 3, 2, 1, 2, 2))}, batched=False)
    # The first dimension is open and no batch: each row is compared with all.
    graph("row-against-row", [node("ReduceMean", ["x"], ["mean"], keepdims=1), node("Sub", ["x", "mean"], ["centred"])],
          [("x", TensorProto.FLOAT, ["batch", 2])], [("centred", TensorProto.FLOAT, ["batch", 2])], {}, {"x": weights(4, 2)})
    # Fails where an index is out of bounds: one request's fault must not be another's.
    graph("lookup", [node("Gather", ["table", "index"], ["row"])], [("index", TensorProto.INT64, ["batch"])],
          [("row", TensorProto.FLOAT, ["batch", 3])], {"table": weights(5, 3)}, {"index": np.array([4, 0, 2])})


def vectors() -> None:
    """A vector for each token, made of its number: what a transformer gives, without the transformer. No case: the test
    knows the numbers."""
    node = helper.make_node
    nodes = [node("Add", ["input_ids", "token_type_ids"], ["ids"]), node("Mul", ["ids", "attention_mask"], ["seen"]),
             node("Cast", ["seen"], ["numbers"], to=TensorProto.FLOAT), node("Unsqueeze", ["numbers", "last"], ["column"]),
             node("Mul", ["column", "waves"], ["angles"]), node("Sin", ["angles"], ["last_hidden_state"])]
    ids = lambda name: helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
    out = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["batch", "tokens", 4])
    initial = [numpy_helper.from_array(np.array([2]), "last"), numpy_helper.from_array(np.array([1, 0.1, 0.01, 0.001], np.float32), "waves")]
    body = helper.make_graph(nodes, "token-vectors", [ids("input_ids"), ids("attention_mask"), ids("token_type_ids")], [out], initial)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9, producer_name="rialto")
    checker.check_model(model)
    (HERE / "token-vectors.onnx").write_bytes(model.SerializeToString())


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    scikit_learn()
    strings()
    images()
    sequences()
    types_and_ranks()
    vectors()
