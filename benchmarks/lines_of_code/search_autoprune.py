"""Search how much of every layer to keep, within half of the parameters, and save the network: with autoprune."""

import autoprune

result = autoprune.search(model="path/to/model", data="text.txt", budgets="50%", max_evals=60, out="runs/search")
print(result)
result.export("smaller")
