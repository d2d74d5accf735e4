/* cudnn_graph.c — see cudnn_graph.h. */
#include "cudnn_graph.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Before it heuristics and masks have faults that cuDNN's own frontend works around. */
enum { OLDEST = 91801 };

/* ---- the library ---------------------------------------------------------------------------- */

int am_dnn_open(am_dnn_library *dnn, char *text, size_t room)
{
    static const char *const names[] = {
        "cudnnGetVersion",
        "cudnnGetErrorString",
        "cudnnCreate",
        "cudnnSetStream",
        "cudnnBackendCreateDescriptor",
        "cudnnBackendDestroyDescriptor",
        "cudnnBackendFinalize",
        "cudnnBackendSetAttribute",
        "cudnnBackendGetAttribute",
        "cudnnBackendExecute",
        "cudnnDestroy",
    };
    void *found[sizeof names / sizeof *names];
    const char *file = getenv("AMLUA_CUDNN");
    memset(dnn, 0, sizeof *dnn);
    dnn->module = dlopen(file ? file : "libcudnn.so.9", RTLD_NOW | RTLD_LOCAL);
    if (!dnn->module) {
        snprintf(text, room, "%s", dlerror());
        return 0;
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        found[i] = dlsym(dnn->module, names[i]);
        if (!found[i]) {
            snprintf(text, room, "it has no %s", names[i]);
            am_dnn_close(dnn);
            return 0;
        }
    }
    /* Pointers to functions are as wide as void *: POSIX. */
    memcpy(&dnn->get_version, found, sizeof found);
    dnn->version = (long)dnn->get_version();
    if (dnn->version < OLDEST) {
        snprintf(text, room, "it is version %ld, and %d is needed", dnn->version, OLDEST);
        am_dnn_close(dnn);
        return 0;
    }
    return 1;
}

void am_dnn_close(am_dnn_library *dnn)
{
    if (dnn->module)
        (void)dlclose(dnn->module);
    memset(dnn, 0, sizeof *dnn);
}

/* ---- graphs --------------------------------------------------------------------------------- */

void am_dnn_graph_begin(am_dnn_graph *g, const am_dnn_library *dnn)
{
    memset(g, 0, sizeof *g);
    g->dnn = dnn;
}

void am_dnn_graph_end(am_dnn_graph *g)
{
    while (g->kept_count > 0)
        (void)g->dnn->descriptor_free(g->kept[--g->kept_count]);
}

static void note(am_dnn_graph *g, int status, const char *where)
{
    if (g->status == AM_DNN_STATUS_SUCCESS && status != AM_DNN_STATUS_SUCCESS) {
        g->status = status;
        g->where = where;
    }
}

/* A descriptor that lives as long as the graph. */
static am_dnn_descriptor begin(am_dnn_graph *g, int type, const char *what)
{
    am_dnn_descriptor d = NULL;
    if (g->status != AM_DNN_STATUS_SUCCESS)
        return NULL;
    if (g->kept_count == AM_DNN_KEPT)
        note(g, AM_DNN_STATUS_NOT_SUPPORTED, "a graph of that many parts");
    else
        note(g, g->dnn->descriptor_new(type, &d), what);
    if (g->status != AM_DNN_STATUS_SUCCESS)
        return NULL;
    g->kept[g->kept_count++] = d;
    return d;
}

static void set(am_dnn_graph *g, am_dnn_descriptor d, int name, int type, int64_t count,
                const void *values, const char *what)
{
    if (g->status == AM_DNN_STATUS_SUCCESS)
        note(g, g->dnn->set(d, name, type, count, values), what);
}

static void set_descriptor(am_dnn_graph *g, am_dnn_descriptor d, int name, am_dnn_descriptor value,
                           const char *what)
{
    if (value)
        set(g, d, name, AM_DNN_TYPE_BACKEND_DESCRIPTOR, 1, &value, what);
}

static void set_enum(am_dnn_graph *g, am_dnn_descriptor d, int name, int type, int value,
                     const char *what)
{
    set(g, d, name, type, 1, &value, what);
}

static void finish(am_dnn_graph *g, am_dnn_descriptor d, const char *what)
{
    if (g->status == AM_DNN_STATUS_SUCCESS)
        note(g, g->dnn->finalize(d), what);
}

static void finish_op(am_dnn_graph *g, am_dnn_descriptor d, const char *what)
{
    finish(g, d, what);
    if (g->status != AM_DNN_STATUS_SUCCESS)
        return;
    if (g->op_count == AM_DNN_OPS)
        note(g, AM_DNN_STATUS_NOT_SUPPORTED, "a graph of that many operations");
    else
        g->ops[g->op_count++] = d;
}

typedef struct tensor_kind {
    int64_t uid, alignment;
    bool between, value;
} tensor_kind;

static am_dnn_tensor tensor(am_dnn_graph *g, tensor_kind kind, int dtype, const int64_t dim[4],
                            const int64_t stride[4], am_dnn_tensor offsets)
{
    const char *what = "a tensor";
    am_dnn_tensor t = {.d = begin(g, AM_DNN_BACKEND_TENSOR_DESCRIPTOR, what)};
    memcpy(t.dim, dim, sizeof t.dim);
    memcpy(t.stride, stride, sizeof t.stride);
    set_enum(g, t.d, AM_DNN_ATTR_TENSOR_DATA_TYPE, AM_DNN_TYPE_DATA_TYPE, dtype, what);
    set(g, t.d, AM_DNN_ATTR_TENSOR_DIMENSIONS, AM_DNN_TYPE_INT64, 4, dim, what);
    set(g, t.d, AM_DNN_ATTR_TENSOR_STRIDES, AM_DNN_TYPE_INT64, 4, stride, what);
    set(g, t.d, AM_DNN_ATTR_TENSOR_UNIQUE_ID, AM_DNN_TYPE_INT64, 1, &kind.uid, what);
    set(g, t.d, AM_DNN_ATTR_TENSOR_BYTE_ALIGNMENT, AM_DNN_TYPE_INT64, 1, &kind.alignment, what);
    if (kind.between)
        set(g, t.d, AM_DNN_ATTR_TENSOR_IS_VIRTUAL, AM_DNN_TYPE_BOOLEAN, 1, &kind.between, what);
    if (kind.value)
        set(g, t.d, AM_DNN_ATTR_TENSOR_IS_BY_VALUE, AM_DNN_TYPE_BOOLEAN, 1, &kind.value, what);
    set_descriptor(g, t.d, AM_DNN_ATTR_TENSOR_RAGGED_OFFSET_DESC, offsets.d, what);
    finish(g, t.d, what);
    return t;
}

am_dnn_tensor am_dnn_memory(am_dnn_graph *g, int64_t uid, int dtype, const int64_t dim[4],
                            const int64_t stride[4], am_dnn_tensor offsets)
{
    return tensor(g, (tensor_kind){.uid = uid, .alignment = 16}, dtype, dim, stride, offsets);
}

am_dnn_tensor am_dnn_value(am_dnn_graph *g, int64_t uid, int dtype)
{
    static const int64_t one[4] = {1, 1, 1, 1};
    return tensor(g, (tensor_kind){.uid = uid, .alignment = 4, .value = true}, dtype, one, one,
                  (am_dnn_tensor){0});
}

am_dnn_tensor am_dnn_between(am_dnn_graph *g, int dtype, const int64_t dim[4],
                             const int64_t stride[4], am_dnn_tensor offsets)
{
    /* A number that no memory has. */
    tensor_kind kind = {.uid = 1000 + g->kept_count, .alignment = 16, .between = true};
    return tensor(g, kind, dtype, dim, stride, offsets);
}

void am_dnn_matmul(am_dnn_graph *g, am_dnn_tensor a, am_dnn_tensor b, am_dnn_tensor c,
                   am_dnn_extent extent)
{
    const char *what = "a product";
    am_dnn_descriptor how = begin(g, AM_DNN_BACKEND_MATMUL_DESCRIPTOR, what);
    set_enum(g, how, AM_DNN_ATTR_MATMUL_COMP_TYPE, AM_DNN_TYPE_DATA_TYPE, AM_DNN_DATA_FLOAT, what);
    finish(g, how, what);
    am_dnn_descriptor op = begin(g, AM_DNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, what);
    set_descriptor(g, op, AM_DNN_ATTR_OPERATION_MATMUL_ADESC, a.d, what);
    set_descriptor(g, op, AM_DNN_ATTR_OPERATION_MATMUL_BDESC, b.d, what);
    set_descriptor(g, op, AM_DNN_ATTR_OPERATION_MATMUL_CDESC, c.d, what);
    set_descriptor(g, op, AM_DNN_ATTR_OPERATION_MATMUL_DESC, how, what);
    set_descriptor(g, op, AM_DNN_ATTR_OPERATION_MATMUL_GEMM_M_OVERRIDE_DESC, extent.m.d, what);
    set_descriptor(g, op, AM_DNN_ATTR_OPERATION_MATMUL_GEMM_N_OVERRIDE_DESC, extent.n.d, what);
    set_descriptor(g, op, AM_DNN_ATTR_OPERATION_MATMUL_GEMM_K_OVERRIDE_DESC, extent.k.d, what);
    finish_op(g, op, what);
}

static void pointwise(am_dnn_graph *g, int mode, int64_t axis, int compute,
                      const am_dnn_tensor operands[3], am_dnn_tensor y)
{
    const char *what = "a pointwise operation";
    am_dnn_descriptor how = begin(g, AM_DNN_BACKEND_POINTWISE_DESCRIPTOR, what);
    set_enum(g, how, AM_DNN_ATTR_POINTWISE_MODE, AM_DNN_TYPE_POINTWISE_MODE, mode, what);
    set_enum(g, how, AM_DNN_ATTR_POINTWISE_MATH_PREC, AM_DNN_TYPE_DATA_TYPE, compute, what);
    if (axis >= 0)
        set(g, how, AM_DNN_ATTR_POINTWISE_AXIS, AM_DNN_TYPE_INT64, 1, &axis, what);
    finish(g, how, what);
    am_dnn_descriptor op = begin(g, AM_DNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, what);
    set_descriptor(g, op, AM_DNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, how, what);
    set_descriptor(g, op, AM_DNN_ATTR_OPERATION_POINTWISE_XDESC, operands[0].d, what);
    set_descriptor(g, op, AM_DNN_ATTR_OPERATION_POINTWISE_BDESC, operands[1].d, what);
    set_descriptor(g, op, AM_DNN_ATTR_OPERATION_POINTWISE_TDESC, operands[2].d, what);
    set_descriptor(g, op, AM_DNN_ATTR_OPERATION_POINTWISE_YDESC, y.d, what);
    finish_op(g, op, what);
}

void am_dnn_pointwise(am_dnn_graph *g, int mode, int compute, am_dnn_tensor x, am_dnn_tensor b,
                      am_dnn_tensor y)
{
    pointwise(g, mode, -1, compute, (am_dnn_tensor[3]){x, b}, y);
}

void am_dnn_select(am_dnn_graph *g, am_dnn_tensor x, am_dnn_tensor other, am_dnn_tensor where,
                   am_dnn_tensor y)
{
    pointwise(g, AM_DNN_POINTWISE_BINARY_SELECT, -1, AM_DNN_DATA_FLOAT,
              (am_dnn_tensor[3]){x, other, where}, y);
}

void am_dnn_index(am_dnn_graph *g, int axis, int compute, am_dnn_tensor x, am_dnn_tensor y)
{
    pointwise(g, AM_DNN_POINTWISE_GEN_INDEX, axis, compute, (am_dnn_tensor[3]){x}, y);
}

void am_dnn_reduce(am_dnn_graph *g, int mode, am_dnn_tensor x, am_dnn_tensor y)
{
    const char *what = "a reduction";
    am_dnn_descriptor how = begin(g, AM_DNN_BACKEND_REDUCTION_DESCRIPTOR, what);
    set_enum(g, how, AM_DNN_ATTR_REDUCTION_OPERATOR, AM_DNN_TYPE_REDUCTION_OPERATOR_TYPE, mode,
             what);
    set_enum(g, how, AM_DNN_ATTR_REDUCTION_COMP_TYPE, AM_DNN_TYPE_DATA_TYPE, AM_DNN_DATA_FLOAT,
             what);
    finish(g, how, what);
    am_dnn_descriptor op = begin(g, AM_DNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR, what);
    set_descriptor(g, op, AM_DNN_ATTR_OPERATION_REDUCTION_XDESC, x.d, what);
    set_descriptor(g, op, AM_DNN_ATTR_OPERATION_REDUCTION_YDESC, y.d, what);
    set_descriptor(g, op, AM_DNN_ATTR_OPERATION_REDUCTION_DESC, how, what);
    finish_op(g, op, what);
}

void am_dnn_reshape(am_dnn_graph *g, am_dnn_tensor x, am_dnn_tensor y)
{
    const char *what = "a reshape";
    am_dnn_descriptor op = begin(g, AM_DNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR, what);
    set_descriptor(g, op, AM_DNN_ATTR_OPERATION_RESHAPE_XDESC, x.d, what);
    set_descriptor(g, op, AM_DNN_ATTR_OPERATION_RESHAPE_YDESC, y.d, what);
    finish_op(g, op, what);
}

/* ---- plans ---------------------------------------------------------------------------------- */

enum { CONFIGURATIONS = 16, NOTES = 16 };

/* Whether an engine says that its sums depend on the order of threads; 1 where it can't be asked.
 */
static int varies(am_dnn_graph *g, am_dnn_descriptor configuration)
{
    const am_dnn_library *dnn = g->dnn;
    am_dnn_descriptor engine = begin(g, AM_DNN_BACKEND_ENGINE_DESCRIPTOR, "an engine");
    int notes[NOTES];
    int64_t count = 0;
    if (!engine ||
        dnn->get(configuration, AM_DNN_ATTR_ENGINECFG_ENGINE, AM_DNN_TYPE_BACKEND_DESCRIPTOR, 1,
                 &count, &engine) != AM_DNN_STATUS_SUCCESS ||
        dnn->get(engine, AM_DNN_ATTR_ENGINE_NUMERICAL_NOTE, AM_DNN_TYPE_NUMERICAL_NOTE, NOTES,
                 &count, notes) != AM_DNN_STATUS_SUCCESS)
        return 1;
    for (int64_t i = 0; i < count && i < NOTES; i++)
        if (notes[i] == AM_DNN_NUMERICAL_NOTE_NONDETERMINISTIC)
            return 1;
    return 0;
}

/* A plan of one configuration. */
static int plan_of(const am_dnn_library *dnn, am_dnn_target target, am_dnn_descriptor configuration,
                   am_dnn_plan *plan)
{
    int64_t count = 0;
    int rc = dnn->descriptor_new(AM_DNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &plan->d);
    if (rc != AM_DNN_STATUS_SUCCESS)
        return rc;
    if (target.handle)
        rc = dnn->set(plan->d, AM_DNN_ATTR_EXECUTION_PLAN_HANDLE, AM_DNN_TYPE_HANDLE, 1,
                      &target.handle);
    else
        rc = dnn->set(plan->d, AM_DNN_ATTR_EXECUTION_PLAN_DEVICEPROP,
                      AM_DNN_TYPE_BACKEND_DESCRIPTOR, 1, &target.described);
    if (rc == AM_DNN_STATUS_SUCCESS)
        rc = dnn->set(plan->d, AM_DNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG,
                      AM_DNN_TYPE_BACKEND_DESCRIPTOR, 1, &configuration);
    if (rc == AM_DNN_STATUS_SUCCESS)
        rc = dnn->finalize(plan->d);
    if (rc == AM_DNN_STATUS_SUCCESS)
        rc = dnn->get(plan->d, AM_DNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, AM_DNN_TYPE_INT64, 1,
                      &count, &plan->workspace);
    if (rc != AM_DNN_STATUS_SUCCESS)
        am_dnn_plan_free(dnn, plan);
    return rc;
}

int am_dnn_plan_new(am_dnn_graph *g, am_dnn_target target, int64_t most, am_dnn_plan *plan)
{
    const am_dnn_library *dnn = g->dnn;
    const char *what = "the graph";
    am_dnn_descriptor found[CONFIGURATIONS];
    int64_t count = 0;
    memset(plan, 0, sizeof *plan);
    am_dnn_descriptor graph = begin(g, AM_DNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, what);
    if (target.handle)
        set(g, graph, AM_DNN_ATTR_OPERATIONGRAPH_HANDLE, AM_DNN_TYPE_HANDLE, 1, &target.handle,
            what);
    set(g, graph, AM_DNN_ATTR_OPERATIONGRAPH_OPS, AM_DNN_TYPE_BACKEND_DESCRIPTOR, g->op_count,
        g->ops, what);
    finish(g, graph, what);
    what = "heuristics";
    am_dnn_descriptor heuristics = begin(g, AM_DNN_BACKEND_ENGINEHEUR_DESCRIPTOR, what);
    set_descriptor(g, heuristics, AM_DNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph, what);
    set_enum(g, heuristics, AM_DNN_ATTR_ENGINEHEUR_MODE, AM_DNN_TYPE_HEUR_MODE, AM_DNN_HEUR_MODE_A,
             what);
    if (!target.handle)
        set_descriptor(g, heuristics, AM_DNN_ATTR_ENGINEHEUR_DEVICEPROP, target.described, what);
    finish(g, heuristics, what);
    for (int i = 0; i < CONFIGURATIONS; i++)
        found[i] = begin(g, AM_DNN_BACKEND_ENGINECFG_DESCRIPTOR, what);
    if (g->status == AM_DNN_STATUS_SUCCESS)
        note(g,
             dnn->get(heuristics, AM_DNN_ATTR_ENGINEHEUR_RESULTS, AM_DNN_TYPE_BACKEND_DESCRIPTOR,
                      CONFIGURATIONS, &count, found),
             what);
    if (g->status != AM_DNN_STATUS_SUCCESS)
        return g->status;
    int rc = AM_DNN_STATUS_NOT_SUPPORTED;
    for (int64_t i = 0; i < count && i < CONFIGURATIONS; i++) {
        if (varies(g, found[i]))
            continue;
        rc = plan_of(dnn, target, found[i], plan);
        if (rc == AM_DNN_STATUS_SUCCESS && plan->workspace <= most)
            return rc;
        am_dnn_plan_free(dnn, plan);
        rc = AM_DNN_STATUS_NOT_SUPPORTED;
    }
    note(g, rc, "a plan");
    return g->status;
}

void am_dnn_plan_free(const am_dnn_library *dnn, am_dnn_plan *plan)
{
    if (plan->d)
        (void)dnn->descriptor_free(plan->d);
    memset(plan, 0, sizeof *plan);
}

int am_dnn_run(const am_dnn_library *dnn, am_dnn_handle handle, const am_dnn_plan *plan, int count,
               const int64_t *uids, void *const *pointers, void *workspace)
{
    am_dnn_descriptor pack;
    int rc = dnn->descriptor_new(AM_DNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack);
    if (rc != AM_DNN_STATUS_SUCCESS)
        return rc;
    rc = dnn->set(pack, AM_DNN_ATTR_VARIANT_PACK_UNIQUE_IDS, AM_DNN_TYPE_INT64, count, uids);
    if (rc == AM_DNN_STATUS_SUCCESS)
        rc = dnn->set(pack, AM_DNN_ATTR_VARIANT_PACK_DATA_POINTERS, AM_DNN_TYPE_VOID_PTR, count,
                      pointers);
    if (rc == AM_DNN_STATUS_SUCCESS)
        rc =
            dnn->set(pack, AM_DNN_ATTR_VARIANT_PACK_WORKSPACE, AM_DNN_TYPE_VOID_PTR, 1, &workspace);
    if (rc == AM_DNN_STATUS_SUCCESS)
        rc = dnn->finalize(pack);
    if (rc == AM_DNN_STATUS_SUCCESS)
        rc = dnn->execute(handle, plan->d, pack);
    (void)dnn->descriptor_free(pack);
    return rc;
}
