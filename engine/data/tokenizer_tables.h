/* tokenizer_tables.h — classes of characters as Hugging Face tokenizers has them. */
#ifndef AM_TOKENIZER_TABLES_H
#define AM_TOKENIZER_TABLES_H

#include <stddef.h>
#include <stdint.h>

typedef struct am_char_range {
    uint32_t first;
    unsigned last : 24, class : 8;
} am_char_range;

extern const am_char_range AM_BERT_CONTROL[25]; /* what BertNormalizer's clean_text leaves out */
extern const am_char_range AM_BERT_MARKS[266];  /* what its strip_accents does */
extern const am_char_range AM_MARKS[250];       /* what StripAccents does */
extern const am_char_range AM_PUNCTUATION[156]; /* what Punctuation cuts out */
extern const am_char_range AM_SCRIPTS[852]; /* a number for each script; no entry: goes with any */

/* The class of a character, 0 where no range has it. */
int am_char_class(const am_char_range *ranges, size_t count, uint32_t c);
#define AM_CHAR_CLASS(table, c) am_char_class(table, sizeof(table) / sizeof *(table), c)

#endif
