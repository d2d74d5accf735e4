/* control.h — what tests ask of the emulated GPU beside the CUDA runtime API. C. */
#ifndef AM_EMU_CONTROL_H
#define AM_EMU_CONTROL_H

#if defined(__cplusplus)
extern "C" {
#endif

/* An option by its environment variable's name, from now on: am_emu_set("AM_EMU_ORDER", "rand").
 * AM_EMU_FAIL counts anew. AM_EMU_DEVICES and AM_EMU_MEMORY only before the first call. */
void am_emu_set(const char *name, const char *value);

/* Faults so far, and their text, a line each; valid until the next call. Forgetting them lets a
 * device that has failed (AM_EMU_SOFT) go on. */
int am_emu_report_count(void);
const char *am_emu_reports(void);
void am_emu_forget_reports(void);

typedef struct am_emu_counts {
    unsigned long long switches, threads, blocks, launches;
    unsigned long long waits; /* calls for which the host waits for the device */
} am_emu_counts;
am_emu_counts am_emu_count(void);
/* Handles and descriptors of cuDNN that were not given back. */
long am_emu_dnn_alive(void);

#if defined(__cplusplus)
}
#endif

#endif
