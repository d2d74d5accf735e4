// cudnn_program.cpp — see cudnn_program.h. Sums are in f64, tensors between operations in f32, or
// rounded to 16 bits where the graph says so.
#include "cudnn_program.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <limits>

#include "cudnn_graph.h"
#include "report.h"
#include "runtime.h"

namespace emu
{
namespace
{
// All elements, dense. Without dims: not there yet.
struct Array {
    int64_t dim[4] = {};
    std::vector<double> x;

    explicit Array(const int64_t (&d)[4])
        : dim{d[0], d[1], d[2], d[3]}, x(size_t(d[0] * d[1] * d[2] * d[3]))
    {
    }
    Array() = default;
    double &at(int64_t b, int64_t h, int64_t i, int64_t j)
    {
        return x[size_t(((b * dim[1] + h) * dim[2] + i) * dim[3] + j)];
    }
    // An index along a dim of size 1 counts as 0; of fewer heads each has several.
    double broadcast(int64_t b, int64_t h, int64_t i, int64_t j, int64_t heads)
    {
        return at(dim[0] == 1 ? 0 : b, h * dim[1] / heads, dim[2] == 1 ? 0 : i,
                  dim[3] == 1 ? 0 : j);
    }
};

double rounded(double x, int dtype)
{
    switch (dtype) {
    case AM_DNN_DATA_BFLOAT16:
        return __bfloat162float(__float2bfloat16(float(x)));
    case AM_DNN_DATA_HALF:
        return __half2float(__float2half(float(x)));
    default:
        return dtype == AM_DNN_DATA_FLOAT ? double(float(x)) : x;
    }
}

void write(void *p, int64_t i, int dtype, double x)
{
    if (dtype == AM_DNN_DATA_FLOAT)
        static_cast<float *>(p)[i] = float(x);
    else if (dtype == AM_DNN_DATA_BFLOAT16)
        static_cast<__nv_bfloat16 *>(p)[i] = __float2bfloat16(float(x));
    else
        static_cast<__half *>(p)[i] = __float2half(float(x));
}

class Machine
{
  public:
    explicit Machine(const DnnRun &r) : run(r)
    {
    }
    void go()
    {
        for (const DnnOperation &o : run.program.operations)
            step(o);
    }

  private:
    const DnnRun &run;
    std::map<int64_t, Array> arrays;

    const DnnTensor &tensor(int64_t uid) const
    {
        return run.program.tensors.at(uid);
    }

    double number(int64_t uid, int64_t i)
    {
        const DnnTensor &t = tensor(uid);
        const char *p =
            static_cast<const char *>(run.memory.at(uid)) + size_t(i) * dnn_bytes(t.dtype);
        if (!check_operand("cudnnBackendExecute", p, dnn_bytes(t.dtype), Access::read))
            return 0;
        return dnn_read(p, 0, t.dtype);
    }

    // How long the samples are is said by products; the same for all.
    int64_t length_of(int64_t b)
    {
        for (const DnnOperation &o : run.program.operations)
            if (o.kind == DnnKind::matmul && o.extent[0])
                return int64_t(number(o.extent[0], b));
        return std::numeric_limits<int64_t>::max();
    }

    // Calls f(array element, place in memory, elements from the beginning) for runs along the dim
    // without gaps; those behind a sample's end are left out.
    template <class F> void walk(const DnnTensor &t, Array &a, F f)
    {
        char *base = static_cast<char *>(run.memory.at(t.uid));
        size_t size = dnn_bytes(t.dtype);
        int along = t.dim[3] > 1 && t.stride[2] < t.stride[3] ? 3 : 2; // where the tokens are
        if (t.offsets)
            (void)number(t.offsets, t.dim[0]); // an engine may look where the last sample ends
        for (int64_t b = 0; b < t.dim[0]; b++) {
            int64_t start = t.offsets ? int64_t(number(t.offsets, b)) : b * t.stride[0];
            int64_t length = t.offsets ? length_of(b) : t.dim[along];
            for (int64_t h = 0; h < t.dim[1]; h++)
                for (int64_t i = 0; i < t.dim[2]; i++)
                    for (int64_t j = 0; j < t.dim[3]; j++) {
                        if ((along == 2 ? i : j) >= length)
                            continue;
                        int64_t at = start + h * t.stride[1] + i * t.stride[2] + j * t.stride[3];
                        f(a.at(b, h, i, j), base + at * int64_t(size));
                    }
        }
    }

    Array &take(int64_t uid)
    {
        auto found = arrays.find(uid);
        if (found != arrays.end())
            return found->second;
        const DnnTensor &t = tensor(uid);
        Array a(t.dim);
        if (t.value) {
            a.x[0] = run.values.at(uid);
        } else {
            std::fill(a.x.begin(), a.x.end(), std::nan(""));
            size_t size = dnn_bytes(t.dtype);
            walk(t, a, [&](double &x, char *p) {
                if (check_operand("cudnnBackendExecute, input", p, size, Access::read))
                    x = dnn_read(p, 0, t.dtype);
            });
        }
        return arrays[uid] = std::move(a);
    }

    void give(int64_t uid, Array &a)
    {
        const DnnTensor &t = tensor(uid);
        for (double &x : a.x)
            x = rounded(x, t.dtype);
        if (!t.between) {
            size_t size = dnn_bytes(t.dtype);
            walk(t, a, [&](double &x, char *p) {
                if (check_operand("cudnnBackendExecute, output", p, size, Access::write))
                    write(p, 0, t.dtype, x);
            });
        }
        arrays[uid] = std::move(a);
    }

    int64_t extent(const DnnOperation &o, int which, int64_t b, int64_t all)
    {
        return o.extent[which] ? std::min(all, int64_t(number(o.extent[which], b))) : all;
    }

    void matmul(const DnnOperation &o)
    {
        Array &a = take(o.in[0]), &b = take(o.in[1]), c(tensor(o.out).dim);
        int64_t heads = c.dim[1];
        for (int64_t n = 0; n < c.dim[0]; n++) {
            int64_t rows = extent(o, 0, n, c.dim[2]), columns = extent(o, 1, n, c.dim[3]);
            int64_t inner = extent(o, 2, n, a.dim[3]);
            for (int64_t h = 0; h < heads; h++)
                for (int64_t i = 0; i < rows; i++)
                    for (int64_t j = 0; j < columns; j++) {
                        double sum = 0;
                        for (int64_t k = 0; k < inner; k++)
                            sum += a.broadcast(n, h, i, k, heads) * b.broadcast(n, h, k, j, heads);
                        c.at(n, h, i, j) = sum;
                    }
        }
        give(o.out, c);
    }

    static double apply(int mode, double x, double b, double t)
    {
        switch (mode) {
        case AM_DNN_POINTWISE_ADD:
            return x + b;
        case AM_DNN_POINTWISE_SUB:
            return x - b;
        case AM_DNN_POINTWISE_MUL:
            return x * b;
        case AM_DNN_POINTWISE_DIV:
            return x / b;
        case AM_DNN_POINTWISE_EXP:
            return std::exp(x);
        case AM_DNN_POINTWISE_LOG:
            return std::log(x);
        case AM_DNN_POINTWISE_CMP_GT:
            return x > b;
        case AM_DNN_POINTWISE_CMP_GE:
            return x >= b;
        case AM_DNN_POINTWISE_CMP_LT:
            return x < b;
        case AM_DNN_POINTWISE_LOGICAL_AND:
            return x != 0 && b != 0;
        default: // BINARY_SELECT
            return t != 0 ? x : b;
        }
    }

    void pointwise(const DnnOperation &o)
    {
        Array y(tensor(o.out).dim), *in[3] = {};
        bool index = o.mode == AM_DNN_POINTWISE_GEN_INDEX;
        for (int i = 0; i < 3 && !index; i++)
            if (o.in[i])
                in[i] = &take(o.in[i]);
        for (int64_t b = 0; b < y.dim[0]; b++)
            for (int64_t h = 0; h < y.dim[1]; h++)
                for (int64_t i = 0; i < y.dim[2]; i++)
                    for (int64_t j = 0; j < y.dim[3]; j++) {
                        double v[3] = {};
                        for (int k = 0; k < 3; k++)
                            if (in[k])
                                v[k] = in[k]->broadcast(b, h, i, j, y.dim[1]);
                        y.at(b, h, i, j) =
                            index ? double(o.axis == 2 ? i : j) : apply(o.mode, v[0], v[1], v[2]);
                    }
        give(o.out, y);
    }

    void reduction(const DnnOperation &o)
    {
        Array &x = take(o.in[0]), y(tensor(o.out).dim);
        bool max = o.mode == AM_DNN_REDUCE_TENSOR_MAX;
        std::fill(y.x.begin(), y.x.end(), max ? -INFINITY : 0);
        for (int64_t b = 0; b < x.dim[0]; b++)
            for (int64_t h = 0; h < x.dim[1]; h++)
                for (int64_t i = 0; i < x.dim[2]; i++)
                    for (int64_t j = 0; j < x.dim[3]; j++) {
                        double v = x.at(b, h, i, j);
                        double &to = y.at(b, h * y.dim[1] / x.dim[1], i, y.dim[3] == 1 ? 0 : j);
                        to = max ? std::max(to, v) : to + v;
                    }
        give(o.out, y);
    }

    // The same elements over dims that are changed, where the dims or the strides say so.
    void reshape(const DnnOperation &o)
    {
        const DnnTensor &from = tensor(o.in[0]), &to = tensor(o.out);
        bool turned = (from.stride[2] < from.stride[3]) != (to.stride[2] < to.stride[3]);
        Array &x = take(o.in[0]), y(to.dim);
        for (int64_t b = 0; b < y.dim[0]; b++)
            for (int64_t h = 0; h < y.dim[1]; h++)
                for (int64_t i = 0; i < y.dim[2]; i++)
                    for (int64_t j = 0; j < y.dim[3]; j++)
                        y.at(b, h, i, j) = turned ? x.at(b, h, j, i) : x.at(b, h, i, j);
        give(o.out, y);
    }

    void step(const DnnOperation &o)
    {
        switch (o.kind) {
        case DnnKind::matmul:
            return matmul(o);
        case DnnKind::pointwise:
            return pointwise(o);
        case DnnKind::reduction:
            return reduction(o);
        case DnnKind::reshape:
            return reshape(o);
        }
    }
};

bool fits(const DnnTensor &x, const DnnTensor &y)
{
    for (int i : {0, 2, 3})
        if (x.dim[i] != 1 && x.dim[i] != y.dim[i])
            return false;
    return x.dim[1] > 0 && y.dim[1] % x.dim[1] == 0;
}
} // namespace

size_t dnn_bytes(int dtype)
{
    switch (dtype) {
    case AM_DNN_DATA_HALF:
    case AM_DNN_DATA_BFLOAT16:
        return 2;
    case AM_DNN_DATA_FLOAT:
    case AM_DNN_DATA_INT32:
        return 4;
    case AM_DNN_DATA_INT64:
        return 8;
    default:
        return dtype == AM_DNN_DATA_BOOLEAN ? 1 : 0;
    }
}

double dnn_read(const void *p, int64_t i, int dtype)
{
    switch (dtype) {
    case AM_DNN_DATA_FLOAT:
        return double(static_cast<const float *>(p)[i]);
    case AM_DNN_DATA_INT32:
        return static_cast<const int32_t *>(p)[i];
    case AM_DNN_DATA_INT64:
        return double(static_cast<const int64_t *>(p)[i]);
    case AM_DNN_DATA_BFLOAT16:
        return double(__bfloat162float(static_cast<const __nv_bfloat16 *>(p)[i]));
    default:
        return double(__half2float(static_cast<const __half *>(p)[i]));
    }
}

std::string dnn_problem(const DnnProgram &p)
{
    std::map<int64_t, bool> made;
    for (const DnnOperation &o : p.operations) {
        const DnnTensor &y = p.tensors.at(o.out);
        for (int64_t uid : o.in)
            if (uid && p.tensors.at(uid).between && !made[uid])
                return format("tensor %lld is read before it is made", (long long)uid);
        const DnnTensor &x = p.tensors.at(o.in[0]);
        if (o.kind == DnnKind::matmul) {
            const DnnTensor &b = p.tensors.at(o.in[1]);
            if (x.dim[2] != y.dim[2] || x.dim[3] != b.dim[2] || b.dim[3] != y.dim[3] ||
                y.dim[1] % b.dim[1] || y.dim[1] % x.dim[1])
                return "the shapes of a product do not fit";
        } else if (o.kind == DnnKind::pointwise) {
            for (int64_t uid : o.in)
                if (uid && !fits(p.tensors.at(uid), y))
                    return "the shapes of a pointwise operation do not fit";
        } else if (o.kind == DnnKind::reduction && !fits(y, x)) {
            return "the shapes of a reduction do not fit";
        }
        made[o.out] = true;
    }
    return "";
}

void dnn_run(const DnnRun &r)
{
    Machine(r).go();
}
} // namespace emu
