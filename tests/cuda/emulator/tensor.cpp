// tensor.cpp — tensor cores: mma.sync and ldmatrix. Fragments lie as the PTX ISA says ("Matrix
// fragments for mma.m16n8k16" and its like), with g = lane / 4 and t = lane % 4.
#include <cstring>

#include "am_emu.h"
#include "block.h"
#include "flavour.h"
#include "report.h"
#include "shadow.h"
#include "shared.h"
#include "warp.h"

namespace emu
{
namespace
{
// A register of an operand holds 4 / bytes elements that lie beside each other along k.
struct Shape {
    int k;       // 16 x k times k x 8
    int per_reg; // elements of a register
};

Shape shape_of(int kind)
{
    switch (kind) {
    case AM_EMU_MMA_TF32:
        return {8, 1};
    case AM_EMU_MMA_E4M3:
    case AM_EMU_MMA_E5M2:
        return {32, 4};
    default:
        return {16, 2};
    }
}

float element(int kind, const unsigned char *p)
{
    uint16_t half;
    uint32_t word;
    switch (kind) {
    case AM_EMU_MMA_BF16:
        memcpy(&half, p, 2);
        return am_emu::bits<float>(uint32_t(half) << 16);
    case AM_EMU_MMA_F16:
        memcpy(&half, p, 2);
        return __half2float(__half(__half_raw{half}));
    case AM_EMU_MMA_TF32: // the unit ignores the 13 lowest bits
        memcpy(&word, p, 4);
        return am_emu::bits<float>(word & 0xffffe000u);
    case AM_EMU_MMA_E4M3:
    case AM_EMU_MMA_E5M2: {
        __nv_fp8_interpretation_t as = kind == AM_EMU_MMA_E4M3 ? __NV_E4M3 : __NV_E5M2;
        return __half2float(__half(__nv_cvt_fp8_to_halfraw(*p, as)));
    }
    default:
        return NAN;
    }
}

// Operands of a lane: a in 4 registers, b in 2, c in 4 floats.
constexpr unsigned a_bytes = 16, b_bytes = 8, c_bytes = 16;

void multiply(Rendezvous &r)
{
    Shape s = shape_of(r.kind);
    int size = 4 / s.per_reg;
    alignas(32) float a[16][32], b[32][8], d[16][8];
    for (int lane = 0; lane < 32; lane++) {
        const unsigned char *in = r.in[lane];
        int g = lane >> 2, t = lane & 3;
        // Registers 0 and 1 of a are rows g and g + 8 of the first half of k, 2 and 3 of the
        // second.
        for (int reg = 0; reg < 4; reg++)
            for (int i = 0; i < s.per_reg; i++)
                a[g + 8 * (reg & 1)][s.k / 2 * (reg >> 1) + t * s.per_reg + i] =
                    element(r.kind, in + 4 * reg + size * i);
        for (int reg = 0; reg < 2; reg++)
            for (int i = 0; i < s.per_reg; i++)
                b[s.k / 2 * reg + t * s.per_reg + i][g] =
                    element(r.kind, in + a_bytes + 4 * reg + size * i);
        float c[4];
        memcpy(c, in + a_bytes + b_bytes, c_bytes);
        for (int i = 0; i < 4; i++)
            d[g + 8 * (i >> 1)][2 * t + (i & 1)] = c[i];
    }
    for (int i = 0; i < 16; i++)
        for (int k = 0; k < s.k; k++)
            for (int j = 0; j < 8; j++)
                d[i][j] += a[i][k] * b[k][j];
    for (int lane = 0; lane < 32; lane++)
        for (int i = 0; i < 4; i++)
            r.out[lane][i] = d[(lane >> 2) + 8 * (i >> 1)][2 * (lane & 3) + (i & 1)];
}

// Lane l gave the address of row l % 8 of matrix l / 8; every row is read at this instant. The
// lowest bit of kind: transposed; above it, the number of matrices.
void load_matrices(Rendezvous &r)
{
    bool transposed = r.kind & 1;
    for (int m = 0; m < r.kind >> 1; m++) {
        uint16_t rows[8][8];
        for (int i = 0; i < 8; i++) {
            const void *p;
            memcpy(&p, r.in[m * 8 + i], sizeof p);
            memcpy(rows[i], p, sizeof rows[i]);
        }
        for (int lane = 0; lane < 32; lane++) {
            int g = lane >> 2, t = 2 * (lane & 3);
            uint16_t two[2];
            for (int i = 0; i < 2; i++)
                two[i] = transposed ? rows[t + i][g] : rows[g][t + i];
            memcpy(&r.out[lane][m], two, sizeof two);
        }
    }
}
} // namespace
} // namespace emu

using namespace emu;

void am_emu_mma(const char *site, int kind, float *d, const uint32_t *a, const uint32_t *b,
                const float *c)
{
    unsigned char in[a_bytes + b_bytes + c_bytes];
    memcpy(in, a, a_bytes);
    memcpy(in + a_bytes, b, b_bytes);
    memcpy(in + a_bytes + b_bytes, c, c_bytes);
    Rendezvous *r = meet(site, Collective::mma, kind, ~0u, in, sizeof in, multiply);
    memcpy(d, r->out[current->lane()], c_bytes);
    leave(r);
}

void am_emu_ldmatrix(const char *site, int matrices, int transposed, uint32_t *out, const void *p)
{
    if (!in_shared_memory(p))
        fault(After::stop,
              format("ldmatrix at %s: the address of a row is not in shared memory", site));
    if (reinterpret_cast<uintptr_t>(p) & 15)
        fault(After::stop,
              format("ldmatrix at %s: the address of a row is not 16-byte aligned", site));
    if (is_poisoned(p, 16))
        fault(After::stop, format("ldmatrix at %s: a row is out of bounds", site));
    check_access(p, 16, Access::read, site, __builtin_return_address(0));
    Rendezvous *r = meet(site, Collective::ldmatrix, matrices << 1 | transposed, ~0u, &p, sizeof p,
                         load_matrices);
    memcpy(out, r->out[current->lane()], 4 * size_t(matrices));
    leave(r);
}
