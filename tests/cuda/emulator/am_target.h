/* am_target.h — what device code is written in, for a CPU: the twin of the GPU's header of this
 * name, found by the include path. */
#include "am_emu.h"
