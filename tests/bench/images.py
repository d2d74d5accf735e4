"""Pictures prepared for a model on one thread: amlua beside transformers' CLIPImageProcessor (torchvision), in
turns, on the same JPEG of 640 x 480: decoding (transformers: by Pillow), resizing by bicubic with antialiasing,
cropping, rescaling and normalising.

Needs a build of amlua (AMLUA, build/amlua) and a Python with pillow, torch, torchvision, transformers and
scikit-image, whose picture it is:

    python tests/bench/images.py [--size 336 224] [--rounds 7] [--count 100]

Prints the milliseconds of processor time of a picture, the medians of `count` pictures in each round, then the best round of
each; with decoding and without it..
"""

import argparse
import io
import os
import statistics
import subprocess
import tempfile
import time

import skimage
import torch
from PIL import Image
from transformers import CLIPImageProcessor

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--size", type=int, nargs="+", default=[336, 224])
parser.add_argument("--rounds", type=int, default=7)
parser.add_argument("--count", type=int, default=100)
args = parser.parse_args()
torch.set_num_threads(1)


def median(call):
    times = []
    for _ in range(args.count):
        begin = time.process_time()
        call()
        times.append(time.process_time() - begin)
    return statistics.median(times) * 1000


def amlua(path, size):
    command = [os.environ.get("AMLUA", os.path.join(ROOT, "build/amlua")),
               os.path.join(ROOT, "tests/bench/images.lua"), path, str(size), str(args.count)]
    return map(float, subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout.split())


picture = Image.open(os.path.join(os.path.dirname(skimage.__file__), "data", "coffee.png")).convert("RGB")
file = io.BytesIO()
picture.resize((640, 480), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
data = file.getvalue()
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "picture.jpg")
    with open(path, "wb") as out:
        out.write(data)
    for size in args.size:
        processor = CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
        decoded = Image.open(io.BytesIO(data))
        decoded.load()
        best = [float("inf")] * 4
        for number in range(args.rounds):
            whole, decoding = amlua(path, size)
            theirs = median(lambda: processor(Image.open(io.BytesIO(data)), return_tensors="pt"))
            prepared = median(lambda: processor(decoded, return_tensors="pt"))
            best = [min(pair) for pair in zip(best, (whole, whole - decoding, theirs, prepared))]
            print(f"{size}, round {number + 1}: amlua {whole:.2f} ms, without decoding {whole - decoding:.2f}; "
                  f"transformers {theirs:.2f}, without {prepared:.2f}", flush=True)
        print(f"{size}, best: amlua {best[0]:.2f} ms, transformers {best[2]:.2f}: {best[2] / best[0]:.2f} times; "
              f"without decoding {best[1]:.2f} and {best[3]:.2f}: {best[3] / best[1]:.2f} times")
