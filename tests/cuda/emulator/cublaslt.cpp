// cublaslt.cpp — cuBLASLt over a product on the host. It refuses what cuBLASLt refuses, as far as
// that is documented, and whatever it doesn't know: an attribute that is ignored would be a wrong
// result. An algorithm is good for the problem, the alignment and the workspace that it was asked
// for.
#include <cublasLt.h>

#include <cstring>
#include <memory>

#include "matmul.h"
#include "memory.h"
#include "options.h"
#include "report.h"
#include "runtime.h"
#include "shadow.h"

namespace emu
{
namespace
{
struct Description {
    cublasComputeType_t compute;
    cudaDataType_t scale_type;
    cublasOperation_t a = CUBLAS_OP_N, b = CUBLAS_OP_N, c = CUBLAS_OP_N;
    cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    cublasLtPointerMode_t pointer_mode = CUBLASLT_POINTER_MODE_HOST;
    const void *bias = nullptr;
    cudaDataType_t bias_type = cudaDataType_t(-1); // d's
    const void *a_scale = nullptr, *b_scale = nullptr;
    cublasLtMatmulMatrixScale_t a_scale_mode = CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F;
    cublasLtMatmulMatrixScale_t b_scale_mode = CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F;
    int8_t fast_accumulation = 0;
};

struct Layout {
    cudaDataType_t type;
    uint64_t rows, columns;
    int64_t leading;
    cublasLtOrder_t order = CUBLASLT_ORDER_COL;
    int32_t batches = 1;
    int64_t batch_stride = 0;
};

struct Preference {
    uint64_t workspace = 0;
    uint32_t alignment[4] = {256, 256, 256, 256}; // of a, b, c, d
};

// What an algorithm holds: 64 bytes that only we read.
struct Algorithm {
    uint64_t problem; // a hash
    uint64_t workspace;
    uint32_t alignment[4];
};
static_assert(sizeof(Algorithm) <= sizeof(cublasLtMatmulAlgo_t), "an algorithm has 64 bytes");

constexpr uint64_t workspace_step = 4096;

uint64_t hash(uint64_t h, uint64_t value)
{
    return (h ^ value) * 0x100000001b3ull;
}

uint64_t hash(uint64_t h, const Layout &l)
{
    for (uint64_t value : {uint64_t(l.type), l.rows, l.columns, uint64_t(l.leading),
                           uint64_t(l.order), uint64_t(l.batches), uint64_t(l.batch_stride)})
        h = hash(h, value);
    return h;
}

// Everything of a product but its addresses.
struct Problem {
    Description desc;
    Layout a, b, c, d;

    uint64_t key() const
    {
        uint64_t h = 0xcbf29ce484222325ull;
        for (const Layout *l : {&a, &b, &c, &d})
            h = hash(h, *l);
        for (int value : {int(desc.compute), int(desc.a), int(desc.b), int(desc.epilogue),
                          int(desc.a_scale_mode), int(desc.b_scale_mode)})
            h = hash(h, uint64_t(value));
        return h;
    }
};

bool is_fp8(cudaDataType_t t)
{
    return t == CUDA_R_8F_E4M3 || t == CUDA_R_8F_E5M2;
}

// As the operation wants it: a is m x k.
Matrix matrix_of(const Layout &l, cublasOperation_t op, const void *data)
{
    Matrix m = {const_cast<void *>(data),
                l.type,
                int64_t(l.rows),
                int64_t(l.columns),
                1,
                l.leading,
                l.batch_stride};
    if (l.order == CUBLASLT_ORDER_ROW)
        std::swap(m.row_stride, m.column_stride);
    if (op != CUBLAS_OP_N) {
        std::swap(m.rows, m.columns);
        std::swap(m.row_stride, m.column_stride);
    }
    return m;
}

// cuBLAS documentation, cublasLtMatmul: "FP8 kernels have requirements".
cublasStatus_t check_fp8(const Problem &p, const Matrix &a, const Matrix &d)
{
    if (capability() < 89 || p.desc.compute != CUBLAS_COMPUTE_32F || !is_fp8(p.a.type) ||
        !is_fp8(p.b.type))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (p.a.type == CUDA_R_8F_E5M2 && p.b.type == CUDA_R_8F_E5M2)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    bool tn = p.desc.a == CUBLAS_OP_T && p.desc.b == CUBLAS_OP_N;
    for (const Layout *l : {&p.a, &p.b, &p.c, &p.d})
        tn = tn && l->order == CUBLASLT_ORDER_COL;
    if (!tn || d.rows % 16 || a.columns % 16 || p.a.leading % 16 || p.b.leading % 16)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    // Vectors of scales: since 12.9, from Hopper on, and of both operands.
    bool a_each = p.desc.a_scale_mode == CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
    bool b_each = p.desc.b_scale_mode == CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
    if (a_each != b_each || (a_each && (capability() < 90 || !p.desc.a_scale || !p.desc.b_scale)))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    bool out = p.d.type == CUDA_R_32F || p.d.type == CUDA_R_16BF || p.d.type == CUDA_R_16F;
    return out && p.c.type == p.d.type ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

// The table of types in the documentation of cublasLtMatmul, as far as an engine needs it.
cublasStatus_t check_types(const Problem &p)
{
    cudaDataType_t in = p.a.type, out = p.d.type;
    if (p.desc.compute == CUBLAS_COMPUTE_64F)
        return in == CUDA_R_64F && p.b.type == in && out == in && p.c.type == in &&
                       p.desc.scale_type == in
                   ? CUBLAS_STATUS_SUCCESS
                   : CUBLAS_STATUS_NOT_SUPPORTED;
    if (p.desc.compute != CUBLAS_COMPUTE_32F && p.desc.compute != CUBLAS_COMPUTE_32F_PEDANTIC)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (p.desc.scale_type != CUDA_R_32F || p.b.type != in || p.c.type != out ||
        (out != in && out != CUDA_R_32F))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    return in == CUDA_R_32F || in == CUDA_R_16BF || in == CUDA_R_16F ? CUBLAS_STATUS_SUCCESS
                                                                     : CUBLAS_STATUS_NOT_SUPPORTED;
}

bool is_legal_layout(const Layout &l)
{
    uint64_t inner = l.order == CUBLASLT_ORDER_ROW ? l.columns : l.rows;
    return l.rows && l.columns && l.batches >= 1 && l.leading >= int64_t(inner);
}

cublasStatus_t check_problem(const Problem &p)
{
    for (const Layout *l : {&p.a, &p.b, &p.c, &p.d})
        if (!is_matrix_type(l->type) || !is_legal_layout(*l) || l->batches != p.d.batches)
            return CUBLAS_STATUS_INVALID_VALUE;
    Matrix a = matrix_of(p.a, p.desc.a, nullptr), b = matrix_of(p.b, p.desc.b, nullptr);
    Matrix c = matrix_of(p.c, CUBLAS_OP_N, nullptr), d = matrix_of(p.d, CUBLAS_OP_N, nullptr);
    if (a.rows != d.rows || b.columns != d.columns || a.columns != b.rows || c.rows != d.rows ||
        c.columns != d.columns || c.row_stride != d.row_stride)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (p.desc.epilogue != CUBLASLT_EPILOGUE_DEFAULT && p.desc.epilogue != CUBLASLT_EPILOGUE_BIAS)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    bool fp8 = is_fp8(p.a.type) || is_fp8(p.b.type);
    if (!fp8 && (p.desc.a_scale || p.desc.b_scale || p.desc.fast_accumulation))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    return fp8 ? check_fp8(p, a, d) : check_types(p);
}

// Every run of elements without a gap; nothing is said of the gaps.
bool check_matrix(const char *name, Matrix m, int64_t batches, Access access)
{
    if (m.row_stride > m.column_stride) {
        std::swap(m.rows, m.columns);
        std::swap(m.row_stride, m.column_stride);
    }
    size_t size = bytes_of(m.type);
    bool dense = m.row_stride == 1 && (m.column_stride == m.rows || m.columns == 1);
    for (int64_t k = 0; k < batches; k++) {
        auto *p = static_cast<char *>(m.data) + size_t(k * m.batch_stride) * size;
        size_t run = size_t(m.rows) * size;
        if (dense && !check_operand(name, p, run * size_t(m.columns), access))
            return false;
        for (int64_t j = 0; !dense && j < m.columns; j++)
            if (!check_operand(name, p + size_t(j * m.column_stride) * size, run, access))
                return false;
    }
    return true;
}

struct Product {
    Problem problem;
    const void *a, *b, *c;
    void *d, *workspace;
    double alpha, beta;
    size_t workspace_bytes;
};

// A scale of an fp8 operand: one number, or one for each row of a or column of b.
bool take_scale(const char *name, const void *p, cublasLtMatmulMatrixScale_t mode, int64_t n,
                double &alpha, const float *&each)
{
    bool one = mode == CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F;
    if (!p)
        return true;
    if (!check_operand(name, p, sizeof(float) * size_t(one ? 1 : n), Access::read))
        return false;
    if (one)
        alpha *= double(*static_cast<const float *>(p));
    else
        each = static_cast<const float *>(p);
    return true;
}

void run(const Product &x)
{
    const Problem &p = x.problem;
    const Description &desc = p.desc;
    Matrix a = matrix_of(p.a, desc.a, x.a), b = matrix_of(p.b, desc.b, x.b);
    Matrix c = matrix_of(p.c, CUBLAS_OP_N, x.c), d = matrix_of(p.d, CUBLAS_OP_N, x.d);
    Epilogue e = {x.alpha, x.beta, nullptr, CUDA_R_32F, nullptr, nullptr};
    bool good = check_matrix("cublasLtMatmul, A", a, p.a.batches, Access::read) &&
                check_matrix("cublasLtMatmul, B", b, p.b.batches, Access::read) &&
                (x.beta == 0 || check_matrix("cublasLtMatmul, C", c, p.c.batches, Access::read)) &&
                take_scale("cublasLtMatmul, A's scale", desc.a_scale, desc.a_scale_mode, a.rows,
                           e.alpha, e.row_scale) &&
                take_scale("cublasLtMatmul, B's scale", desc.b_scale, desc.b_scale_mode, b.columns,
                           e.alpha, e.column_scale);
    if (good && desc.epilogue == CUBLASLT_EPILOGUE_BIAS) {
        e.bias = desc.bias;
        e.bias_type = desc.bias_type == cudaDataType_t(-1) ? p.d.type : desc.bias_type;
        good = check_operand("cublasLtMatmul, bias", e.bias, bytes_of(e.bias_type) * size_t(d.rows),
                             Access::read);
    }
    // What lies there is lost: a workspace that is in use elsewhere shows.
    if (good && x.workspace_bytes &&
        (good = check_operand("cublasLtMatmul, workspace", x.workspace, x.workspace_bytes,
                              Access::write)))
        memset(x.workspace, 0xff, x.workspace_bytes);
    if (good && check_matrix("cublasLtMatmul, D", d, p.d.batches, Access::write))
        multiply(a, b, c, d, p.d.batches, e, desc.compute == CUBLAS_COMPUTE_64F);
}

bool is_aligned(const void *p, uint64_t to)
{
    return reinterpret_cast<uintptr_t>(p) % to == 0;
}

uint64_t workspace_for(const Problem &p, uint64_t most)
{
    // Long sums are split: it is asked for as much as there is, up to a little.
    uint64_t k = p.desc.a == CUBLAS_OP_N ? p.a.columns : p.a.rows;
    return k < 64 ? 0 : std::min(most / 256 * 256, workspace_step);
}

// Attributes: where one lies, and its size. NULL: unknown.
struct Field {
    void *p;
    size_t bytes;
};
template <class T> Field field(T &x)
{
    return {&x, sizeof x};
}

Field field_of(Description &d, cublasLtMatmulDescAttributes_t a)
{
    switch (a) {
    case CUBLASLT_MATMUL_DESC_POINTER_MODE:
        return field(d.pointer_mode);
    case CUBLASLT_MATMUL_DESC_TRANSA:
        return field(d.a);
    case CUBLASLT_MATMUL_DESC_TRANSB:
        return field(d.b);
    case CUBLASLT_MATMUL_DESC_TRANSC:
        return field(d.c);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
        return field(d.epilogue);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
        return field(d.bias);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
        return field(d.bias_type);
    case CUBLASLT_MATMUL_DESC_A_SCALE_POINTER:
        return field(d.a_scale);
    case CUBLASLT_MATMUL_DESC_B_SCALE_POINTER:
        return field(d.b_scale);
    case CUBLASLT_MATMUL_DESC_A_SCALE_MODE:
        return field(d.a_scale_mode);
    case CUBLASLT_MATMUL_DESC_B_SCALE_MODE:
        return field(d.b_scale_mode);
    case CUBLASLT_MATMUL_DESC_FAST_ACCUM:
        return field(d.fast_accumulation);
    default:
        return {nullptr, 0};
    }
}

Field field_of(Layout &l, cublasLtMatrixLayoutAttribute_t a)
{
    switch (a) {
    case CUBLASLT_MATRIX_LAYOUT_TYPE:
        return field(l.type);
    case CUBLASLT_MATRIX_LAYOUT_ORDER:
        return field(l.order);
    case CUBLASLT_MATRIX_LAYOUT_ROWS:
        return field(l.rows);
    case CUBLASLT_MATRIX_LAYOUT_COLS:
        return field(l.columns);
    case CUBLASLT_MATRIX_LAYOUT_LD:
        return field(l.leading);
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT:
        return field(l.batches);
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET:
        return field(l.batch_stride);
    default:
        return {nullptr, 0};
    }
}

Field field_of(Preference &p, cublasLtMatmulPreferenceAttributes_t a)
{
    switch (a) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
        return field(p.workspace);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
        return field(p.alignment[0]);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
        return field(p.alignment[1]);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
        return field(p.alignment[2]);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
        return field(p.alignment[3]);
    default:
        return {nullptr, 0};
    }
}

cublasStatus_t store(Field f, const char *what, int attribute, const void *value, size_t bytes)
{
    if (!f.p) {
        note(format("%s: attribute %d is not emulated", what, attribute));
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
    if (!value || bytes != f.bytes)
        return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(f.p, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t check_values(const Description &d)
{
    auto known = [](cublasLtMatmulMatrixScale_t m) {
        return m == CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F ||
               m == CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
    };
    bool good = d.pointer_mode == CUBLASLT_POINTER_MODE_HOST && d.c == CUBLAS_OP_N &&
                known(d.a_scale_mode) && known(d.b_scale_mode);
    return good ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

double scalar(const void *p, cudaDataType_t type)
{
    return read_element(p, 0, type);
}
} // namespace
} // namespace emu

using namespace emu;

extern "C" {
cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    Call c;
    if (c.problem)
        return CUBLAS_STATUS_NOT_INITIALIZED;
    *handle = reinterpret_cast<cublasLtHandle_t>(new char);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    delete reinterpret_cast<char *>(handle);
    return CUBLAS_STATUS_SUCCESS;
}

size_t cublasLtGetVersion(void)
{
    return CUBLAS_VERSION;
}

const char *cublasLtGetStatusName(cublasStatus_t status)
{
    switch (status) {
    case CUBLAS_STATUS_SUCCESS:
        return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED:
        return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_INVALID_VALUE:
        return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_NOT_SUPPORTED:
        return "CUBLAS_STATUS_NOT_SUPPORTED";
    case CUBLAS_STATUS_EXECUTION_FAILED:
        return "CUBLAS_STATUS_EXECUTION_FAILED";
    default:
        return "another status of cuBLAS";
    }
}

const char *cublasLtGetStatusString(cublasStatus_t status)
{
    switch (status) {
    case CUBLAS_STATUS_SUCCESS:
        return "success";
    case CUBLAS_STATUS_NOT_INITIALIZED:
        return "the library was not initialized";
    case CUBLAS_STATUS_INVALID_VALUE:
        return "an unsupported value or parameter was passed to the function";
    case CUBLAS_STATUS_NOT_SUPPORTED:
        return "the requested functionality is not supported";
    case CUBLAS_STATUS_EXECUTION_FAILED:
        return "the function failed to launch on the GPU";
    default:
        return cublasLtGetStatusName(status);
    }
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *desc, cublasComputeType_t compute,
                                        cudaDataType_t scale)
{
    auto *d = new Description();
    d->compute = compute;
    d->scale_type = scale;
    *desc = reinterpret_cast<cublasLtMatmulDesc_t>(d);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc)
{
    delete reinterpret_cast<Description *>(desc);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t bytes)
{
    auto &d = *reinterpret_cast<Description *>(desc);
    cublasStatus_t s = store(field_of(d, attribute), "cublasLtMatmulDesc", attribute, value, bytes);
    return s == CUBLAS_STATUS_SUCCESS ? check_values(d) : s;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType type,
                                          uint64_t rows, uint64_t columns, int64_t leading)
{
    auto *l = new Layout();
    l->type = type;
    l->rows = rows;
    l->columns = columns;
    l->leading = leading;
    *layout = reinterpret_cast<cublasLtMatrixLayout_t>(l);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout)
{
    delete reinterpret_cast<Layout *>(layout);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute,
                                                const void *value, size_t bytes)
{
    auto &l = *reinterpret_cast<Layout *>(layout);
    cublasStatus_t s =
        store(field_of(l, attribute), "cublasLtMatrixLayout", attribute, value, bytes);
    if (s == CUBLAS_STATUS_SUCCESS && l.order != CUBLASLT_ORDER_COL &&
        l.order != CUBLASLT_ORDER_ROW)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    return s;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference)
{
    *preference = reinterpret_cast<cublasLtMatmulPreference_t>(new Preference());
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference)
{
    delete reinterpret_cast<Preference *>(preference);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void *value, size_t bytes)
{
    return store(field_of(*reinterpret_cast<Preference *>(preference), attribute),
                 "cublasLtMatmulPreference", attribute, value, bytes);
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t results[], int *count)
{
    Problem p = {*reinterpret_cast<Description *>(desc), *reinterpret_cast<Layout *>(a),
                 *reinterpret_cast<Layout *>(b), *reinterpret_cast<Layout *>(c),
                 *reinterpret_cast<Layout *>(d)};
    *count = 0;
    if (wanted < 1)
        return CUBLAS_STATUS_INVALID_VALUE;
    cublasStatus_t s = check_problem(p);
    if (s != CUBLAS_STATUS_SUCCESS)
        return s;
    auto &likes = *reinterpret_cast<Preference *>(preference);
    if (is_fp8(p.a.type))
        for (uint32_t alignment : likes.alignment)
            if (alignment % 16)
                return CUBLAS_STATUS_NOT_SUPPORTED;
    Algorithm algorithm = {p.key(), workspace_for(p, likes.workspace), {}};
    memcpy(algorithm.alignment, likes.alignment, sizeof algorithm.alignment);
    memset(&results[0], 0, sizeof results[0]);
    memcpy(&results[0].algo, &algorithm, sizeof algorithm);
    results[0].workspaceSize = algorithm.workspace;
    results[0].state = CUBLAS_STATUS_SUCCESS;
    results[0].wavesCount = 1;
    *count = 1;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t desc, const void *alpha,
                              const void *a, cublasLtMatrixLayout_t a_layout, const void *b,
                              cublasLtMatrixLayout_t b_layout, const void *beta, const void *c,
                              cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algo,
                              void *workspace, size_t workspace_bytes, cudaStream_t stream)
{
    Call call;
    Stream *s = find_stream(stream);
    if (call.problem || !s || fails_now(Failure::matmul))
        return CUBLAS_STATUS_EXECUTION_FAILED;
    Product x = {{*reinterpret_cast<Description *>(desc), *reinterpret_cast<Layout *>(a_layout),
                  *reinterpret_cast<Layout *>(b_layout), *reinterpret_cast<Layout *>(c_layout),
                  *reinterpret_cast<Layout *>(d_layout)},
                 a,
                 b,
                 c,
                 d,
                 workspace,
                 0,
                 0,
                 0};
    const Problem &p = x.problem;
    cublasStatus_t status = check_problem(p);
    if (status != CUBLAS_STATUS_SUCCESS)
        return status;
    if (p.desc.epilogue == CUBLASLT_EPILOGUE_BIAS && !p.desc.bias)
        return CUBLAS_STATUS_INVALID_VALUE;
    Algorithm algorithm = {p.key(), 0, {1, 1, 1, 1}};
    if (algo)
        memcpy(&algorithm, algo, sizeof algorithm);
    const void *operands[] = {a, b, c, d};
    for (int i = 0; i < 4; i++)
        if (!is_aligned(operands[i], algorithm.alignment[i]) ||
            (is_fp8(p.a.type) && !is_aligned(operands[i], 16)))
            return CUBLAS_STATUS_INVALID_VALUE;
    if (algorithm.problem != p.key()) {
        note("cublasLtMatmul: the algorithm is of another problem");
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    if (algorithm.workspace > workspace_bytes ||
        (algorithm.workspace && !is_aligned(workspace, 256)))
        return CUBLAS_STATUS_INVALID_VALUE;
    x.alpha = scalar(alpha, p.desc.scale_type);
    x.beta = scalar(beta, p.desc.scale_type);
    x.workspace_bytes = algorithm.workspace;
    submit_library(s, [x]() { run(x); });
    return CUBLAS_STATUS_SUCCESS;
}
}
