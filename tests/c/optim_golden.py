#!/usr/bin/env python3
"""Writes tests/c/optim_golden.h: what torch.optim and lion-pytorch make of five weights in four steps, in float64.

usage (needs torch and lion-pytorch 0.2; only to make the file anew): python3 tests/c/optim_golden.py > tests/c/optim_golden.h
"""
import torch
from lion_pytorch import Lion

WEIGHTS = [0.5, -1.25, 2.0, 0.0, -0.03125]
STEPS = 4


def gradient(step):
    """Exact in binary, of several sizes, with zeros."""
    return [((i * 7 + step * 5) % 11 - 5) / 8 * 4.0 ** (i - 2) for i in range(len(WEIGHTS))]


CASES = [
    ("ADAM", torch.optim.Adam, dict(lr=0.01, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)),
    ("ADAM", torch.optim.Adam, dict(lr=0.05, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.1)),
    ("ADAMW", torch.optim.AdamW, dict(lr=0.01, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)),
    ("ADAMW", torch.optim.AdamW, dict(lr=0.1, betas=(0.0, 0.5), eps=1e-4, weight_decay=0.3)),
    ("SGD", torch.optim.SGD, dict(lr=0.1, weight_decay=0.0)),
    ("SGD", torch.optim.SGD, dict(lr=0.1, momentum=0.9, weight_decay=0.05)),
    ("SGD", torch.optim.SGD, dict(lr=0.1, momentum=0.9, dampening=0.25, weight_decay=0.0)),
    ("SGD", torch.optim.SGD, dict(lr=0.1, momentum=0.8, nesterov=True, weight_decay=0.01)),
    ("ADAM", torch.optim.Adam, dict(lr=0.05, betas=(0.8, 0.5), eps=1e-3, weight_decay=0.1, amsgrad=True)),
    ("ADAMW", torch.optim.AdamW, dict(lr=0.1, betas=(0.9, 0.5), eps=1e-8, weight_decay=0.3, amsgrad=True, maximize=True)),
    ("SGD", torch.optim.SGD, dict(lr=0.1, momentum=0.9, weight_decay=0.05, maximize=True)),
    ("LION", Lion, dict(lr=0.01, betas=(0.9, 0.99), weight_decay=0.0)),
    ("LION", Lion, dict(lr=0.1, betas=(0.5, 0.75), weight_decay=0.3)),
]


def main():
    print("/* optim_golden.h — written by optim_golden.py (torch %s); do not edit. */" % torch.__version__.split("+")[0])
    print("enum { GOLDEN_WEIGHTS = %d, GOLDEN_STEPS = %d };" % (len(WEIGHTS), STEPS))
    rows = lambda values: "{" + ", ".join("%.17g" % v for v in values) + "}"
    print("static const double golden_start[] = %s;" % rows(WEIGHTS))
    print("static const double golden_grads[][%d] = {" % len(WEIGHTS))
    for s in range(STEPS):
        print("    %s," % rows(gradient(s)))
    print("};")
    print("static const struct {\n    am_optim_config config;\n    double lr, weight_decay;")
    print("    double weights[%d][%d];\n} golden[] = {" % (STEPS, len(WEIGHTS)))
    for kind, optimizer, options in CASES:
        w = torch.tensor(WEIGHTS, dtype=torch.float64, requires_grad=True)
        opt = optimizer([w], **options)
        results = []
        for s in range(STEPS):
            w.grad = torch.tensor(gradient(s), dtype=torch.float64)
            opt.step()
            results.append(rows(w.detach().tolist()))
        fields = [".kind = AM_OPTIM_" + kind, ".state_dtype = -1"]
        if "betas" in options:
            fields += [".beta1 = %r" % options["betas"][0], ".beta2 = %r" % options["betas"][1]]
        for name in ("eps", "momentum", "dampening"):
            if name in options:
                fields.append(".%s = %r" % (name, options[name]))
        fields += [".%s = 1" % name for name in ("nesterov", "amsgrad", "maximize") if options.get(name)]
        print("    {{%s},\n     %r,\n     %r,\n     {%s}}," % (", ".join(fields), options["lr"], options["weight_decay"], ",\n      ".join(results)))
    print("};")


main()
