/* tokenizer_normalize.h — the steps that rewrite a text's bytes. */
#ifndef AM_TOKENIZER_NORMALIZE_H
#define AM_TOKENIZER_NORMALIZE_H

#include "tokenizer_text.h"

/* Every step but AM_STEP_SPLIT. A text that no piece of changes is left as it is, without a copy.
 */
int am_normalize(const am_step *step, am_text *t);

#endif
