/* switches.h — mutants of a file, all in one program: the one whose number AM_MUTANT has is in
 * place, the others are not. schemata.py writes these words into a copy of a kernel's file, and
 * this is included before it. With AM_MUTANT_LOG the numbers of mutants that would have changed a
 * value or left a statement out are appended to that file when the process ends: any other mutant
 * of the file computes what the original does.
 *
 * The flavour `check` looks at every access that the compiler shows: these are in assembly. */
#ifndef AM_SWITCHES_H
#define AM_SWITCHES_H

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <type_traits>
#include <unistd.h>

#define AM_MUTANT_INLINE static inline __attribute__((always_inline))

enum { AM_MUTANTS = 1024 };
static int am_mutant __asm__("am_mutant") __attribute__((used)) = -1;
static char am_mutants_met[AM_MUTANTS] __asm__("am_mutants_met") __attribute__((used));

__attribute__((constructor)) static void am_mutant_read(void)
{
    const char *text = getenv("AM_MUTANT");
    am_mutant = text ? atoi(text) : -1;
}

__attribute__((destructor)) static void am_mutant_log(void)
{
    const char *path = getenv("AM_MUTANT_LOG");
    FILE *file = path ? fopen(path, "a") : NULL;
    for (int i = 0; file && i < AM_MUTANTS; i++)
        if (am_mutants_met[i])
            fprintf(file, "%d\n", i);
    if (file)
        fclose(file);
}

/* Is the mutant of number N in place, where it makes a difference? */
template <int N> AM_MUTANT_INLINE bool am_mutant_on()
{
    static_assert(N < AM_MUTANTS, "as many mutants as there is room for");
    int on;
    __asm__ volatile("movb $1, am_mutants_met+%c0(%%rip)" ::"i"(N));
    __asm__("movl am_mutant(%%rip), %0" : "=r"(on));
    return on == N;
}

template <int N, class A, class B>
AM_MUTANT_INLINE typename std::common_type<A, B>::type am_mutant_pick(A plain, B other)
{
    typedef typename std::common_type<A, B>::type T;
    if ((T)plain != (T)other && am_mutant_on<N>())
        return (T)other;
    return (T)plain;
}

template <int N> AM_MUTANT_INLINE bool am_mutant_bool(bool plain, bool other)
{
    return plain != other && am_mutant_on<N>() ? other : plain;
}

/* a < am_less<N>() > b: between two operators of one rank stands what makes of them one operator,
 * whatever the operands' extents. */
#define AM_MUTANT_COMPARISON(name, first, second, plain, other)                                    \
    template <int N> struct name {                                                                 \
    };                                                                                             \
    template <int N, class A> struct name##_left {                                                 \
        A a;                                                                                       \
    };                                                                                             \
    template <int N, class A> AM_MUTANT_INLINE name##_left<N, A> operator first(A a, name<N>)      \
    {                                                                                              \
        return {a};                                                                                \
    }                                                                                              \
    template <int N, class A, class B>                                                             \
    AM_MUTANT_INLINE bool operator second(name##_left<N, A> left, B b)                             \
    {                                                                                              \
        return am_mutant_bool<N>(left.a plain b, left.a other b);                                  \
    }
AM_MUTANT_COMPARISON(am_less, <, >, <, <=)
AM_MUTANT_COMPARISON(am_not_more, <, >, <=, <)
AM_MUTANT_COMPARISON(am_more, <, >, >, >=)
AM_MUTANT_COMPARISON(am_not_less, <, >, >=, >)
#undef AM_MUTANT_COMPARISON

#define AM_MUTANT_WITHOUT(n, statement)                                                            \
    do {                                                                                           \
        if (!am_mutant_on<n>())                                                                    \
            statement;                                                                             \
    } while (0)

#endif
