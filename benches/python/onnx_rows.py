"""Runs a model through Python's onnxruntime, as often as it is told to, and says what that took.

    python onnx_rows.py MODEL.onnx ROWS.f32 COLUMNS

ROWS.f32 holds single-precision rows. Each line of standard input is `ROWS RUNS`; each line of standard output is a JSON
object with nanoseconds of processor time for a run, and microseconds of the median and the 99th percentile.
"""

import json
import sys
import time

import numpy as np
import onnxruntime


def main() -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    table = np.fromfile(sys.argv[2], np.float32).reshape(-1, int(sys.argv[3]))
    for line in sys.stdin:
        rows, runs = map(int, line.split())
        feed = {name: np.ascontiguousarray(table[:rows])}
        session.run(None, feed)
        times = []
        cpu = time.process_time_ns()
        for _ in range(runs):
            began = time.perf_counter_ns()
            session.run(None, feed)
            times.append(time.perf_counter_ns() - began)
        cpu = (time.process_time_ns() - cpu) / runs
        times.sort()
        figures = {"cpu_nanos": cpu, "p50": times[runs // 2] / 1e3, "p99": times[runs * 99 // 100] / 1e3}
        print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
