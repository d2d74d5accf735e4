"""Packs and batches of NeMo Automodel's pack_dataset and default_collater, for packed_spec.lua and
collate_spec.lua.

Writes packing_goldens.json beside itself. Needs the packages nemo-automodel (0.7.0), pillow, torchdata,
datasets, transformers and torch: PYTHONPATH=<unpacked nemo-automodel> python make_packing_goldens.py
"""
import json
import pathlib
import random

import torch

from nemo_automodel.components.datasets.llm import neat_packing, packed_sequence
from nemo_automodel.components.datasets.utils import default_collater

random.seed(7)


class Columns:
    """Stands for datasets.Dataset, whose fingerprinting is not needed here: the packs as they were given."""

    @staticmethod
    def from_dict(columns):
        return [dict(zip(columns, row)) for row in zip(*columns.values())]


packed_sequence.Dataset = neat_packing.Dataset = Columns


def sample(n):
    ids = [random.randrange(2, 50) for _ in range(n + 1)]
    learnt = random.randrange(0, n)
    return dict(input_ids=ids[:-1], labels=[-100] * learnt + ids[learnt + 1:])


def packing(lengths, size, **options):
    rows = [sample(n) for n in lengths]
    packs = packed_sequence.pack_dataset([dict(row) for row in rows], None, size, **options)
    keys = ("input_ids", "labels", "position_ids", "seq_lens")
    return dict(rows=rows, size=size, options=options, packs=[{k: p[k].tolist() for k in keys} for p in packs])


def context_parallel(lengths, size, **options):
    golden = packing(lengths, size, **options)
    packs = packed_sequence.pack_dataset([dict(row) for row in golden["rows"]], None, size, **options)
    for pack, row in zip(golden["packs"], packs):
        pack["seq_lens_padded"] = row["seq_lens_padded"].tolist()
    return golden


def neat(lengths, size, **options):
    rows = [sample(n) for n in lengths]
    packs = neat_packing.neat_pack_dataset(dict(train=[dict(row) for row in rows]), "train", size, **options)
    keys = ("input_ids", "labels", "position_ids", "attention_mask")
    return dict(rows=rows, size=size, options=options, packs=[{k: p[k].tolist() for k in keys} for p in packs])


def masked(seq_lens):
    mask = packed_sequence.create_block_causal_mask([torch.tensor(row) for row in seq_lens])
    return dict(seq_lens=seq_lens, shape=list(mask.shape), mask="".join(str(int(x)) for x in mask.flatten()))


def collating(lengths, **options):
    rows = [sample(n) for n in lengths]
    batch = default_collater([dict(row) for row in rows], **options)
    return dict(rows=rows, options=options, batch={k: batch[k].tolist() for k in ("input_ids", "labels")})


if __name__ == "__main__":
    goldens = dict(
        packing=[
            packing([3, 4, 2, 5, 1, 1], 8),
            packing([4, 4, 8, 4, 4], 8),                 # exact fits
            packing([9, 3, 12, 5], 8),                   # oversize ones are dropped
            packing([1], 1),
            packing([1, 1, 1], 1),
            packing([5, 5, 5, 5, 5], 7, max_packs=3),
            packing([random.randrange(1, 30) for _ in range(40)], 33, padding_idx=1),
        ],
        collating=[
            collating([3, 5, 1]), collating([4], pad_seq_len_divisible=4), collating([5, 2], pad_seq_len_divisible=4),
            collating([1]),
        ],
        context_parallel=[
            context_parallel([3, 4, 2, 5, 1, 1], 16, cp_size=2),
            context_parallel([random.randrange(1, 20) for _ in range(12)], 24, cp_size=3, padding_idx=1),
        ],
        neat=[
            neat([3, 4, 2, 5, 1, 1], 8),
            neat([4, 4, 8, 4, 4], 8),
            neat([9, 3, 12, 5], 8, drop_long_samples=True),
            neat([5, 5, 5, 5, 5], 7, max_packs=3),
            neat([random.randrange(1, 30) for _ in range(40)], 33, padding_idx=1),
        ],
        masks=[masked([[3, 2, 1]]), masked([[1, 4], [2, 3], [5]])],
    )
    text = ",\n".join(f'"{key}": [\n' + ",\n".join(map(json.dumps, value)) + "\n]" for key, value in goldens.items())
    pathlib.Path(__file__).with_name("packing_goldens.json").write_text("{\n" + text + "\n}\n")
