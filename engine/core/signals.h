/* signals.h — what the rest of the engine needs of signals.c; see am.h for the rest. */
#ifndef AM_SIGNALS_H
#define AM_SIGNALS_H

#include "../am.h"

/* Have the threads of a new team block the signals that are watched. */
int am_signals_shield(void);

#endif
