/* cudnn_graph.h — cuDNN's backend API: the library, opened when it is first needed, graphs of
 * operations, and plans that run them. What is computed is not here: cudnn_attention.c. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#if defined(__cplusplus)
extern "C" {
#endif

enum {
#define N(name, value) AM_DNN_##name = value,
#include "cudnn_names.def"
#undef N
};

typedef void *am_dnn_descriptor;
typedef void *am_dnn_handle;

typedef struct am_dnn_library {
    void *module;
    long version; /* 92600 is 9.26.0 */
    size_t (*get_version)(void);
    const char *(*error_text)(int status);
    int (*create)(am_dnn_handle *handle);
    int (*set_stream)(am_dnn_handle handle, void *stream);
    int (*descriptor_new)(int type, am_dnn_descriptor *d);
    int (*descriptor_free)(am_dnn_descriptor d);
    int (*finalize)(am_dnn_descriptor d);
    int (*set)(am_dnn_descriptor d, int name, int type, int64_t count, const void *values);
    int (*get)(am_dnn_descriptor d, int name, int type, int64_t room, int64_t *count, void *values);
    int (*execute)(am_dnn_handle handle, am_dnn_descriptor plan, am_dnn_descriptor pack);
    int (*destroy)(am_dnn_handle handle);
} am_dnn_library;

/* Open libcudnn.so.9, or what AMLUA_CUDNN names. 1; or 0, and why in text[room]. */
int am_dnn_open(am_dnn_library *dnn, char *text, size_t room);
void am_dnn_close(am_dnn_library *dnn);

/* ---- graphs ---------------------------------------------------------------------------------
 * What fails is kept in the graph, and all that is asked of it afterwards is left undone: one look
 * at am_dnn_plan_new's result is enough. */

typedef struct am_dnn_tensor {
    am_dnn_descriptor d; /* NULL: there is none */
    int64_t dim[4], stride[4];
} am_dnn_tensor;

enum { AM_DNN_KEPT = 192, AM_DNN_OPS = 64 };

typedef struct am_dnn_graph {
    const am_dnn_library *dnn;
    int status;        /* the first that was not success */
    const char *where; /* and what was being made */
    int kept_count, op_count;
    am_dnn_descriptor kept[AM_DNN_KEPT], ops[AM_DNN_OPS];
} am_dnn_graph;

void am_dnn_graph_begin(am_dnn_graph *g, const am_dnn_library *dnn);
void am_dnn_graph_end(am_dnn_graph *g);

/* Memory that a run names by uid, from 1 on. offsets: of each entry of the first dim, in elements
 * of this tensor, or one without a descriptor. */
am_dnn_tensor am_dnn_memory(am_dnn_graph *g, int64_t uid, int dtype, const int64_t dim[4],
                            const int64_t stride[4], am_dnn_tensor offsets);
/* One number, which a run gives by its host address. */
am_dnn_tensor am_dnn_value(am_dnn_graph *g, int64_t uid, int dtype);
/* What is between operations, without memory. */
am_dnn_tensor am_dnn_between(am_dnn_graph *g, int dtype, const int64_t dim[4],
                             const int64_t stride[4], am_dnn_tensor offsets);

/* How many rows, columns and inner places of a product there are in each entry of the first dim;
 * without descriptors: all. */
typedef struct am_dnn_extent {
    am_dnn_tensor m, n, k;
} am_dnn_extent;

void am_dnn_matmul(am_dnn_graph *g, am_dnn_tensor a, am_dnn_tensor b, am_dnn_tensor c,
                   am_dnn_extent extent);
/* y = mode(x, b); b without a descriptor where mode has one operand. */
void am_dnn_pointwise(am_dnn_graph *g, int mode, int compute, am_dnn_tensor x, am_dnn_tensor b,
                      am_dnn_tensor y);
/* y = where ? x : other. */
void am_dnn_select(am_dnn_graph *g, am_dnn_tensor x, am_dnn_tensor other, am_dnn_tensor where,
                   am_dnn_tensor y);
/* y: the index along an axis of x. */
void am_dnn_index(am_dnn_graph *g, int axis, int compute, am_dnn_tensor x, am_dnn_tensor y);
/* y: x reduced where y's dims are smaller. */
void am_dnn_reduce(am_dnn_graph *g, int mode, am_dnn_tensor x, am_dnn_tensor y);
/* y: x with y's dims and strides. */
void am_dnn_reshape(am_dnn_graph *g, am_dnn_tensor x, am_dnn_tensor y);

/* ---- plans ---------------------------------------------------------------------------------- */

typedef struct am_dnn_plan {
    am_dnn_descriptor d;
    int64_t workspace; /* bytes */
} am_dnn_plan;

/* The device: a handle, or (for a machine without one) what describes it. */
typedef struct am_dnn_target {
    am_dnn_handle handle;
    am_dnn_descriptor described;
} am_dnn_target;

/* The best plan that the library's heuristics have for a graph, in at most `most` bytes of
 * workspace, always with the same bits. AM_DNN_STATUS_SUCCESS; or a status, with why in g. */
int am_dnn_plan_new(am_dnn_graph *g, am_dnn_target target, int64_t most, am_dnn_plan *plan);
void am_dnn_plan_free(const am_dnn_library *dnn, am_dnn_plan *plan);

/* Queue it on the handle's stream: memory and values by uid. A status. */
int am_dnn_run(const am_dnn_library *dnn, am_dnn_handle handle, const am_dnn_plan *plan, int count,
               const int64_t *uids, void *const *pointers, void *workspace);

#if defined(__cplusplus)
}
#endif
