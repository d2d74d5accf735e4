-- A model made by hand, with no more than causal_lm.lua's head asks for: all that other models can do works.

local am = require("am")
local helper = require("tests.recipe.helper")
local nn = am.nn
local tiny = require("tests.support.tiny")

-- A layer of attention without positions, on embeddings that no norm follows.
local Body = nn.Module.class("SmallModel")

function Body:forward(input_ids, _, ctx)
    local x = self.embed_tokens:forward(input_ids)
    return x + self.mix:forward(x, nil, { bounds = ctx.bounds, cache = ctx.cache, layer = 1 })
end

local function new(c)
    local self = nn.Module.init(nn.Module.class("SmallForCausalLM"))
    local hidden, heads = c:integer("hidden_size"), c:integer("num_attention_heads")
    self.config = c
    local body = self:add("model", nn.Module.init(Body))
    body:add("embed_tokens", nn.Embedding.new(c:integer("vocab_size"), hidden))
    body:add("mix", nn.Attention.new { hidden_size = hidden, num_heads = heads, num_kv_heads = heads,
                                       head_dim = hidden / heads, rotary = false })
    self:add("lm_head", nn.Linear.new(hidden, c:integer("vocab_size")))
    return self
end

-- The same, whose parts have other names in files.
local function new_named(c)
    local self = new(c)
    local named = nn.Module.init(nn.Module.class("NamedForCausalLM"))
    named.config, named.names = c, { body = "gpt", embeddings = "embed_tokens", head = "out" }
    named:add("gpt", self.model)
    named:add("out", self.lm_head)
    return named
end

local function fields(name)
    return { architectures = { name }, hidden_size = 16, num_attention_heads = 2, num_hidden_layers = 1,
             vocab_size = 67, max_position_embeddings = 64 }
end

am.models.register("SmallForCausalLM", { new = new })
am.models.register("NamedForCausalLM", { new = new_named })

for _, name in ipairs { "SmallForCausalLM", "NamedForCausalLM" } do
    describe("a model by hand, " .. name, function()
        local model
        setup(function()
            am.manual_seed(4)
            model = am.AutoModelForCausalLM.from_config(fields(name), { torch_dtype = "float32" })
        end)
        teardown(function()
            model:close()
            helper.cleanup()
        end)

        it("has a loss and gradients, counts and dtypes", function()
            local out = model:forward { input_ids = { { 4, 9, 1, 30 } }, labels = { { 4, 9, 1, 30 } } }
            out.loss:backward()
            for parameter, t in model:named_parameters() do
                assert.is_truthy(t.grad, parameter)
                t.grad = nil
            end
            assert.same({ 2 * 67 * 16 + 4 * 16 * 16, "float32", "cpu" },
                        { model:num_parameters(), model:dtype(), model:device() })
            assert.equal(67, model:head_context().vocab_size)
        end)

        it("generates, packs, and takes either kind of attention", function()
            local with = model:generate({ 4, 9, 1 }, { max_new_tokens = 4, eos_token_id = false })
            assert.same(with, model:generate({ 4, 9, 1 }, { max_new_tokens = 4, eos_token_id = false,
                                                            use_cache = false }))
            local alone = model:forward({ input_ids = { { 7, 8 } } }).logits
            local packed = model:forward({ input_ids = { { 4, 9, 1, 7, 8 } }, position_ids = { { 0, 1, 2, 0, 1 } } })
            assert.equal(tiny.bits(alone), tiny.bits(packed.logits:narrow(1, 3, 2)))
            assert.same({ attention = "fused" }, am.patch_model_with_kernel_optimizations(model))
        end)

        it("is saved and read, and has an adapter and a classifier", function()
            local dir = helper.folder()
            model:save_pretrained(dir)
            local again = am.AutoModelForCausalLM.from_pretrained(dir)
            local ids = { input_ids = { { 4, 9, 1 } } }
            assert.equal(tiny.bits(model:forward(ids).logits), tiny.bits(again:forward(ids).logits))
            am.peft.apply(again, am.PeftConfig { target_modules = { "q_proj" }, dim = 2 })
            again:close()
            local classes = am.AutoModelForSequenceClassification.from_pretrained(dir, { num_labels = 3 })
            assert.same({ 1, 3 }, classes:forward(ids).logits:size())
            classes:close()
        end)

        it("is trained by a recipe", function()
            local dir = helper.folder()
            local cfg = helper.config(dir, { step_scheduler = { max_steps = 3 } })
            cfg.model = { _target_ = "am.AutoModelForCausalLM.from_config", config = fields(name) }
            helper.train_here(cfg)
            local records = helper.jsonl(dir .. "/training.jsonl")
            assert.is_true(records[3].loss < records[1].loss)
        end)
    end)
end
