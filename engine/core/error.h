/* error.h — raising errors inside the engine. The public side is in am.h. */
#ifndef AM_ERROR_H
#define AM_ERROR_H

#include <stdarg.h>
#include "../am.h"

/* Write the thread's message and return `code`. Never allocates. */
int am_fail(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int am_fail_va(int code, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));
/* Put "context: " before the message that is there, keep the code. */
int am_fail_context(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Return the error of a call from this function. */
#define AM_TRY(call)                                                                               \
    do {                                                                                           \
        int am_rc_ = (call);                                                                       \
        if (am_rc_ != AM_OK)                                                                       \
            return am_rc_;                                                                         \
    } while (0)

/* The same with clean-up: sets rc (which the function declares) and jumps to out. */
#define AM_TRY_OUT(call)                                                                           \
    do {                                                                                           \
        rc = (call);                                                                               \
        if (rc != AM_OK)                                                                           \
            goto out;                                                                              \
    } while (0)

#endif
