// cudnn.cpp — cuDNN's backend API over operations on the host (cudnn_program.h): AMLUA_CUDNN names
// this module itself to the backend. It refuses what it does not know. Heuristics offer two plans
// of every graph: one that says that it varies from run to run, and does nothing; and one that is
// right.
#include <cstring>
#include <memory>

#include "cudnn_graph.h"
#include "cudnn_program.h"
#include "failures.h"
#include "report.h"
#include "runtime.h"
#include "stream.h"

namespace emu
{
namespace
{
enum { VERSION = 91801, BAD_PARAM = 2000, EXECUTION_FAILED = 5000 };

struct Descriptor {
    int type = 0;
    bool done = false;
    std::map<int, std::vector<char>> attributes;
    // Of heuristics, engines and plans.
    std::shared_ptr<DnnProgram> program;
    bool varies = false;
    DnnTensor tensor; // of a finished one

    bool has(int name) const
    {
        return attributes.count(name) != 0;
    }
    template <class T> T value(int name, T otherwise) const
    {
        auto found = attributes.find(name);
        if (found == attributes.end() || found->second.size() < sizeof(T))
            return otherwise;
        T x;
        memcpy(&x, found->second.data(), sizeof x);
        return x;
    }
    Descriptor *part(int name) const
    {
        return value<Descriptor *>(name, nullptr);
    }
    int64_t uid(int name) const // of a tensor, 0: none
    {
        Descriptor *d = part(name);
        return d ? d->tensor.uid : 0;
    }
    template <class T> std::vector<T> list(int name) const
    {
        auto found = attributes.find(name);
        if (found == attributes.end())
            return {};
        std::vector<T> x(found->second.size() / sizeof(T));
        memcpy(x.data(), found->second.data(), x.size() * sizeof(T));
        return x;
    }
};

long alive; // handles and descriptors

struct Handle {
    cudaStream_t stream = nullptr;
};

size_t bytes_of_type(int type)
{
    switch (type) {
    case AM_DNN_TYPE_BOOLEAN:
    case AM_DNN_TYPE_CHAR:
        return 1;
    case AM_DNN_TYPE_DATA_TYPE:
    case AM_DNN_TYPE_FLOAT:
    case AM_DNN_TYPE_HEUR_MODE:
    case AM_DNN_TYPE_POINTWISE_MODE:
    case AM_DNN_TYPE_REDUCTION_OPERATOR_TYPE:
        return 4;
    default:
        return 8;
    }
}

int refuse(const std::string &what)
{
    note("cuDNN: " + what);
    return BAD_PARAM;
}

int finish_tensor(Descriptor &d)
{
    DnnTensor &t = d.tensor;
    auto dim = d.list<int64_t>(AM_DNN_ATTR_TENSOR_DIMENSIONS);
    auto stride = d.list<int64_t>(AM_DNN_ATTR_TENSOR_STRIDES);
    t.uid = d.value<int64_t>(AM_DNN_ATTR_TENSOR_UNIQUE_ID, 0);
    t.alignment = d.value<int64_t>(AM_DNN_ATTR_TENSOR_BYTE_ALIGNMENT, 0);
    t.dtype = d.value<int>(AM_DNN_ATTR_TENSOR_DATA_TYPE, -1);
    t.between = d.value<bool>(AM_DNN_ATTR_TENSOR_IS_VIRTUAL, false);
    t.value = d.value<bool>(AM_DNN_ATTR_TENSOR_IS_BY_VALUE, false);
    t.offsets = d.uid(AM_DNN_ATTR_TENSOR_RAGGED_OFFSET_DESC);
    if (dim.size() != 4 || stride.size() != 4 || t.uid == 0 || !dnn_bytes(t.dtype) ||
        t.alignment < 1)
        return refuse("a tensor without dims, strides, dtype, alignment or uid");
    for (int i = 0; i < 4; i++) {
        if (dim[size_t(i)] < 1)
            return refuse("a tensor without elements");
        t.dim[i] = dim[size_t(i)];
        t.stride[i] = stride[size_t(i)];
    }
    if (Descriptor *offsets = d.part(AM_DNN_ATTR_TENSOR_RAGGED_OFFSET_DESC))
        if (offsets->tensor.dim[0] != t.dim[0] + 1)
            return refuse("offsets that are not one more than samples");
    return AM_DNN_STATUS_SUCCESS;
}

void add_tensor(DnnProgram &p, const Descriptor &op, int name)
{
    if (Descriptor *d = op.part(name)) {
        p.tensors[d->tensor.uid] = d->tensor;
        if (Descriptor *offsets = d->part(AM_DNN_ATTR_TENSOR_RAGGED_OFFSET_DESC))
            p.tensors[offsets->tensor.uid] = offsets->tensor;
    }
}

bool add_operation(DnnProgram &p, const Descriptor &op)
{
    DnnOperation o = {};
    o.axis = -1;
    static const int matmul[] = {AM_DNN_ATTR_OPERATION_MATMUL_ADESC,
                                 AM_DNN_ATTR_OPERATION_MATMUL_BDESC, 0},
                     pointwise[] = {AM_DNN_ATTR_OPERATION_POINTWISE_XDESC,
                                    AM_DNN_ATTR_OPERATION_POINTWISE_BDESC,
                                    AM_DNN_ATTR_OPERATION_POINTWISE_TDESC},
                     reduction[] = {AM_DNN_ATTR_OPERATION_REDUCTION_XDESC, 0, 0},
                     reshape[] = {AM_DNN_ATTR_OPERATION_RESHAPE_XDESC, 0, 0};
    const int *in = nullptr;
    int out = 0;
    switch (op.type) {
    case AM_DNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR:
        o.kind = DnnKind::matmul;
        in = matmul;
        out = AM_DNN_ATTR_OPERATION_MATMUL_CDESC;
        for (int i = 0; i < 3; i++) {
            o.extent[i] = op.uid(AM_DNN_ATTR_OPERATION_MATMUL_GEMM_M_OVERRIDE_DESC + i);
            add_tensor(p, op, AM_DNN_ATTR_OPERATION_MATMUL_GEMM_M_OVERRIDE_DESC + i);
        }
        break;
    case AM_DNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR:
        o.kind = DnnKind::pointwise;
        in = pointwise;
        out = AM_DNN_ATTR_OPERATION_POINTWISE_YDESC;
        if (Descriptor *how = op.part(AM_DNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR)) {
            o.mode = how->value<int>(AM_DNN_ATTR_POINTWISE_MODE, -1);
            o.axis = how->value<int64_t>(AM_DNN_ATTR_POINTWISE_AXIS, -1);
        }
        break;
    case AM_DNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR:
        o.kind = DnnKind::reduction;
        in = reduction;
        out = AM_DNN_ATTR_OPERATION_REDUCTION_YDESC;
        if (Descriptor *how = op.part(AM_DNN_ATTR_OPERATION_REDUCTION_DESC))
            o.mode = how->value<int>(AM_DNN_ATTR_REDUCTION_OPERATOR, -1);
        break;
    case AM_DNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR:
        o.kind = DnnKind::reshape;
        in = reshape;
        out = AM_DNN_ATTR_OPERATION_RESHAPE_YDESC;
        break;
    default:
        return false;
    }
    for (int i = 0; i < 3; i++)
        if (in[i]) {
            o.in[i] = op.uid(in[i]);
            add_tensor(p, op, in[i]);
        }
    o.out = op.uid(out);
    add_tensor(p, op, out);
    p.operations.push_back(o);
    return o.in[0] && o.out;
}

int finish_graph(Descriptor &d)
{
    d.program = std::make_shared<DnnProgram>();
    for (Descriptor *op : d.list<Descriptor *>(AM_DNN_ATTR_OPERATIONGRAPH_OPS))
        if (!op->done || !add_operation(*d.program, *op))
            return refuse("an operation that is not finished, or not emulated");
    std::string problem = dnn_problem(*d.program);
    return problem.empty() ? int(AM_DNN_STATUS_SUCCESS) : refuse(problem);
}

int finish(Descriptor &d)
{
    switch (d.type) {
    case AM_DNN_BACKEND_TENSOR_DESCRIPTOR:
        return finish_tensor(d);
    case AM_DNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR:
        return finish_graph(d);
    case AM_DNN_BACKEND_ENGINEHEUR_DESCRIPTOR:
        if (Descriptor *graph = d.part(AM_DNN_ATTR_ENGINEHEUR_OPERATION_GRAPH))
            d.program = graph->program;
        return d.program ? int(AM_DNN_STATUS_SUCCESS) : refuse("heuristics without a graph");
    case AM_DNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR:
        if (fails_now(Failure::plan))
            return AM_DNN_STATUS_NOT_SUPPORTED;
        if (Descriptor *c = d.part(AM_DNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG)) {
            d.program = c->program;
            d.varies = c->varies;
        }
        return d.program && d.has(AM_DNN_ATTR_EXECUTION_PLAN_HANDLE)
                   ? int(AM_DNN_STATUS_SUCCESS)
                   : refuse("a plan without a configuration or handle");
    default:
        return AM_DNN_STATUS_SUCCESS;
    }
}

constexpr int64_t workspace_bytes = 1000;

int execute(Handle &h, Descriptor &plan, Descriptor &pack)
{
    Call call;
    Stream *s = find_stream(h.stream);
    if (call.problem || !s || fails_now(Failure::dnn))
        return EXECUTION_FAILED;
    auto uids = pack.list<int64_t>(AM_DNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
    auto pointers = pack.list<void *>(AM_DNN_ATTR_VARIANT_PACK_DATA_POINTERS);
    void *workspace = pack.value<void *>(AM_DNN_ATTR_VARIANT_PACK_WORKSPACE, nullptr);
    if (uids.size() != pointers.size() || !plan.done || !pack.done)
        return refuse("a pack of other numbers of uids and pointers");
    DnnRun r = {*plan.program, {}, {}};
    for (size_t i = 0; i < uids.size(); i++) {
        auto t = r.program.tensors.find(uids[i]);
        if (t == r.program.tensors.end())
            continue;
        if (reinterpret_cast<uintptr_t>(pointers[i]) % size_t(t->second.alignment))
            return refuse(format("tensor %lld is not aligned", (long long)uids[i]));
        bool fresh =
            t->second.value
                ? r.values.emplace(uids[i], dnn_read(pointers[i], 0, t->second.dtype)).second
                : r.memory.emplace(uids[i], pointers[i]).second;
        if (!fresh)
            return refuse(format("tensor %lld is named twice", (long long)uids[i]));
    }
    for (auto &t : r.program.tensors)
        if (!t.second.between && !r.memory.count(t.first) && !r.values.count(t.first))
            return refuse(format("tensor %lld has no pointer", (long long)t.first));
    bool varies = plan.varies;
    submit_library(s, [r, workspace, varies]() {
        // What lies there is lost: a workspace that is in use elsewhere shows.
        if (!check_operand("cudnnBackendExecute, workspace", workspace, size_t(workspace_bytes),
                           Access::write))
            return;
        memset(workspace, 0xff, size_t(workspace_bytes));
        if (!varies)
            dnn_run(r);
    });
    return AM_DNN_STATUS_SUCCESS;
}
} // namespace
} // namespace emu

using namespace emu;

#define EXPORTED extern "C" __attribute__((visibility("default")))

EXPORTED size_t cudnnGetVersion(void)
{
    return VERSION;
}

EXPORTED const char *cudnnGetErrorString(int status)
{
    return status == AM_DNN_STATUS_SUCCESS         ? "CUDNN_STATUS_SUCCESS"
           : status == AM_DNN_STATUS_NOT_SUPPORTED ? "CUDNN_STATUS_NOT_SUPPORTED"
           : status == EXECUTION_FAILED            ? "CUDNN_STATUS_EXECUTION_FAILED"
                                                   : "CUDNN_STATUS_BAD_PARAM";
}

EXPORTED int cudnnCreate(am_dnn_handle *handle)
{
    *handle = new Handle();
    alive++;
    return AM_DNN_STATUS_SUCCESS;
}

EXPORTED int cudnnDestroy(am_dnn_handle handle)
{
    delete static_cast<Handle *>(handle);
    alive--;
    return AM_DNN_STATUS_SUCCESS;
}

EXPORTED long am_emu_dnn_alive(void)
{
    return alive;
}

EXPORTED int cudnnSetStream(am_dnn_handle handle, cudaStream_t stream)
{
    static_cast<Handle *>(handle)->stream = stream;
    return AM_DNN_STATUS_SUCCESS;
}

EXPORTED int cudnnBackendCreateDescriptor(int type, am_dnn_descriptor *d)
{
    auto *made = new Descriptor();
    made->type = type;
    *d = made;
    alive++;
    return AM_DNN_STATUS_SUCCESS;
}

EXPORTED int cudnnBackendDestroyDescriptor(am_dnn_descriptor d)
{
    delete static_cast<Descriptor *>(d);
    alive--;
    return AM_DNN_STATUS_SUCCESS;
}

EXPORTED int cudnnBackendSetAttribute(am_dnn_descriptor d, int name, int type, int64_t count,
                                      const void *values)
{
    auto &x = *static_cast<Descriptor *>(d);
    if (x.done || count < 1 || !values)
        return refuse(format("attribute %d of a descriptor that is finished, or nothing", name));
    auto *bytes = static_cast<const char *>(values);
    x.attributes[name].assign(bytes, bytes + size_t(count) * bytes_of_type(type));
    return AM_DNN_STATUS_SUCCESS;
}

EXPORTED int cudnnBackendFinalize(am_dnn_descriptor d)
{
    auto &x = *static_cast<Descriptor *>(d);
    int status = finish(x);
    x.done = status == AM_DNN_STATUS_SUCCESS;
    return status;
}

EXPORTED int cudnnBackendGetAttribute(am_dnn_descriptor d, int name, int type, int64_t room,
                                      int64_t *count, void *values)
{
    auto &x = *static_cast<Descriptor *>(d);
    auto **parts = static_cast<Descriptor **>(values);
    (void)type;
    switch (name) {
    case AM_DNN_ATTR_ENGINEHEUR_RESULTS:
        *count = 2;
        for (int64_t i = 0; i < 2 && i < room; i++) {
            parts[i]->program = x.program;
            parts[i]->varies = i == 0;
        }
        return AM_DNN_STATUS_SUCCESS;
    case AM_DNN_ATTR_ENGINECFG_ENGINE:
        *count = 1;
        parts[0]->varies = x.varies;
        return AM_DNN_STATUS_SUCCESS;
    case AM_DNN_ATTR_ENGINE_NUMERICAL_NOTE:
        *count = x.varies;
        if (x.varies)
            *static_cast<int *>(values) = AM_DNN_NUMERICAL_NOTE_NONDETERMINISTIC;
        return AM_DNN_STATUS_SUCCESS;
    case AM_DNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE:
        *count = 1;
        *static_cast<int64_t *>(values) = workspace_bytes;
        return AM_DNN_STATUS_SUCCESS;
    default:
        return refuse(format("attribute %d can't be asked for", name));
    }
}

EXPORTED int cudnnBackendExecute(am_dnn_handle handle, am_dnn_descriptor plan,
                                 am_dnn_descriptor pack)
{
    return execute(*static_cast<Handle *>(handle), *static_cast<Descriptor *>(plan),
                   *static_cast<Descriptor *>(pack));
}
