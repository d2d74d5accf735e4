"""The other side of hub_check.lua: huggingface_hub writes a cache, or reads one.

    python hub_check.py download ID...    model and data set repositories ("datasets/org/name") from HF_ENDPOINT
    python hub_check.py read ID FILE...   print the SHA-256 of each file of the cache, found by hf_hub_download
    python hub_check.py scan              what scan_cache_dir finds wrong with the cache: nothing is printed
"""

import hashlib
import sys

from huggingface_hub import hf_hub_download, scan_cache_dir, snapshot_download


def split(name):
    kind = "dataset" if name.startswith("datasets/") else "model"
    return {"repo_id": name.removeprefix("datasets/"), "repo_type": kind}


def main():
    what, names = sys.argv[1], sys.argv[2:]
    if what == "download":
        for name in names:
            snapshot_download(**split(name))
    elif what == "read":
        folder = snapshot_download(**split(names[0]), allow_patterns=names[1:])
        for file in names[1:]:
            place = hf_hub_download(filename=file, **split(names[0]))
            assert place == f"{folder}/{file}", place
            print(hashlib.sha256(open(place, "rb").read()).hexdigest(), file)
    else:
        for warning in scan_cache_dir().warnings:
            print(warning)


main()
