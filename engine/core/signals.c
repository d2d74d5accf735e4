/* signals.c — SIGINT, SIGTERM, SIGHUP and what a scheduler sends before it ends a job as a flag
 * that loops and ops look at.
 *
 * Handlers run on a stack of their own: oneDNN's generated f32 products use the stack pointer as a
 * general register for a while, and what a signal then pushes would land in the heap. That stack is
 * the calling thread's alone, so kernel threads block these signals. */
#include "signals.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "error.h"

static volatile sig_atomic_t pending, asked, watch_mode;

/* What a run may watch beside the signals that it always does. */
static const int extra[] = {SIGUSR1, SIGUSR2, SIGXCPU};
enum { EXTRAS = sizeof extra / sizeof extra[0] };
static bool added[EXTRAS];

static void on_signal(int number)
{
    bool person = number == SIGINT || watch_mode == AM_SIGNALS_INTERRUPT;
    if (person && asked) { /* twice: end at once */
        signal(number, SIG_DFL);
        raise(number);
        return;
    }
    asked = asked || person;
    pending = number;
}

/* A stack for the handlers of this thread. With AMX the kernel alone puts 11 KB there. */
static int set_stack(void)
{
    static char bytes[128 * 1024];
    const stack_t stack = {.ss_sp = bytes, .ss_size = sizeof bytes};
    if (sigaltstack(&stack, NULL) != 0)
        return am_fail(AM_EIO, "no stack for signal handlers: %s", strerror(errno));
    return AM_OK;
}

int am_signals_shield(void)
{
    if (watch_mode == AM_SIGNALS_OFF)
        return AM_OK;
    pid_t own = (pid_t)syscall(SYS_gettid);
#pragma omp parallel num_threads(am_threads())
    if ((pid_t)syscall(SYS_gettid) != own) {
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGINT);
        sigaddset(&set, SIGTERM);
        sigaddset(&set, SIGHUP);
        for (int i = 0; i < EXTRAS; i++)
            if (added[i])
                sigaddset(&set, extra[i]);
        (void)pthread_sigmask(SIG_BLOCK, &set, NULL);
    }
    return AM_OK;
}

/* At the prompt a read that waits comes back, too; in a run it goes on. */
static int handle(int number, void (*handler)(int), bool restart)
{
    struct sigaction act = {.sa_handler = handler,
                            .sa_flags = SA_ONSTACK | (restart ? SA_RESTART : 0)};
    sigemptyset(&act.sa_mask);
    if (sigaction(number, &act, NULL) != 0)
        return am_fail(AM_EIO, "signal %d can't be watched: %s", number, strerror(errno));
    return AM_OK;
}

static bool ignored(int number)
{
    struct sigaction now;
    return sigaction(number, NULL, &now) == 0 && now.sa_handler == SIG_IGN;
}

int am_signals_watch(int mode)
{
    if (mode < AM_SIGNALS_OFF || mode > AM_SIGNALS_INTERRUPT)
        return am_fail(AM_EINVAL, "signal mode %d does not exist", mode);
    void (*wanted)(int) = mode == AM_SIGNALS_OFF ? SIG_DFL : on_signal;
    bool run = mode == AM_SIGNALS_FLAG;
    AM_TRY(set_stack());
    int rc = handle(SIGINT, wanted, run);
    if (rc == AM_OK)
        rc = handle(SIGTERM, wanted, run);
    if (rc == AM_OK && !ignored(SIGHUP)) /* under nohup it stays ignored */
        rc = handle(SIGHUP, run ? on_signal : SIG_DFL, true);
    if (rc == AM_OK)
        rc = handle(SIGPIPE, run ? SIG_IGN : SIG_DFL, true);
    if (rc == AM_OK)
        rc = handle(SIGXFSZ, run ? SIG_IGN : SIG_DFL, true);
    for (int i = 0; i < EXTRAS && rc == AM_OK; i++) {
        if (added[i])
            rc = handle(extra[i], SIG_DFL, true);
        added[i] = false;
    }
    watch_mode = mode;
    return rc == AM_OK ? am_signals_shield() : rc;
}

int am_signals_add(int number)
{
    if (watch_mode != AM_SIGNALS_FLAG)
        return am_fail(AM_ESTATE, "signal %d: no signals are watched", number);
    for (int i = 0; i < EXTRAS; i++)
        if (extra[i] == number) {
            AM_TRY(handle(number, on_signal, true));
            added[i] = true;
            return am_signals_shield();
        }
    return am_fail(AM_EINVAL, "signal %d can't end a run", number);
}

int am_signals_pending(void)
{
    return pending;
}

void am_signals_clear(void)
{
    pending = asked = 0;
}

int am_signals_check(void)
{
    if (watch_mode == AM_SIGNALS_INTERRUPT && pending)
        return am_fail(AM_EINTR, "interrupted by %s", pending == SIGINT ? "Ctrl-C" : "a signal");
    return AM_OK;
}
