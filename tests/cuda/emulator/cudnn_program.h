// cudnn_program.h — what a finished plan of the emulated cuDNN does: operations over tensors of
// four dims, one after the other, on the host.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace emu
{
// As cuDNN numbers them (kernels/cuda/cudnn_names.def).
struct DnnTensor {
    int64_t uid = 0, alignment = 1, dim[4] = {}, stride[4] = {};
    int dtype = 0;
    int64_t offsets = 0; // uid of the tensor with the first dim's offsets, 0: none
    bool between = false, value = false;
};

enum class DnnKind { matmul, pointwise, reduction, reshape };

struct DnnOperation {
    DnnKind kind;
    int mode = 0; // of a pointwise operation or a reduction
    int64_t axis = -1;
    int64_t in[3] = {}, out = 0;   // uids, 0: none
    int64_t extent[3] = {0, 0, 0}; // of a product: uids of m, n and k
};

struct DnnProgram {
    std::map<int64_t, DnnTensor> tensors;
    std::vector<DnnOperation> operations;
};

// Values that are given by host address, read when the run is queued.
struct DnnRun {
    DnnProgram program;
    std::map<int64_t, void *> memory;
    std::map<int64_t, double> values;
};

size_t dnn_bytes(int dtype); // 0: unknown
double dnn_read(const void *p, int64_t i, int dtype);
// What is missing, or an empty text: operations over what nobody made, shapes that do not fit.
std::string dnn_problem(const DnnProgram &p);
// On the device's memory. Elements of ragged tensors behind their sample's end are NaN when they
// are read, and are not written.
void dnn_run(const DnnRun &r);
} // namespace emu
