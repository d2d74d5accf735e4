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
    "attention.cu": ["test_cuda_attention edges bounds overlap maxima merge packs many dropout scale positions",
                     "test_cuda_attention recorded agreement"],
    "attention_bwd.cu": ["test_cuda_attention edges bounds overlap packs many dropout scale maxima agreement"],
    "attention_plain.cu": ["test_cuda_attention bounds overlap maxima packs many dropout scale edges agreement"],
    "binary.cu": ["test_cuda_edges binary", "test_cuda_ops add sub mul div pow maximum minimum lt eq"],
    "cudnn_samples.cu": ["test_cuda_dnn cuDNN emulated"],
    "elem.cu": ["test_cuda_edges joined whole_numbers shifted", "test_cuda_kernels copies large loops",
                "test_cuda_ops where cast transpose cat"],
    "fake_quantize.cu": ["test_cuda_low_precision nearest rounds_as_ref", "test_cuda_ops fake_quantize"],
    "fp8.cu": ["test_cuda_low_precision casts fp8_products nan_stays", "test_cuda_ops fp8_linear"],
    "gather.cu": ["test_cuda_kernels rows_added elements_added bad_indices", "test_cuda_edges elements",
                  "test_cuda_ops gather scatter_add index_select index_add embedding"],
    "gemv.cu": ["test_cuda_model gemv"],
    "glu.cu": ["test_cuda_edges refused", "test_cuda_model glu", "test_cuda_ops glu"],
    "grouped.cu": ["test_cuda_model grouped grouped_rows bad_offsets", "test_cuda_edges nothing",
                   "test_cuda_ops grouped_linear"],
    "loss.cu": ["test_cuda_model losses bad_label", "test_cuda_ops cross_entropy linear_cross_entropy"],
    "norm.cu": ["test_cuda_model norms", "test_cuda_ops rms_norm layer_norm"],
    "optim.cu": ["test_cuda_optim codes bounds adam sgd lion sumsq refused"],
    "packed.cu": ["test_cuda_low_precision packs_and_unpacks packed_products nan_of_a_row",
                  "test_cuda_ops packed_linear"],
    "random.cu": ["test_cuda_edges randoms", "test_cuda_kernels dropouts randoms", "test_cuda_ops dropout"],
    "reduce.cu": ["test_cuda_edges refused", "test_cuda_kernels reductions loops longest_sum",
                  "test_cuda_ops sum mean amax amin argmax argmin prod logsumexp"],
    "rope.cu": ["test_cuda_model rope rope_table", "test_cuda_ops rope rope_table"],
    "scan.cu": ["test_cuda_kernels running_sums", "test_cuda_ops cumsum"],
    "softmax.cu": ["test_cuda_ops softmax log_softmax"],
    "sort.cu": ["test_cuda_edges refused", "test_cuda_kernels orders loops", "test_cuda_ops argsort"],
    "unary.cu": ["test_cuda_edges unary",
                 "test_cuda_ops neg exp gelu silu clamp round pow_scalar relu abs sigmoid"],
    "backend_cuda.c": ["test_cuda_host sizes uploads releases room cache lost elsewhere devices named",
                       "test_cuda_kernels bad_indices", "test_cuda_ops add softmax",
                       "tests/cuda/graphs_spec.lua a call spoils"],
    "cublas.c": ["test_cuda_ops linear matmul"],
    "cudnn.c": ["test_cuda_dnn cuDNN emulated"],
    "cudnn_attention.c": ["test_cuda_dnn cuDNN emulated"],
    "cudnn_graph.c": ["test_cuda_dnn cuDNN emulated"],
    "graph.c": ["test_cuda_host graphs", "tests/cuda/graphs_spec.lua does what was recorded",
                "tests/cuda/graphs_spec.lua the oldest go"],
    "linalg.c": ["test_cuda_model linalg"],
    "low_rank.c": ["test_cuda_model low_rank", "test_cuda_ops lora_linear"],
    "memory.c": ["test_cuda_host sizes uploads releases room cache lost elsewhere",
                 "tests/cuda/graphs_spec.lua has scratch memory", "tests/cuda/graphs_spec.lua needs no memory"],
    "nccl.c": ["tests/cuda/dist_spec.lua exchange tensors", "tests/cuda/dist_spec.lua in any legal order",
               "tests/cuda/dist_failures_spec.lua name the rank that does not come, and end"],
}
HEADERS = {  # a header: files that are compiled with it, whose tests are its own
    "act.cuh": ["glu.cu", "unary.cu"], "attention.cuh": ["attention.cu"], "attention_bwd.cuh": ["attention_bwd.cu"],
    "common.cuh": ["elem.cu", "loss.cu", "norm.cu", "optim.cu"], "map.cuh": ["binary.cu", "elem.cu"],
    "tile.cuh": ["grouped.cu"],
    "vector.cuh": ["loss.cu", "optim.cu"],
}


def compiled_for(name):
    return HEADERS.get(name, [name])


def tests_of(name):
    return [line for source in compiled_for(name) for line in FAMILIES[source]]


def cases_of(line):
    """Of a line of FAMILIES: the program, its cases. A spec's is all that follows, which its tests' names match."""
    program, cases = line.split(" ", 1)
    return program, [cases] if program.endswith(".lua") else cases.split()


# How a report of the emulator or of Check begins.
WORDS = re.compile(r"RACE|OUT-OF-BOUNDS|UNINITIALISED|HOST|MISALIGNED|DIVERGENT|DEADLOCK|MISMATCHED|GUARD ZONE|"
                   r"(?:.*)(?:not for the host|freed|cp\.async|no memory at|not aligned|shared memory is|still to run|"
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
        self.scratch = scratch
        for at in range(count):
            self.free.put(self.folder(str(at)))

    def folder(self, name):
        folder = os.path.join(self.scratch, name)
        shutil.rmtree(folder, ignore_errors=True)
        for part in ("cuda", "cpu"):  # whose headers it includes as ../cpu/
            shutil.copytree(os.path.join(sources, "..", part), os.path.join(folder, part))
        return folder

    def compiled(self, folder, flavour, name, text, more=()):
        """The objects with `text` for the file `name`, by the plain ones' paths: (those, None), or (None, what the
        compiler said)."""
        path = os.path.join(folder, "cuda", name)
        with open(path, "w") as file:
            file.write(text)
        objects, directory = {}, os.path.join(self.build, "tests", "cuda")
        for source in compiled_for(name):
            command, plain = self.commands[flavour, source]
            objects[plain] = os.path.join(folder, f"{source}.{flavour}.o")
            # The scratch copy stands for kernels/cuda/ whole, as a header includes its neighbours first.
            words = shlex.split(command.replace(sources, os.path.join(folder, "cuda")))
            words = ["-O1" if w == "-O2" else w for w in words if not re.match(r"-g\d?$|-W", w)] + ["-g1", *more]
            words[words.index("-o") + 1] = objects[plain]
            done = subprocess.run(words, cwd=directory, capture_output=True, text=True)
            if done.returncode:
                break
        shutil.copy(os.path.join(sources, name), path)
        return (None, done.stderr) if done.returncode else (objects, None)

    def module(self, folder, flavour, name, text, more=()):
        """The backend with `text` for the file `name`: (path, None), or (None, what the compiler said)."""
        objects, error = self.compiled(folder, flavour, name, text, more)
        if not objects:
            return None, error
        directory = os.path.join(self.build, "tests", "cuda")
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

    def process(self, module, program, case, options, limit):
        """A test case, or one run of a test in it (a tag of cuda_suite.h): (exit status, what it said); None as the
        status if it does not end within `limit` seconds."""
        environment = dict(os.environ, AMLUA_CUDA=module, CK_TIMEOUT_MULTIPLIER="2", OMP_NUM_THREADS="1", **options)
        environment["CK_INCLUDE_TAGS" if ":" in case else "CK_RUN_CASE"] = case
        command = [os.path.join(self.build, "tests", program)]
        if program.endswith(".lua"):
            command = ["luajit", "/usr/bin/busted", "-o", "TAP", "--filter", case, program]
        job = subprocess.Popen(command, cwd=root, env=environment, text=True, errors="replace",
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            said, _ = job.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(job.pid, signal.SIGTERM)  # Check ends the test's process, which is in a group of its own
            said, _ = job.communicate()
            return None, said
        if "Checks: 0" in said or "\n1..0" in said:
            raise SystemExit(f"Bail out! {program} has no test case {case}")
        return job.returncode, said

    def run(self, module, tests, options, whole=False, limit=900):
        """Runs "PROGRAM CASE..." each; None, or what the first that fails said: its first words, or all of it."""
        for line in tests:
            program, cases = cases_of(line)
            for case in cases:
                status, said = self.process(module, program, case, options, limit)
                if status is None:
                    return f"{case}: does not end"
                if status:
                    if whole:
                        return said
                    words = [m[0] for m in map(WORDS.search, said.splitlines()) if m]
                    return f"{case}: {words[0].strip() if words else 'failed'}"
        return None

    def runs_of(self, module, line):
        """"PROGRAM TAG" of each run of a test in "PROGRAM CASE..."."""
        program, cases = cases_of(line)
        if program.endswith(".lua"):
            return [line]
        done = subprocess.run([os.path.join(self.build, "tests", program)], capture_output=True, text=True, check=True,
                              env=dict(os.environ, AMLUA_CUDA=module, CUDA_TESTS="list"))
        tags = dict.fromkeys(tag for tag in done.stdout.split("\n") if tag.split(":")[0] in cases)
        if missing := set(cases) - {tag.split(":")[0] for tag in tags}:
            raise SystemExit(f"Bail out! {program} has no test case {', '.join(missing)}")
        return [f"{program} {tag}" for tag in tags]


RANDOM = {"AM_EMU_ORDER": "rand", "AM_EMU_STREAMS": "rand", "AM_EMU_CPASYNC": "rand", "AM_EMU_SEED": "1"}
