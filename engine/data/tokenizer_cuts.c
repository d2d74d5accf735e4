/* tokenizer_cuts.c — ways to cut a text before byte-level BPE, by the names that GGUF files
 * (`tokenizer.ggml.pre`) and tiktoken have for them. The patterns are those of the models' own
 * tokenizer.json files. */
#include "tokenizer_import.h"

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define LLAMA3_CUT(digits)                                                                         \
    CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits                                          \
                 "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
/* GPT-4o's, by case; `more` behind words, `digits` for numbers. */
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define GPT4O_CUT(more, digits)                                                                    \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" more "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER    \
    "*" more "|" digits "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/* DeepSeek LLM's letters. (clang-format would cut the strings anew each time.) */
/* clang-format off */
#define LETTERS                                                                                                                                  \
    "\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-"                                                \
    "ՖႠ"                                                                                                                                      \
    "-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-"                        \
    "ᾼιῂ-"                                                                                                                                 \
    "ῄῆ-"                                                                                                                                    \
    "ῌῐ-"                                                                                                                                    \
    "ΐ"                                                                                                                                        \
    "ῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-" \
    "ꚛꜢ-"                                                                                                                                    \
    "ꝯ"                                                                                                                                        \
    "ꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-"                                                 \
    "𐳲𑢠-"                                                                                                                                  \
    "𑣟𞤀-"                                                                                                                                  \
    "𞥃]"                                                                                                                                      \
    "+"
/* clang-format on */

static const am_cut CUTS[] = {
    {.names = "default gpt-2 gpt2 phi-2 mpt jais trillion granite-docling exaone4 r50k_base "
              "p50k_base jina-es jina-de "
              "gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert jina-v1-en jina-v2-code "
              "roberta-bpe"},
    {.names = "olmo", .nfc = 1},
    {.names = "smollm starcoder refact exaone minerva-7b codeshell mellum2", .digits = 1},
    {.names = "command-r", .digits = 1, .nfc = 1},
    {.names = "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
     .patterns = {LLAMA3_CUT("\\p{N}{1,3}")},
     .ignore_merges = 1,
     .bos = 1},
    {.names = "dbrx smaug-bpe chatglm-bpe", .patterns = {LLAMA3_CUT("\\p{N}{1,3}")}},
    /* Llama 3's, but white space at the text's end stays whole, line breaks or not. */
    {.names = "cl100k_base",
     .patterns = {CONTRACTIONS
                  "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
                  "|\\s++\\z|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}},
    {.names = "glm4 glm5", .patterns = {LLAMA3_CUT("\\p{N}{1,3}")}, .ignore_merges = 1},
    {.names = "minicpm5", .patterns = {"\\p{N}{1,3}", LLAMA3_CUT("\\p{N}+")}, .ignore_merges = 1},
    {.names = "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez qwen",
     .patterns = {LLAMA3_CUT("\\p{N}")},
     .nfc = 1},
    {.names = "stablelm2 hunyuan solar-open grok-2", .patterns = {LLAMA3_CUT("\\p{N}")}},
    {.names = "qwen35",
     .patterns =
         {CONTRACTIONS
          "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*"
          "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}},
    {.names = "tekken", .patterns = {GPT4O_CUT("", "\\p{N}")}, .ignore_merges = 1, .bos = 1},
    {.names = "gpt-4o llama4 kanana2 talkie minimax-m2 o200k_base",
     .patterns = {GPT4O_CUT(CONTRACTIONS "?", "\\p{N}{1,3}")}},
    {.names = "granite-embed-multi-97m",
     .patterns = {GPT4O_CUT(CONTRACTIONS "?", "\\p{N}{1,3}")},
     .ignore_merges = 1},
    {.names = "tiny_aya cohere2moe",
     .patterns = {"\\d{1,3}(?=(?:\\d{3})*\\b)", GPT4O_CUT(CONTRACTIONS "?", "\\p{N}{1,3}")}},
    {.names = "seed-coder",
     .patterns = {CONTRACTIONS
                  "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\\r\\n]+"
                  "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}},
    {.names = "bailingmoe bailingmoe2 llada-moe",
     .patterns = {"'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}"
                  "| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"}},
    {.names = "poro-chat bloom gpt3-finnish", .patterns = {" ?[^(\\s|.,!?…。，、।۔،)]+"}},
    {.names = "viking", .patterns = {" ?[^(\\s|.,!?…。，、।۔،)]+"}, .digits = 2},
    {.names = "falcon", .falcon = 1},
    {.names = "deepseek-coder",
     .patterns = {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", "[一-龥ࠀ-一가-퟿]+"},
     .digits = 2},
    {.names = "deepseek-v3 hunyuan-dense joyai-llm hy_v4",
     .patterns = {"\\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
                  "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+"
                  "|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*"
                  "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}},
    {.names = "deepseek-llm",
     .patterns = {"[\\r\\n]", LETTERS, "\\s?[!-/:-~！-／：-～‘-‟　-。]+", "\\s+$",
                  "[一-龥ࠀ-一가-퟿]+"},
     .digits = 2},
};

const am_cut *am_cut_find(const char *name, size_t bytes)
{
    for (size_t i = 0; i < sizeof CUTS / sizeof *CUTS; i++)
        for (const char *p = CUTS[i].names; *p;) {
            size_t length = strcspn(p, " ");
            if (length == bytes && memcmp(p, name, bytes) == 0)
                return &CUTS[i];
            p += length + (p[length] == ' ');
        }
    return NULL;
}

const char *am_cut_names(void)
{
    return "default, gpt-2, smollm, starcoder, refact, llama-bpe, dbrx, glm4, qwen2, qwen35, "
           "tekken, "
           "gpt-4o, falcon, command-r, deepseek-llm, deepseek-coder, deepseek-v3 and more";
}
