"""Values and gradients of NeMo Automodel's KDLoss for kd_spec.lua.

    python tests/lua/loss/make_kd_goldens.py > tests/lua/loss/kd_goldens.json

Needs torch and nemo-automodel. The loss is asked for the sum over label tokens (num_batch_labels = 1).
"""
import json

import torch
from nemo_automodel.components.loss.kd_loss import KDLoss

cases = []
for seed, (rows, vocab, temperature, scale) in enumerate(
    [(3, 5, 1.0, 1.0), (4, 7, 2.0, 3.0), (2, 3, 0.5, 30.0), (5, 4, 4.0, 0.1)]
):
    g = torch.Generator().manual_seed(seed)
    student = (torch.randn(rows, vocab, generator=g) * scale).requires_grad_()
    teacher = torch.randn(rows, vocab, generator=g) * scale
    labels = torch.zeros(rows, dtype=torch.long)  # every row counts
    loss = KDLoss(temperature=temperature)(student, teacher, labels, num_batch_labels=1)
    loss.backward()
    cases.append(
        {
            "temperature": temperature,
            "student": student.detach().tolist(),
            "teacher": teacher.tolist(),
            "loss": loss.item(),
            "gradient": student.grad.tolist(),
        }
    )
print(json.dumps(cases, indent=1))
