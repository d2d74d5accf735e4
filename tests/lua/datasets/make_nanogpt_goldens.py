"""Rows of NeMo Automodel's NanogptDataset, and numbers of NumPy's and Python's generators, for
nanogpt_spec.lua and mt19937_spec.lua.

Writes nanogpt_goldens.json beside itself. Needs the packages nemo-automodel (0.7.0) and torch.
"""
import itertools
import json
import pathlib
import random
import tempfile
import types

import numpy as np

from nemo_automodel.components.datasets.llm import nanogpt_dataset as original

HERE = pathlib.Path(__file__).parent
random.seed(3)
BOS = 7

# A shard: the first four numbers of its header, and its tokens.
SHARDS = {}


def shard(name, n, legacy=False, width=2):
    tokens = [BOS if k % 11 in (4, 9) else random.randrange(8, 200 if width == 2 else 70000) for k in range(n)]
    head = [original.LEGACY_MAGIC if legacy else original.MAGIC, 1, n, 0 if legacy else width]
    SHARDS[name] = dict(head=head, width=width, tokens=tokens)


shard("a.bin", 41)
shard("b.bin", 30, legacy=True)
shard("c.bin", 23, width=4)
shard("d.bin", 5)


def rows(folder, names, take, rank=0, world=1, **options):
    worker = types.SimpleNamespace(id=0, num_workers=1)
    original.get_worker_info = lambda: worker
    original._get_worker_id_and_total_workers = lambda _: (rank, world)
    pattern = names if isinstance(names, str) else None
    dataset = original.NanogptDataset(
        str(folder / pattern) if pattern else [str(folder / n) for n in names], **options)
    found = [[r["input_ids"], r["labels"]] for r in itertools.islice(iter(dataset), take)]
    assert all(i[1:] == l[:-1] for i, l in found)
    return dict(files=names, rank=rank, world=world, options=options, rows=[i + l[-1:] for i, l in found])


def generators():
    state = np.random.RandomState(1234)
    shuffled = [np.arange(n) for n in (1, 2, 3, 16, 17, 700)]
    for array in shuffled:
        state.shuffle(array)
    python = random.Random()
    python.seed(12345)
    lists = [list(range(n)) for n in (1, 2, 5, 33)]
    for values in lists:
        python.shuffle(values)
    other = random.Random(0)
    return dict(numpy=[a.tolist() for a in shuffled], python=lists,
                numpy_words=[int(x) for x in np.random.RandomState(4294967295).randint(0, 2**32, 700, dtype=np.uint32)][-4:],
                random=[other.random() for _ in range(3)], gauss=[other.gauss(20.0, 6.0) for _ in range(5)])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for file, spec in SHARDS.items():
            header = np.zeros(256, dtype=np.int32)
            header[:4] = spec["head"]
            tokens = np.array(spec["tokens"], dtype=np.uint16 if spec["width"] == 2 else np.uint32)
            (folder / file).write_bytes(header.tobytes() + tokens.tobytes())
        cases = [
            rows(folder, "*.bin", 30, seq_len=8),
            rows(folder, "[a-c].bin", 12, seq_len=8, bos_token=BOS, align_to_bos=True),
            rows(folder, ["c.bin", "a.bin"], 12, seq_len=22),
            rows(folder, "*.bin", 40, seq_len=4, shuffle_files=True),
            rows(folder, "*.bin", 10, seq_len=4, rank=1, world=2),
            rows(folder, "?.bin", 10, seq_len=4, rank=0, world=3),
            rows(folder, "a.bin", 8, seq_len=4, rank=1, world=3),
            rows(folder, "a.bin", 8, seq_len=4, rank=2, world=3, bos_token=BOS, align_to_bos=True),
        ]
        for spec in SHARDS.values():
            spec["hex"] = (folder / next(k for k, v in SHARDS.items() if v is spec)).read_bytes()[1024:].hex()
            del spec["tokens"]
    parts = dict(shards=[dict(name=k, **v) for k, v in SHARDS.items()], cases=cases, generators=[generators()])
    text = ",\n".join(f'"{key}": [\n' + ",\n".join(map(json.dumps, value)) + "\n]" for key, value in parts.items())
    (HERE / "nanogpt_goldens.json").write_text("{\n" + text + "\n}\n")
