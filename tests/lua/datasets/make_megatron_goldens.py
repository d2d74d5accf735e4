"""Rows of NeMo Automodel's MegatronPretraining, the bytes of the files they come from, and NumPy's sums of
weights, for megatron_spec.lua.

Writes megatron_goldens.json beside itself. Needs the packages nemo-automodel (0.7.0), torch, transformers,
and ninja with a C++ compiler, which builds the original's helpers.
"""
import json
import pathlib
import random
import tempfile
import types

import numpy as np
import torch

from nemo_automodel.components.datasets.llm.megatron import gpt_dataset, indexed_dataset
from nemo_automodel.components.datasets.llm.megatron_dataset import MegatronPretraining

HERE = pathlib.Path(__file__).parent
random.seed(11)
EOS = 3


def write(folder, name, dtype, lengths, first):
    """Documents of counting tokens, each ended by EOS; a length of 0 is an empty sequence."""
    builder = indexed_dataset.IndexedDatasetBuilder(str(folder / (name + ".bin")), dtype=dtype)
    token = first
    for n in lengths:
        ids = [token + k for k in range(n - 1)] + [EOS] if n else []
        token += n
        builder.add_item(torch.tensor(ids, dtype=torch.int64))
        builder.end_document()
    builder.finalize(str(folder / (name + ".idx")))
    return dict(name=name, width=np.dtype(dtype).itemsize,
                documents=[n for n in lengths], first=first,
                idx=(folder / (name + ".idx")).read_bytes().hex(), bin=(folder / (name + ".bin")).read_bytes().hex())


def summed(row):
    text = row["input_ids"].tolist() + row["labels"].tolist()[-1:]
    return [text[0], sum((t + 1) * x for t, x in enumerate(text))]


def case(folder, which, paths, whole_rows=False, pad=None, eos=EOS, **options):
    def absolute(p):
        if isinstance(p, dict):
            return {k: absolute(v) for k, v in p.items()}
        if isinstance(p, list):
            return [absolute(v) for v in p]
        return str(folder / p) if not isinstance(p, (int, float)) and not p.replace(".", "").isdigit() else p

    tokenizer = types.SimpleNamespace(pad_token_id=pad, eos_token_id=eos, name_or_path="none")
    built = MegatronPretraining(absolute(paths), tokenizer=tokenizer, splits_to_build=which, **options)
    built.build()
    dataset = built.get_dataset(which)
    dataset.masks_and_position_ids_are_cacheable = False  # else what one row masks stays masked in all others
    rows = [dataset[i] for i in range(len(dataset))]
    golden = dict(paths=paths, split_to_build=which, options=options, pad=pad, eos=eos, rows=[summed(r) for r in rows])
    if whole_rows:
        for row in rows:
            row["labels"] = row["labels"].clone()  # they share memory with input_ids
            row["labels"][row["loss_mask"] == 0] = -100
        golden["rows"] = [[r["input_ids"].tolist(), r["labels"].tolist()] for r in rows]
    return golden


def boundaries():
    """What the original's masks and positions are where documents are kept apart."""
    out = []
    for ids in ([5, 6, EOS, 7, EOS, EOS, 8, 9], [EOS, 5, 6, 7], [5, 6, 7, EOS], [5, 6]):
        mask, loss, positions = gpt_dataset._get_ltor_masks_and_position_ids(
            torch.tensor(ids), EOS, True, True, True, True)
        first_seen = [[int(x) for x in row].index(0) for row in mask[0]]
        out.append(dict(ids=ids, positions=positions.tolist(), loss_mask=[int(x) for x in loss], first_seen=first_seen))
    return out


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        files = [
            write(folder, "a", np.uint16, [random.randrange(1, 14) for _ in range(37)], 10),
            write(folder, "b", np.int32, [6, 0, 17, 1, 9, 0, 12, 3, 8, 5, 30, 2, 7], 70000),
            write(folder, "c", np.uint8, [4, 7, 5, 9, 11, 6, 3, 8, 10], 100),
        ]
        (folder / "blend.json").write_text(json.dumps([30, str(folder / "a"), 70, str(folder / "b")]))
        (folder / "splits.json").write_text(json.dumps(
            dict(train=["0.2", str(folder / "c"), "0.8", str(folder / "a")], valid=[str(folder / "b")])))
        few = dict(seq_length=8, global_batch_size=2)
        cases = [
            case(folder, "train", ["a"], seq_length=8),
            case(folder, "validation", "a", seq_length=8, split="600,300,100"),
            case(folder, "test", ["a"], seq_length=4, split="0.8, 0.1, 0.1", seed=7),
            case(folder, "train", ["b"], split="1", **few),
            case(folder, "train", ["a"], trainer_max_steps=36, **few),                      # two epochs and a bit
            case(folder, "train", ["a"], trainer_max_steps=52, **few),                      # nearly three
            case(folder, "train", ["c"], trainer_max_steps=3, num_train_samples=70, seed=99, split="1,0,0", **few),
            case(folder, "validation", ["a"], trainer_max_steps=20, trainer_val_check_interval=5,
                 trainer_limit_val_batches=2, split="50,50", **few),
            case(folder, "validation", ["a"], num_val_samples=3, split="50,50", **few),
            case(folder, "train", ["30", "a", "70", "b"], trainer_max_steps=20, split="100", **few),
            case(folder, "train", ["a", "b"], split="100", **few),
            case(folder, "train", ["a", "b", "c"], split="90,10", **few),
            case(folder, "train", ["a", "b", "c"], trainer_max_steps=10, split="90,10", **few),
            case(folder, "validation", ["0.1", "a", "0.7", "b", "0.2", "a"], num_val_samples=9, trainer_max_steps=9,
                 split="40,60", **few),
            case(folder, "train", [x for k in range(9) for x in (str(0.1 * (k + 1)), "abc"[k % 3])],
                 trainer_max_steps=60, split="100", **few),
            case(folder, "train", dict(train=["2", "a", "1", "b"], validation=["c"], test=["b"]), trainer_max_steps=9,
                 **few),
            case(folder, "validation", dict(train=["2", "a", "1", "b"], validation=["c"]), trainer_max_steps=9,
                 trainer_val_check_interval=2, **few),
            case(folder, "train", "blend.json", trainer_max_steps=12, split="1", **few),
            case(folder, "train", "splits.json", trainer_max_steps=12, **few),
            case(folder, "validation", "splits.json", **few),
            case(folder, "train", "[ac].bin", split="1", **few),
            case(folder, "train", ["c"], whole_rows=True, pad=EOS, split="1", **few),       # padding is the eos
            case(folder, "train", ["c"], whole_rows=True, pad=101, split="1", **few),
            case(folder, "train", ["c"], whole_rows=True, pad=EOS, eos=None, split="1", **few),
        ]
    weights = [[random.random() for _ in range(n)] for n in (3, 8, 21, 128, 300)]
    parts = dict(files=files, cases=cases, boundaries=boundaries(),
                 normalized=[dict(weights=w, expected=gpt_dataset.normalize(w)[:3]) for w in weights])
    text = ",\n".join(f'"{key}": [\n' + ",\n".join(map(json.dumps, value)) + "\n]" for key, value in parts.items())
    (HERE / "megatron_goldens.json").write_text("{\n" + text + "\n}\n")
