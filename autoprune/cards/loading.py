"""How an export is loaded, form by form, as its card says it."""

from dataclasses import dataclass

from autoprune.cards.markdown import code

_IMPORT = """Its layers have widths of their own, which stock transformers does not build. With autoprune imported, at
any time before the network is loaded, it does:

```python
import autoprune  # pip install autoprune
from transformers import {auto}

model = {auto}.from_pretrained("this directory")
```

Tools that load networks themselves are started with that import, as lm-eval:

```sh
python -c "import autoprune; from lm_eval.__main__ import cli_evaluate; cli_evaluate()" \\
    --model hf --model_args pretrained=DIRECTORY --tasks arc_easy
```

Without it, transformers says that it does not recognize the type `autoprune` and that it may be out of date: another
version of it does not help.
"""

_NATIVE = (
    _IMPORT
    + """
**Without autoprune:** `autoprune export RUN DIRECTORY --uniform` writes the uniform form, a stock {base} padded with
zeros, which transformers and whatever builds on it load as it is, with the same outputs.
"""
)

_TRAINED = (
    _IMPORT
    + """
It was trained after it was cut. `autoprune export`, in any form, writes the network as the search found it.
"""
)

_UNIFORM = """It is a stock {base}, whose layers are padded with zeros to the shape of one: nothing but transformers is
needed.

```python
from transformers import {auto}

model = {auto}.from_pretrained("this directory")
```

The form without the zeros is written by `autoprune export RUN DIRECTORY`.
"""

_PACKED = """It is a stock {base} whose weights are packed in few bits, in the layout of compressed-tensors.

```python
from transformers import {auto}  # and: pip install compressed-tensors

model = {auto}.from_pretrained("this directory")
```

`autoprune export RUN DIRECTORY` writes the same network with its weights multiplied out, which needs no package.
"""

_PACKED_WIDTHS = (
    """Its weights are packed in few bits, in the layout of compressed-tensors (`pip install compressed-tensors`). """
    + _IMPORT
)

_MODULE = """torch and safetensors are enough. `dense` is the module that {base} makes, with or without its weights.

```python
import sys

sys.path.insert(0, "this directory")
from load_module import load

network = load(dense)
```
"""

_ONNX = """One graph in float32 for onnxruntime. It reads {base}; `config.json` says what goes in and comes out.

```python
import onnxruntime

session = onnxruntime.InferenceSession("this directory/model.onnx")
logits = session.run(None, {{session.get_inputs()[0].name: array}})[0]
```
"""

_POLICY = """This directory holds the policy alone: what is kept of every unit of {base}, and no weights.

```python
import autoprune

policy = autoprune.Policy.load("this directory/policy.json")
```

`autoprune export RUN DIRECTORY` writes the network.
"""


@dataclass(frozen=True)
class Form:
    """A form of export.

    Args:
        text: how it is loaded; `{base}` and `{auto}` are filled in.
        library: what loads it, as hubs call it.
        options: what `autoprune export` is given for it.
    """

    text: str
    library: str
    options: str

    def told(self, base: str, auto: str) -> str:
        """How it is loaded.

        Args:
            base: the class, function, input or network that the text names.
            auto: the auto class.
        """
        return self.text.format(base=code(base), auto=auto)


NATIVE = Form(_NATIVE, "transformers", "--to hf")
TRAINED = Form(_TRAINED, "transformers", "")
UNIFORM = Form(_UNIFORM, "transformers", "--to hf --uniform")
PACKED = Form(_PACKED, "transformers", "--to compressed-tensors")
PACKED_WIDTHS = Form(_PACKED_WIDTHS, "transformers", "--to compressed-tensors")
MODULE = Form(_MODULE, "pytorch", "--to module")
TRAINED_MODULE = Form(_MODULE, "pytorch", "")
ONNX = Form(_ONNX, "onnx", "--to onnx")
POLICY = Form(_POLICY, "autoprune", "--to policy")
