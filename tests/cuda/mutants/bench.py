"""What planted.py and derived.py share: a file of kernels/cuda/ with a fault in it is compiled alone, linked with the
other objects of an emulated backend (amlua_cuda_FLAVOUR of a CMake build), and tests run on the module.

Holds no mutant.
"""
import json
import os
import queue
import re
import shlex
import shutil
import signal
import subprocess

root = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", ".."))
sources = os.path.join(root, "kernels", "cuda")

# The tests of a file, quick ones first: the program, its test cases.
FAMILIES = {
    "adafactor.cu": ["test_cuda_optim adafactor"],
    "attention.cu": ["test_cuda_attention edges bounds maxima merge packs agreement"],
    "attention_bwd.cu": ["test_cuda_attention edges bounds packs maxima agreement"],
    "attention_plain.cu": ["test_cuda_attention bounds maxima", "test_cuda_ops attention",
                           "test_cuda_attention packs edges agreement"],
    "binary.cu": ["test_cuda_ops add div pow maximum minimum lt eq"],
    "cudnn_samples.cu": ["test_cuda_dnn"],
    "elem.cu": ["test_cuda_kernels copies large loops", "test_cuda_ops where cast transpose cat"],
    "fake_quantize.cu": ["test_cuda_low_precision", "test_cuda_ops fake_quantize"],
    "fp8.cu": ["test_cuda_low_precision", "test_cuda_ops fp8_linear"],
    "gather.cu": ["test_cuda_kernels rows_added elements_added bad_indices",
                  "test_cuda_ops gather scatter_add index_select index_add embedding"],
    "gemv.cu": ["test_cuda_model gemv"],
    "glu.cu": ["test_cuda_model glu", "test_cuda_ops glu"],
    "grouped.cu": ["test_cuda_model grouped grouped_rows bad_offsets", "test_cuda_ops grouped_linear"],
    "loss.cu": ["test_cuda_model losses bad_label", "test_cuda_ops cross_entropy linear_cross_entropy"],
    "norm.cu": ["test_cuda_model norms", "test_cuda_ops rms_norm layer_norm"],
    "optim.cu": ["test_cuda_optim codes adam sgd lion sumsq refused"],
    "packed.cu": ["test_cuda_low_precision", "test_cuda_ops packed_linear"],
    "random.cu": ["test_cuda_kernels dropouts randoms", "test_cuda_ops dropout"],
    "reduce.cu": ["test_cuda_kernels reductions loops longest_sum",
                  "test_cuda_ops sum mean amax amin argmax argmin prod logsumexp"],
    "rope.cu": ["test_cuda_model rope rope_table", "test_cuda_ops rope rope_table"],
    "scan.cu": ["test_cuda_kernels running_sums", "test_cuda_ops cumsum"],
    "softmax.cu": ["test_cuda_ops softmax log_softmax"],
    "sort.cu": ["test_cuda_kernels orders loops", "test_cuda_ops argsort"],
    "unary.cu": ["test_cuda_ops neg exp gelu silu clamp round pow_scalar relu abs sigmoid"],
    "backend_cuda.c": ["test_cuda_kernels bad_indices", "test_cuda_ops add softmax"],
    "cublas.c": ["test_cuda_ops linear matmul"],
    "linalg.c": ["test_cuda_model linalg"],
    "low_rank.c": ["test_cuda_model low_rank", "test_cuda_ops lora_linear"],
}
HEADERS = {  # a header: files that are compiled with it, whose tests are its own
    "act.cuh": ["glu.cu"], "attention.cuh": ["attention.cu"], "attention_bwd.cuh": ["attention_bwd.cu"],
    "common.cuh": ["loss.cu", "norm.cu"], "map.cuh": ["binary.cu"],
    "tile.cuh": ["grouped.cu"],
    "vector.cuh": ["loss.cu", "optim.cu"],
}


def compiled_for(name):
    return HEADERS.get(name, [name])


def tests_of(name):
    return [line for source in compiled_for(name) for line in FAMILIES[source]]


# How a report of the emulator or of Check begins.
WORDS = re.compile(r"RACE|OUT-OF-BOUNDS|UNINITIALISED|HOST|MISALIGNED|DIVERGENT|DEADLOCK|MISMATCHED|GUARD ZONE|"
                   r"(?:.*)(?:not for the host|freed|cp\.async|no memory at|not aligned|shared memory is|"
                   r"bytes of dynamic shared|__trap|is not in its mask|lanes that have returned)|"
                   r"\S+\.[ch]:\d+:[EF]:.*", re.I)


class Bench:
    """Folders in which a mutant is made, one for each that runs at the same time."""

    def __init__(self, build, scratch, count):
        self.build, self.free = os.path.realpath(build), queue.Queue()
        scratch = os.path.realpath(scratch)
        self.commands = {}
        with open(os.path.join(build, "compile_commands.json")) as file:
            for entry in json.load(file):
                match = re.search(r"-o (\S*amlua_cuda_(fast|check)(?:_kernels)?\.dir\S+)", entry["command"])
                if match:
                    self.commands[match[2], os.path.basename(entry["file"])] = entry["command"], match[1]
        for at in range(count):
            folder = os.path.join(scratch, str(at))
            shutil.rmtree(folder, ignore_errors=True)
            for part in ("cuda", "cpu"):  # whose headers it includes as ../cpu/
                shutil.copytree(os.path.join(sources, "..", part), os.path.join(folder, part))
            self.free.put(folder)

    def module(self, folder, flavour, name, text):
        """The backend with `text` for the file `name`: (path, None), or (None, what the compiler said)."""
        path = os.path.join(folder, "cuda", name)
        with open(path, "w") as file:
            file.write(text)
        objects, directory = {}, os.path.join(self.build, "tests", "cuda")
        for source in compiled_for(name):
            command, plain = self.commands[flavour, source]
            objects[plain] = os.path.join(folder, source + ".o")
            # The scratch copy stands for kernels/cuda/ whole, as a header includes its neighbours first.
            words = shlex.split(command.replace(sources, os.path.join(folder, "cuda")))
            words = ["-O1" if w == "-O2" else w for w in words if w not in ("-g", "-g1")] + ["-g1", "-w"]
            words[words.index("-o") + 1] = objects[plain]
            done = subprocess.run(words, cwd=directory, capture_output=True, text=True)
            if done.returncode:
                break
        shutil.copy(os.path.join(sources, name), path)
        if done.returncode:
            return None, done.stderr
        link = os.path.join(directory, "CMakeFiles", f"amlua_cuda_{flavour}.dir", "link.txt")
        module = os.path.join(folder, f"mutant_{flavour}.so")
        with open(link) as file:
            words = shlex.split(file.read())
        if missing := objects.keys() - set(words):
            raise SystemExit(f"Bail out! {missing} are not in {link}")
        words = [objects.get(w, w) for w in words]
        words[words.index("-o") + 1] = module
        subprocess.run(words, cwd=directory, check=True)
        return module, None

    def run(self, module, tests, options, whole=False):
        """Runs "PROGRAM CASE..." each; None, or what the first that fails said: its first words, or all of it."""
        for line in tests:
            program, *cases = line.split()
            for case in cases:
                environment = dict(os.environ, AMLUA_CUDA=module, CK_RUN_CASE=case,
                                   CK_TIMEOUT_MULTIPLIER="2" if whole else "0.5", CK_VERBOSITY="normal",
                                   OMP_NUM_THREADS="1", **options)
                job = subprocess.Popen([os.path.join(self.build, "tests", program)], env=environment, text=True,
                                       errors="replace", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
                try:
                    said, _ = job.communicate(timeout=900)
                except subprocess.TimeoutExpired:
                    job.send_signal(signal.SIGTERM)  # Check ends the test's process with its own
                    job.communicate()
                    return f"{case}: does not end"
                if "Checks: 0" in said:
                    raise SystemExit(f"Bail out! {program} has no test case {case}")
                if job.returncode:
                    if whole:
                        return said
                    words = [m[0] for m in map(WORDS.search, said.splitlines()) if m]
                    return f"{case}: {words[0].strip() if words else 'failed'}"
        return None


RANDOM = {"AM_EMU_ORDER": "rand", "AM_EMU_STREAMS": "rand", "AM_EMU_CPASYNC": "rand", "AM_EMU_SEED": "1"}
