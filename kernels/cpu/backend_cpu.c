/* backend_cpu.c — the "cpu" backend's vtable: on first use it looks at the CPU and takes the SIMD
 * kernels made for it, oneDNN's matrix products, and ref's kernels for the rest. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 }; /* Linux: asm/prctl.h */
#endif
#include "cpu.h"
#include "host.h"
#include "ref_kernels.h"

static am_backend cpu;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int isa;
static char refused[AM_ISA_WHY]; /* why the device can't be used, or "" */
static const char *const isa_names[] = {"generic", "avx2", "avx512", "avx512_bf16", "amx"};

#if defined(__x86_64__)
/* Two features that clang 14's __builtin_cpu_supports has no name for, asked of a CPU with AVX2. */
static int has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

static int has_amx_bf16(void)
{
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d >> 22 & 5) != 5) /* bf16, tiles */
        return 0;
    __asm__("xgetbv" : "=a"(a), "=d"(d) : "c"(0)); /* does the system keep tiles? */
    if ((a >> 17 & 3) != 3)
        return 0;
    /* a process has to ask for them */
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}
#endif

static int available_isa(void)
{
    int found = AM_ISA_GENERIC;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c()) {
        found = AM_ISA_AVX2;
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
            __builtin_cpu_supports("avx512vl")) {
            found = AM_ISA_AVX512;
            if (__builtin_cpu_supports("avx512bf16"))
                found = AM_ISA_AVX512_BF16;
            if (__builtin_cpu_supports("avx512bf16") && has_amx_bf16())
                found = AM_ISA_AMX;
        }
    }
#endif
    return found;
}

int am_cpu_isa_choose(const char *asked, int available, char why[AM_ISA_WHY])
{
    if (!asked || !*asked)
        return available;
    for (int i = 0; i <= AM_ISA_AMX; i++) {
        if (strcmp(asked, isa_names[i]) != 0)
            continue;
        if (i <= available)
            return i;
        snprintf(why, AM_ISA_WHY, "AMLUA_ISA is %s, and this CPU has no more than %s; unset it",
                 asked, isa_names[available]);
        return -1;
    }
    snprintf(why, AM_ISA_WHY, "AMLUA_ISA is \"%.32s\"; write %s, %s, %s, %s or %s, or unset it",
             asked, isa_names[0], isa_names[1], isa_names[2], isa_names[3], isa_names[4]);
    return -1;
}

static int cpu_probe(const char **why)
{
    *why = refused;
    return !*refused;
}

static const am_cpu_kernels *kernels_for(int which)
{
#if defined(__x86_64__)
    if (which >= AM_ISA_AVX512_BF16)
        return &am_cpu_kernels_avx512_bf16;
    if (which == AM_ISA_AVX512)
        return &am_cpu_kernels_avx512;
    if (which == AM_ISA_AVX2)
        return &am_cpu_kernels_avx2;
#endif
    (void)which;
    return &am_cpu_kernels_generic;
}

static void set_up(void)
{
    int available = available_isa();
    isa = am_cpu_isa_choose(getenv("AMLUA_ISA"), available, refused);
    if (isa < 0)
        isa = available;
    am_cpu_kernels simd = *kernels_for(isa);
#if defined(__x86_64__)
    if (isa == AM_ISA_AVX512_BF16) {
        simd.attention = am_cpu_attention_bf16_dot;
        simd.attention_bwd = am_cpu_attention_bwd_bf16_dot;
    } else if (isa == AM_ISA_AMX) {
        simd.attention = am_cpu_attention_amx;
        simd.attention_bwd = am_cpu_attention_bwd_amx;
        simd.low_rank = am_cpu_low_rank_amx;
    }
#endif
    cpu = am_backend_ref;
    cpu.name = "cpu";
    cpu.probe = cpu_probe;
#define K(kernel, pointers)                                                                        \
    if (simd.kernel)                                                                               \
        cpu.kernel = simd.kernel;
#include "kernels.def"
#undef K
    cpu.gemm = am_cpu_gemm;
    cpu.low_rank = am_cpu_low_rank;
    cpu.grouped_gemm = am_cpu_grouped_gemm;
    cpu.grouped_gemm_dw = am_cpu_grouped_gemm_dw;
    cpu.packed_gemm = am_cpu_packed_gemm;
    am_cpu_gemm_init(isa, &simd);
    am_cpu_packed_init(&simd);
}

const am_backend *am_backend_cpu(void)
{
    pthread_once(&once, set_up);
    return &cpu;
}

const char *am_backend_cpu_isa(void)
{
    pthread_once(&once, set_up);
    return *refused ? "none" : isa_names[isa];
}

const char *am_backend_cpu_isa_available(void)
{
    return isa_names[available_isa()];
}
