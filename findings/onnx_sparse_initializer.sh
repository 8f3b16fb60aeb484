#!/usr/bin/env bash
# ONNX's own sparse weights: the runtime takes them, the tools around it do not,
# and one of them writes a broken model without an error.
#
# Versions: onnx 1.23.2, onnxruntime 1.32.0, onnx-ir 1.1.0, onnxscript 0.7.2,
#           onnxslim 0.1.98, numpy 2.2.6, Python 3.11.
#
# guess: sparse_initializer has been in the ONNX standard for years, so the
#        standard's reference evaluator, its shape inference, its version
#        converter and the usual optimisers and quantisers know it, and a
#        half-sparse matrix takes about half of the space.
#
# Seen:  the checker passes the model and onnxruntime runs it exactly, as does
#        onnxslim's output. But full_check (shape inference) calls the valid
#        matrix a scalar and raises; the reference evaluator raises; the
#        version converter raises "Input w is undefined"; quantize_dynamic
#        raises; onnx-ir loses the weights in a plain round trip with one log
#        line; and onnxscript's optimizer hands back, without an error, a model
#        that onnxruntime refuses. A half-sparse float matrix takes 1.5 times
#        the bytes of the dense one, as every kept value carries an int64 index.
#
# Output seen:
#   checker: ok
#   onnxruntime: difference below 1e-5
#   onnxslim: difference below 1e-5
#   checker with full_check: InferenceError
#   reference evaluator: ValueError
#   version converter: ConvertError
#   quantize_dynamic: RuntimeError
#   onnx-ir round trip: 0 weights left
#   onnxscript optimizer: returns a model; onnxruntime: InvalidArgument
#   bytes: dense 65536, sparse 98345
#
# Why it matters: unstructured pruning looks like the perfect user of this
#        field. In practice it enlarges the file below two thirds sparsity and
#        shuts out quantisation and optimisation. Export zeros in a dense tensor,
#        or prune whole channels.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q onnx==1.23.2 onnxruntime==1.32.0 onnx-ir==1.1.0 \
    onnxscript==0.7.2 onnxslim==0.1.98 numpy==2.2.6
cd "$work"
venv/bin/python -W ignore - <<'PY'
import logging
import numpy as np
import onnx
import onnx_ir
import onnxruntime as ort
import onnxscript.optimizer
import onnxslim
from onnx import TensorProto, helper, version_converter
from onnx.reference import ReferenceEvaluator
from onnxruntime.quantization import quantize_dynamic

logging.disable(logging.WARNING)
random = np.random.default_rng(0)
dense = random.standard_normal((128, 128)).astype(np.float32)
dense[np.abs(dense) < np.median(np.abs(dense))] = 0
where = np.flatnonzero(dense)
values = helper.make_tensor("w", TensorProto.FLOAT, [where.size], dense.ravel()[where].tobytes(), raw=True)
places = helper.make_tensor("w_at", TensorProto.INT64, [where.size], where.astype(np.int64).tobytes(), raw=True)
weight = helper.make_sparse_tensor(values, places, [128, 128])
graph = helper.make_graph(
    [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])], "g",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 128])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 128])],
    sparse_initializer=[weight])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
onnx.save(model, "sparse.onnx")
x = random.standard_normal((5, 128)).astype(np.float32)

def difference(m):
    got = ort.InferenceSession(m.SerializeToString()).run(None, {"x": x})[0]
    return float(np.abs(got - np.maximum(x @ dense, 0)).max())

def raises(name, call):
    try:
        call()
    except Exception as error:
        print(f"{name}: {type(error).__name__}")
        return
    raise SystemExit(f"{name} no longer raises")

onnx.checker.check_model(model)
print("checker: ok")
for name, m in (("onnxruntime", model), ("onnxslim", onnxslim.slim("sparse.onnx"))):
    assert difference(m) < 1e-4
    print(f"{name}: difference {difference(m):.1e}")
raises("checker with full_check", lambda: onnx.checker.check_model(model, full_check=True))
raises("reference evaluator", lambda: ReferenceEvaluator(model).run(None, {"x": x}))
raises("version converter", lambda: version_converter.convert_version(model, 18))
raises("quantize_dynamic", lambda: quantize_dynamic("sparse.onnx", "int8.onnx"))
back = onnx_ir.to_proto(onnx_ir.from_proto(model)).graph
left = len(back.initializer) + len(back.sparse_initializer)
print(f"onnx-ir round trip: {left} weights left")
assert left == 0, "onnx-ir now keeps sparse weights"
broken = onnxscript.optimizer.optimize(model)
print("onnxscript optimizer: returns a model")
raises("that model in onnxruntime", lambda: difference(broken))
print(f"bytes: dense {dense.nbytes}, sparse {weight.ByteSize()}")
assert weight.ByteSize() > 1.45 * dense.nbytes
print("CONFIRMED: valid sparse weights run in onnxruntime and fail in six tools around it")
PY
