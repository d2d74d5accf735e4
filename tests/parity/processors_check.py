"""Random pictures, configurations and conversations through transformers' processors and amlua's.

    python tests/parity/processors_check.py [--seed N] [--cases N] [--family NAME] [--pictures DIR]

Run by hand, from the project's root, with LUA_PATH set as for any Lua here; needs torch, torchvision, pillow,
transformers 5.24 and num2words. Pictures are drawn at random, of all kinds that are read; --pictures adds those of a
folder. Token ids, masks and grids must be the same, pixel values no further apart than a level of 255. transformers reads the processor as amlua saved it.
Prints each
case that differs, and a summary.
"""
import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import warnings

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "processors"))
warnings.filterwarnings("ignore")

import families  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from PIL import Image, ImageOps  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

transformers.logging.set_verbosity_error()
WORDS = ["What", "is", "on the image", "?", "Describe it.", "cat", "12.50", "café", "日本", "\n", "  ", "Read the receipt"]


def picture(rng, folder, n):
    """A random picture of a random kind; its path."""
    kind = rng.choice(["RGB"] * 5 + ["L", "P", "RGBA", "LA", "jpeg", "jpeg", "grey.jpeg", "webp"])
    shape = rng.choice(["any"] * 6 + ["long", "tall", "tiny", "large"])
    w, h = {"any": (rng.randint(20, 700), rng.randint(20, 700)), "long": (rng.randint(300, 1500), rng.randint(8, 90)),
            "tall": (rng.randint(8, 90), rng.randint(300, 1500)), "tiny": (rng.randint(1, 30), rng.randint(1, 30)),
            "large": (rng.randint(700, 3500), rng.randint(700, 2300))}[shape]
    gen = np.random.default_rng(rng.randrange(1 << 30))
    small = gen.integers(0, 256, (max(2, h // rng.choice([2, 9, 40])), max(2, w // rng.choice([2, 9, 40])), 4), np.uint8)
    image = Image.fromarray(small, "RGBA").resize((w, h), rng.choice([Image.NEAREST, Image.BILINEAR]))
    if kind in ("jpeg", "grey.jpeg"):
        path = f"{folder}/{n}.jpg"
        exif = Image.Exif()
        exif[0x0112] = rng.choice([1, 1, 1, 2, 3, 4, 5, 6, 7, 8])
        image.convert("L" if kind == "grey.jpeg" else "RGB").save(path, quality=rng.randint(40, 98), exif=exif)
    elif kind == "webp":
        path = f"{folder}/{n}.webp"
        image.convert("RGB").save(path, lossless=True)
    else:
        path = f"{folder}/{n}.png"
        image.convert("RGB").convert("P").save(path) if kind == "P" else image.convert(kind).save(path)
    return path


def opened(path, case):
    """As users open pictures; as RGB where preprocessor_config.json leaves do_convert_rgb out, which then must be so."""
    image = ImageOps.exif_transpose(Image.open(path))
    return image.convert("RGB") if case["opts"].get("alpha") == "drop" else image


def size(rng, low, high):
    return rng.choice([dict(shortest_edge=rng.randint(low, high)), dict(height=rng.randint(low, high),
                                                                        width=rng.randint(low, high)),
                       dict(shortest_edge=rng.randint(low, high), longest_edge=rng.randint(high, 2 * high)),
                       dict(max_height=rng.randint(low, high), max_width=rng.randint(low, high))])


def settings(rng, name):
    """Random keys of the two files."""
    image, processor = {}, {}
    some = rng.random
    if some() < 0.3:
        image["resample"] = rng.choice([1, 2, 3])
    if some() < 0.2:
        image.update(rng.choice([dict(do_normalize=False), dict(do_rescale=False), dict(rescale_factor=1 / 127.5),
                                 dict(image_mean=[0.1, 0.4, 0.6], image_std=[0.2, 0.3, 0.9])]))
    if name in ("clip", "dinov2", "llava"):
        image["size"] = size(rng, 30, 300)
        image["crop_size"] = dict(height=rng.randint(10, 300), width=rng.randint(10, 300))
        image["do_resize"] = some() < 0.9
        if name == "llava":
            image["image_processor_type"] = rng.choice(["CLIPImageProcessor", "LlavaImageProcessor"])
            image["do_pad"] = image["image_processor_type"] == "LlavaImageProcessor" and some() < 0.6
            processor = dict(patch_size=rng.choice([7, 14, 16]), num_additional_image_tokens=rng.choice([0, 1]),
                             vision_feature_select_strategy=rng.choice(["default", "full"]))
    elif name in ("siglip", "paligemma", "gemma3"):
        image["size"] = dict(height=rng.randint(10, 200), width=rng.randint(10, 200))
        if name == "paligemma":
            image["image_seq_length"] = rng.randint(1, 9)
        elif name == "gemma3":
            processor["image_seq_length"] = rng.randint(1, 9)
    elif name == "qwen2_5_vl":
        image.update(patch_size=rng.choice([14, 16]), merge_size=rng.choice([1, 2, 3]),
                     temporal_patch_size=rng.choice([1, 2]), min_pixels=rng.choice([784, 3136, 40000]),
                     max_pixels=rng.choice([50000, 200000, 1003520]))
    else:
        side = rng.choice([64, 98, 224, 364])
        image.update(max_image_size=dict(longest_edge=side), size=dict(longest_edge=rng.choice([side, 2, 3, 4][0:1] + [
            side * k for k in (2, 3, 4)] + [rng.randint(side, 5 * side)])), do_image_splitting=some() < 0.8,
            do_resize=some() < 0.95)
        processor["image_seq_len"] = rng.randint(1, 9)
    return image, processor


def conversation(rng, paths):
    """Messages with these images somewhere in the user's turns."""
    turns, left = rng.randint(1, 3), list(paths)
    messages = []
    for t in range(turns):
        take = len(left) if t == turns - 1 else rng.randint(0, len(left))
        parts = [dict(type="image", path=p) for p in left[:take]]
        left = left[take:]
        parts.append(dict(type="text", text=" ".join(rng.choices(WORDS, k=rng.randint(1, 6)))))
        messages.append(dict(role="user", content=parts))
        messages.append(dict(role="assistant",
                             content=[dict(type="text", text=" ".join(rng.choices(WORDS, k=rng.randint(1, 6))))]))
    return messages


def with_pictures(messages, case):
    return [dict(m, content=[dict(type="image", image=opened(p["path"], case)) if p["type"] == "image" else p
                             for p in m["content"]]) for m in messages]


def draw(rng, n, names, paths, folder):
    name = rng.choice(names)
    image, processor = settings(rng, name)
    case = dict(name=name, folder=f"{folder}/{n}", out=f"{folder}/{n}.safetensors", saved=f"{folder}/{n}-saved",
                opts=dict(backend=rng.choice(["torchvision", "pil"])))
    if rng.random() < 0.4:  # by options instead of by the files
        case["opts"].update({k: v for k, v in image.items() if k != "image_processor_type"}, **processor)
        image = {k: v for k, v in image.items() if k == "image_processor_type"}
        processor = {}
    families.make(name, case["folder"], image, processor)
    if rng.random() < 0.3:  # in the form that transformers 5 writes
        made = families.load(case["folder"], "torchvision")
        case["folder"] += "-v5"
        made.save_pretrained(case["folder"])
    call = {}
    if name == "gemma3" and rng.random() < 0.5:
        call = dict(do_pan_and_scan=True, pan_and_scan_min_crop_size=rng.choice([10, 50, 256]),
                    pan_and_scan_max_num_crops=rng.choice([2, 4, 5]))
    case["opts"].update(call)
    if name == "paligemma":
        case["opts"]["alpha"] = "drop"
    case["call"] = call
    if name in families.TOWERS:
        case["images"] = [rng.choice(paths)]
        return case
    family = families.FAMILIES[name]
    if name != "paligemma" and rng.random() < 0.5:
        case["messages"] = conversation(rng, rng.sample(paths, rng.randint(0, 3)))
        case["chat"] = dict(return_assistant_tokens_mask=True)
        return case
    rows, images = rng.randint(1, 3), []
    case["text"] = []
    for _ in range(rows):
        own = rng.sample(paths, rng.randint(1 if name == "paligemma" else 0, 2))
        images.append(own)
        pieces = [family["marker"]] * len(own) + rng.choices(WORDS, k=rng.randint(1, 5))
        if name != "paligemma":
            rng.shuffle(pieces)
        case["text"].append("".join(pieces))
    if any(images):
        case["images"] = images
    if name == "paligemma":
        case["suffix"] = [" ".join(rng.choices(WORDS, k=2)) for _ in range(rows)]
    return case


def theirs(case):
    processor = families.load(case["saved"], case["opts"]["backend"])
    call = dict(case["call"], return_tensors="pt")
    if "messages" in case:
        out = processor.apply_chat_template(with_pictures(case["messages"], case), tokenize=True, return_dict=True,
                                            return_tensors=None, return_assistant_tokens_mask=True,
                                            processor_kwargs=dict(case["call"]))
        out = {k: (v if torch.is_tensor(v) else torch.tensor(np.array(v))) for k, v in out.items()}
        return out
    images = case.get("images")
    if case["name"] in families.TOWERS:
        return dict(processor(images=[opened(p, case) for p in images], return_tensors="pt"))
    if images is not None:
        images = [[opened(p, case) for p in row] for row in images]
        if case["name"] in ("llava", "qwen2_5_vl"):
            images = [p for row in images for p in row]
    if case.get("suffix"):
        call["suffix"] = case["suffix"]
    return dict(processor(images=images, text=case["text"], padding=True, **call))


def saved(case):
    """The image processor's configuration as amlua wrote it."""
    for name in ("processor_config.json", "preprocessor_config.json"):
        if os.path.exists(f"{case['saved']}/{name}"):
            with open(f"{case['saved']}/{name}") as f:
                config = json.load(f)
            config = config.get("image_processor", None if name.startswith("processor") else config)
            if config:
                return config
    return {}


def level(case):
    """What one level of 255 is worth in pixel values of a case."""
    s = {**families.FAMILIES[case["name"]]["image"], **saved(case)}
    scale = s.get("rescale_factor", 1 / 255) if s.get("do_rescale", True) else 1
    return scale / (min(s["image_std"]) if s.get("do_normalize", True) else 1)


def compare(case, want, got):
    problems = []
    for key in sorted(set(want) | set(got)):
        a, b = want.get(key), got.get(key)
        if a is None or b is None:
            problems.append(f"{key} only in {'amlua' if a is None else 'transformers'}")
        elif tuple(a.shape) != tuple(b.shape):
            problems.append(f"{key}: {tuple(a.shape)} and {tuple(b.shape)}")
        elif key != "pixel_values":
            if not torch.equal(a.long(), b.long()):
                problems.append(f"{key} differs at {int((a.long() != b.long()).flatten().nonzero()[0])}")
        else:
            apart = float((a.double() - b.double()).abs().max()) / level(case)
            case["apart"] = apart
            if not apart < 1.001:
                problems.append(f"pixel_values are {apart:.2f} levels apart")
    return problems


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--seed", type=int, default=0)
    args.add_argument("--cases", type=int, default=200)
    args.add_argument("--family")
    args.add_argument("--pictures")
    args = args.parse_args()
    rng = random.Random(args.seed)
    folder = tempfile.mkdtemp(prefix="amlua-processors-")
    paths = [picture(rng, folder, n) for n in range(60)]
    for root, _, names in os.walk(args.pictures or "/nonexistent"):
        paths += [os.path.join(root, n) for n in sorted(names) if n.endswith((".png", ".jpg", ".jpeg", ".webp", ".gif"))]
    names = [args.family] if args.family else list(families.FAMILIES)
    cases = [draw(rng, n, names, paths, folder) for n in range(args.cases)]
    with open(f"{folder}/cases.json", "w") as f:
        json.dump(cases, f)
    subprocess.run(["luajit", "tests/parity/processors/run.lua", f"{folder}/cases.json"], check=True)
    bad, refused, worst = 0, 0, 0.0
    for n, case in enumerate(cases):
        try:
            want, theirs_error = theirs(case), None
        except Exception as e:  # noqa: BLE001
            want, theirs_error = None, e
        error = case["out"] + ".error"
        if os.path.exists(error):
            with open(error) as f:
                ours_error = f.read()
            if want is None or "would stand for" in ours_error:  # an image without tokens, which transformers takes
                refused += 1
                continue
            problems = [f"amlua: {ours_error}"]
        elif want is None:
            problems = [f"transformers: {type(theirs_error).__name__}: {theirs_error}"]
        else:
            problems = compare(case, want, load_file(case["out"]))
            worst = max(worst, case.get("apart", 0))
        if problems:
            bad += 1
            print(f"case {n} ({case['name']}, {case['opts']}): " + "; ".join(problems))
            print("   ", {k: v for k, v in case.items() if k in ("text", "images", "messages")})
            print("   ", json.dumps(saved(case)))
    print(f"seed {args.seed}: {len(cases)} cases, {bad} differ, {refused} refused, "
          f"pixels at most {worst:.3f} levels apart")
    if bad == 0:
        shutil.rmtree(folder)
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
