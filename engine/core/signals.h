/* signals.h — what ops ask on entry. */
#ifndef AM_SIGNALS_H
#define AM_SIGNALS_H

int am_check_interrupt(void); /* AM_EINTR when a signal waits and ops are to be interrupted */

#endif
