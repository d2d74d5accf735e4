"""torch's reader of distributed checkpoints, and transformers, on what several ranks of amlua saved: the shards, and the
directory that they wrote together, must hold the same bits. Run by hand, from the project's root, in a Python that has
torch, safetensors and transformers:

    python tests/parity/dcp_check.py build/amlua [RANKS]
"""
import json
import os
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file
from torch.distributed.checkpoint import load
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

amlua, ranks = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "4"
mpi = {"OMP_NUM_THREADS": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
for strategy in "ddp", "fsdp2":
    with tempfile.TemporaryDirectory() as folder:
        config = {
            "step_scheduler": {"global_batch_size": 8, "local_batch_size": 2, "max_steps": 3},
            "model": {"_target_": "am.AutoModelForCausalLM.from_pretrained",
                      "pretrained_model_name_or_path": "tests/parity/golden/tiny_llama/gqa"},
            "dataset": {"_target_": "am.datasets.build_unpacked_dataset", "num_sentences": 24, "vocab_size": 67,
                        "mean_len": 14, "max_sentence_len": 40},
            "optimizer": {"_target_": "am.optim.AdamW", "lr": 1e-2},
            "distributed": {"strategy": strategy},
            "checkpoint": {"checkpoint_dir": folder + "/run", "save_consolidated": True},
        }
        with open(folder + "/config.yaml", "w") as f:
            json.dump(config, f)
        subprocess.run(["mpirun", "--oversubscribe", "-n", ranks, amlua, "recipes/llm_finetune.lua",
                        folder + "/config.yaml"], check=True, env=os.environ | mpi, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        model = folder + "/run/LATEST/model"
        wanted = load_file(model + "/consolidated/model-00001-of-00001.safetensors")
        shards = [name for name in os.listdir(model) if name.endswith(".safetensors")]
        assert len(shards) == int(ranks), shards
        state = {name: torch.empty_like(t) for name, t in wanted.items()}
        load(state, storage_reader=HuggingFaceStorageReader(model))
        for name, t in wanted.items():
            assert torch.equal(state[name].view(torch.uint8), t.view(torch.uint8)), name
        from transformers import AutoModelForCausalLM

        loaded = AutoModelForCausalLM.from_pretrained(model + "/consolidated").state_dict()
        for name, t in wanted.items():
            assert torch.equal(loaded[name], t), name
        print(f"{strategy}: {len(shards)} shards, {len(wanted)} tensors: torch and transformers read the same")
