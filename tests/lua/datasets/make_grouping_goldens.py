"""Orders of transformers' get_length_grouped_indices (5.23) from given permutations, for grouped_spec.lua.

Writes grouping_goldens.json beside itself: python make_grouping_goldens.py
"""
import json
import pathlib
import random

import torch
from transformers.trainer_pt_utils import get_length_grouped_indices

random.seed(11)
cases = []
for n, batch, most in ((1, 4, 9), (7, 4, 9), (16, 4, 5), (40, 2, 30), (64, 8, 1000), (450, 2, 90)):
    lengths = [random.randrange(1, most) for _ in range(n)]
    lengths[random.randrange(n)] = most  # argmax of several equal ones is anybody's
    permutation = random.sample(range(n), n)
    torch.randperm = lambda count, generator=None: torch.tensor(permutation)
    cases.append({"lengths": lengths, "batch_size": batch, "permutation": permutation,
                  "order": get_length_grouped_indices(lengths, batch)})
(pathlib.Path(__file__).parent / "grouping_goldens.json").write_text(json.dumps(cases) + "\n")
