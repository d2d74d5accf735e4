-- The registry: what config.json's "architectures" names -> the module that has it.

return {
    LlamaForCausalLM = "am.models.llama",
}
