"""Judges manifests that amlua writes by schemas that are not its own.

usage: python kubernetes_check.py FILE...     in a Python with kubernetes-validate and kubeflow-training

ConfigMap, Job and every pod's template: the JSON schemas of Kubernetes (kubernetes-validate, strict: no unknown key).
MPIJob: Kubeflow's own models. The package has those of the training operator, kubeflow.org/v1; the MPI operator's
v2beta1 has the same runPolicy and replica specs, and drops nothing that is used here but `mainContainer`.
"""

import sys

import kubernetes_validate
import yaml
from kubeflow.training import models


def strict(definition):
    kubernetes_validate.validate(definition, "1.31", strict=True)


def known(model, section, where):
    """Every key of `section` is one of the model's; the model's own checks run on the values."""
    keys = {value: key for key, value in model.attribute_map.items()}
    for key in section:
        assert key in keys, f"{where}: {key} is no key of {model.__name__}"
    return model(**{keys[key]: value for key, value in section.items()})


def mpi_job(definition):
    assert definition["apiVersion"] == "kubeflow.org/v2beta1"
    known(models.KubeflowOrgV1MPIJob, {key: definition[key] for key in ("apiVersion", "kind", "metadata", "spec")}, "MPIJob")
    spec = definition["spec"]
    known(models.KubeflowOrgV1MPIJobSpec, spec, "spec")
    known(models.KubeflowOrgV1RunPolicy, spec["runPolicy"], "runPolicy")
    assert set(spec["mpiReplicaSpecs"]) == {"Launcher", "Worker"}
    for name, replica in spec["mpiReplicaSpecs"].items():
        known(models.KubeflowOrgV1ReplicaSpec, replica, name)
        template = replica["template"]
        strict({"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": template})


for file in sys.argv[1:]:
    with open(file, encoding="utf-8") as stream:
        for definition in yaml.safe_load_all(stream):
            (mpi_job if definition["kind"] == "MPIJob" else strict)(definition)
            print(f"{file}: {definition['kind']} is valid")
