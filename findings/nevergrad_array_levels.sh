#!/usr/bin/env bash
# Nevergrad: "random search" over a vector of bounded integer levels is not uniform.
#
# Versions: nevergrad 1.0.12, numpy 2.2.6, Python 3.11.
#
# guess: RandomSearch over ng.p.Array(lower=0, upper=8) with integer casting
#        draws each of the nine levels equally often (about 11 %), as the same
#        nine levels do when each layer is a Scalar of its own.
#
# Seen:  it does not. Each entry of the Array follows a bell around the middle
#        of the range: level 4 comes out more than 50 times as often as level 0.
#        The same bounds written as one Scalar per layer are drawn evenly,
#        except that the two end levels get half a share each (rounding a
#        uniform number leaves them half a bin).
#        A TransitionChoice gives every level its full share.
#
# Output seen (share of each level 0..8, in per cent):
#   Array             0.3  2.6 10.0 22.4 29.8 22.2  9.8  2.5  0.4
#   Scalars           6.7 12.7 12.7 12.4 12.4 12.2 12.3 12.4  6.3
#   TransitionChoice 11.6 11.2 11.3 11.0 11.0 11.0 10.7 11.0 11.2
#
# Why it matters: with one level per layer, a "random" baseline written with the
#        Array hardly ever keeps a layer whole and hardly ever drops one. It
#        looks like a search near a uniform width, and is no fair baseline.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q nevergrad==1.0.12 numpy==2.2.6
"$work/venv/bin/python" -W ignore - <<'PY'
import numpy as np
import nevergrad as ng

LAYERS, LEVELS, DRAWS = 6, 9, 4000

def shares(space, read):
    space.random_state.seed(0)
    search = ng.optimizers.RandomSearch(parametrization=space, budget=DRAWS)
    count = np.zeros(LEVELS)
    for _ in range(DRAWS):
        for level in read(search.ask()):
            count[int(level)] += 1
    return 100 * count / count.sum()

array = shares(ng.p.Array(shape=(LAYERS,), lower=0, upper=LEVELS - 1).set_integer_casting(),
               lambda c: c.value)
scalars = shares(ng.p.Instrumentation(*[
    ng.p.Scalar(lower=0, upper=LEVELS - 1).set_integer_casting() for _ in range(LAYERS)]),
    lambda c: c.args)
choices = shares(ng.p.Instrumentation(*[
    ng.p.TransitionChoice(list(range(LEVELS))) for _ in range(LAYERS)]),
    lambda c: c.args)
for name, s in (("Array", array), ("Scalars", scalars), ("TransitionChoice", choices)):
    print(f"{name:16s}", " ".join(f"{x:4.1f}" for x in s))

assert array[4] > 20 * array[0] and array[4] > 20 * array[8], "the Array is no longer bell-shaped"
inner = scalars[1:-1].mean()
assert 0.4 < scalars[0] / inner < 0.6 and 0.4 < scalars[8] / inner < 0.6, "Scalar ends no longer half"
assert choices.min() > 9.5 and choices.max() < 12.7, "TransitionChoice is no longer uniform"
print("CONFIRMED: random search over an Array of levels is bell-shaped")
PY
