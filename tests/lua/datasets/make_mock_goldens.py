"""Blocks of NeMo Automodel's mock_packed, for mock_packed_spec.lua.

Writes mock_goldens.json beside itself. Needs the packages nemo-automodel (0.7.0) and datasets.
"""
import json
import pathlib

from nemo_automodel.components.datasets.llm import mock_packed

CASES = [
    dict(num_blocks=3, block_size=32, mean_len=10, std_len=3, vocab_size=50),
    dict(num_blocks=2, block_size=64, seed=42),
    dict(num_blocks=4, block_size=9, mean_len=0, std_len=5, vocab_size=7, max_sentence_len=6, seed=4294967295),
]

if __name__ == "__main__":
    goldens = [dict(options=case, rows=[{k: row[k] for k in ("input_ids", "position_ids")}
                                        for row in mock_packed.build_packed_dataset(**case)]) for case in CASES]
    text = ",\n".join(map(json.dumps, goldens))
    pathlib.Path(__file__).with_name("mock_goldens.json").write_text(f"[\n{text}\n]\n")
