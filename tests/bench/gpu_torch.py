"""PyTorch beside amlua on a GPU: usage: amlua tests/bench/gpu_kernels.lua | python tests/bench/gpu_torch.py [DEVICE]

Reads the lines of gpu_kernels.lua, runs the same ops at the same sizes in PyTorch (eager, and by torch.compile; attention
by flash attention), and prints a line for each: amlua's milliseconds, PyTorch's, and how many times as fast amlua was.
DEVICE (cuda) may be cpu, to try the script beside figures of the emulated CUDA.
"""
import json
import sys
import time

import torch
import torch.nn.functional as F

DEVICE = sys.argv[1] if len(sys.argv) > 1 else "cuda"


def rand(*shape, grad=False):
    x = torch.randn(*shape, device=DEVICE, dtype=torch.bfloat16) * 0.02
    return x.detach().requires_grad_(grad)


def with_gradients(leaves, dout, forward):
    def run():
        for x in leaves:
            x.grad = None
        forward().backward(dout)
    return run


def linear(t, c, f):
    x, w = rand(t, c), rand(f, c)
    return None, (), None, lambda: F.linear(x, w)


def lora(t, c, r):
    x, w, a, b = rand(t, c, grad=True), rand(c, c), rand(r, c, grad=True), rand(c, r, grad=True)
    dout = rand(t, c)
    return with_gradients, (x, a, b), dout, lambda: F.linear(x, w) + 2 * F.linear(F.linear(x, a), b)


def attention(grad):
    def make(t, h, k, d):
        q, key, value = (rand(1, n, t, d, grad=grad) for n in (h, k, k))
        dout = rand(1, h, t, d)
        return with_gradients if grad else None, (q, key, value), dout, lambda: F.scaled_dot_product_attention(
            q, key, value, is_causal=True, enable_gqa=h != k)
    return make


def rms_norm(t, c):
    x, w, dout = rand(t, c, grad=True), rand(c, grad=True), rand(t, c)
    return with_gradients, (x, w), dout, lambda: F.rms_norm(x, (c,), w, 1e-5)


def glu(t, f):
    gate, up, dout = rand(t, f, grad=True), rand(t, f, grad=True), rand(t, f)
    return with_gradients, (gate, up), dout, lambda: F.silu(gate) * up


def linear_cross_entropy(t, c, v):
    hidden, w = rand(t, c, grad=True), rand(v, c)
    labels = torch.arange(1, t + 1, device=DEVICE) * 7919 % v
    return with_gradients, (hidden,), None, lambda: F.cross_entropy(F.linear(hidden, w).float(), labels, reduction="sum")


CASES = {
    "linear": linear,
    "lora_linear and gradients": lora,
    "attention": attention(False),
    "attention and gradients": attention(True),
    "rms_norm and gradients": rms_norm,
    "glu and gradients": glu,
    "linear_cross_entropy and gradients": linear_cross_entropy,
}


def measure(run, seconds=0.3):
    def once():
        start = time.perf_counter()
        run()
        if DEVICE != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - start
    for _ in range(2):
        once()
    times = []
    while sum(times) < seconds or len(times) < 3:
        times.append(once())
    return sorted(times)[(len(times) - 1) // 2]


def main():
    for text in sys.stdin:
        line = json.loads(text)
        make = CASES.get(line.get("name"))
        if not make:
            continue
        wrap, leaves, dout, forward = make(*(int(n) for n in line["sizes"]))
        figures = [f"amlua {line['ms']:.3f} ms"]
        for name, op in (("eager", forward), ("compiled", torch.compile(forward))):
            try:
                ms = measure(wrap(leaves, dout, op) if wrap else op) * 1e3
            except Exception as e:  # no compiler, or no headers of Python, where Triton wants them
                if name == "eager":
                    raise
                figures.append(f"not compiled: {str(e).strip().splitlines()[0]}")
                continue
            figures.append(f"{name} {ms:.3f} ms (amlua {ms / line['ms']:.2f} times as fast)")
        print(f"{line['name']}: {', '.join(figures)}", flush=True)


if __name__ == "__main__":
    main()
