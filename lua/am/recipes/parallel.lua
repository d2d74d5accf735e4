-- How a recipe's ranks share its model: the mesh that the `distributed` section describes, the strategies that are put
-- on a model, and what makes their gradients one. Methods of the recipes for language models (llm.lua); the strategies
-- are lua/am/distributed/'s.

local am = require("am")
local distributed = require("am.distributed")
local err = require("am.core.error")
local packed = require("am.core.packed")
local sections = require("am.recipes.sections")
local tensor = require("am.core.tensor")

local Methods = {}

-- Keys of the section by the mesh's axes. dp_size is dp_replicate x dp_shard.
local SIZES = { { "pp", "pp_size" }, { "dp_replicate", "dp_replicate_size" }, { "cp", "cp_size" }, { "tp", "tp_size" },
                { "ep", "ep_size" } }

--- What shards parameters: "ddp" (nothing), "fsdp2" or "megatron_fsdp".
function Methods:strategy()
    local cfg = self.cfg
    local said = (cfg:get("distributed.strategy") or cfg:get("distributed._target_")
        or cfg:has("distributed") and "fsdp2" or "ddp"):lower()
    return said:find("ddp", 1, true) and "ddp"
        or (said:find("megatron", 1, true) or said:find("nvfsdp", 1, true)) and "megatron_fsdp" or "fsdp2"
end

local function size_of(self, key)
    local size = self.cfg:get("distributed." .. key)
    return type(size) == "number" and size > 0 and size or nil
end

-- Raise "usage" unless the sizes that are given make the number of ranks, or divide it.
local function check_sizes(self)
    local product, said = 1, {}
    local dp = size_of(self, "dp_size")
    for _, key in ipairs { "dp_size", "dp_replicate_size", "cp_size", "tp_size", "pp_size" } do
        local size = size_of(self, key)
        if size and not (key == "dp_replicate_size" and dp) then
            product = product * size
            said[#said + 1] = size > 1 and ("%s %d"):format(key, size) or nil
        end
    end
    local ranks = self.world.size
    if dp and product ~= ranks or ranks % product ~= 0 then
        local key = said[1] and said[1]:match("^%S+") or "dp_size"
        err.raise("usage", ranks == 1 and "%s: distributed.%s asks for %s%d processes, but this run has one process"
                  or "%s: distributed.%s asks for %s%d processes, but this run has %d ranks",
                  self.cfg:where("distributed." .. key), key, dp and "" or "a multiple of ", product, ranks)
    elseif dp and dp % (size_of(self, "dp_replicate_size") or 1) ~= 0 then
        err.raise("usage", "%s: distributed.dp_replicate_size must divide dp_size (%d)",
                  self.cfg:where("distributed.dp_replicate_size"), dp)
    end
end

-- The dtype that mp_policy names; nil where it names none.
local function policy_dtype(cfg, key)
    local name = cfg:get("distributed.mp_policy." .. key)
    local ok, id = pcall(tensor.dtype_id, name or "float32")
    if not ok then
        err.raise("usage", "%s: distributed.mp_policy.%s: %s", cfg:where("distributed.mp_policy." .. key), key, id.msg)
    end
    return name and tensor.dtype_name(id)
end

-- Of megatron_fsdp: what is sharded beside the optimizer's state, by the strategy's two spellings.
local MEGATRON = {
    no_shard = "ddp", [0] = "ddp",
    optim = { reshard_after_forward = false, defer_sync = true }, optim_grads = { reshard_after_forward = false },
    optim_grads_params = {},
}
MEGATRON[1], MEGATRON[2], MEGATRON[3] = MEGATRON.optim, MEGATRON.optim_grads, MEGATRON.optim_grads_params

-- Options of fsdp.lua; nil where nothing is sharded.
local function sharding(self, mesh)
    local kind, cfg = self:strategy(), self.cfg
    local options = {}
    if kind == "megatron_fsdp" then
        local said = cfg:get("distributed.data_parallel_sharding_strategy") or cfg:get("distributed.zero_dp_strategy")
            or "optim_grads_params"
        options = MEGATRON[said] or err.raise("usage", "%s: data_parallel_sharding_strategy is no_shard, optim, "
            .. "optim_grads or optim_grads_params, not %s", cfg:where("distributed"), tostring(said))
    end
    if kind == "ddp" or options == "ddp" or mesh:size("shard") == 1 then
        return nil
    end
    return {
        reshard_after_forward = options.reshard_after_forward ~= false
            and sections.reshard_after_forward(cfg) ~= false,
        defer_sync = options.defer_sync or cfg:get("distributed.defer_fsdp_grad_sync"),
        param_dtype = policy_dtype(cfg, "param_dtype"),
        reduce_dtype = policy_dtype(cfg, "reduce_dtype"),
        pipelined = self.pipeline ~= nil, learns_before = self.pipeline and self.pipeline.trains_before,
    }
end

-- Strategies that cut the model before FSDP does, in the order in which they are put on it.
local STRATEGIES = {
    { "pp", distributed.pipeline }, { "ep", distributed.expert_parallel }, { "tp", distributed.tensor_parallel },
    { "cp", distributed.context_parallel },
}

-- Raise "usage" where ranks would share matrices that are in few bits. which: what asks for them, or one of them.
local function refuse_few_bits(self, mesh, which)
    local shares = sharding(self, mesh) and self:strategy() or mesh:size("tp") > 1 and "tp_size"
    if shares then
        err.raise("usage", "%s: distributed: %s cuts matrices, and %s in few bits: take strategy: ddp, or pp_size",
                  self.cfg:where("distributed"), shares, which)
    end
end

--- The ranks as the `distributed` section puts them.
function Methods:build_mesh()
    check_sizes(self)
    local sizes = {}
    for _, pair in ipairs(SIZES) do
        sizes[pair[1]] = size_of(self, pair[2])
    end
    local mesh = distributed.mesh(self.world, sizes)
    for _, key in ipairs { "quantization", "model.quantization_config" } do
        for _, asked in ipairs { key .. ".load_in_4bit", key .. ".load_in_8bit" } do
            if self.cfg:get(asked) == true then
                refuse_few_bits(self, mesh, asked .. " keeps them")
            end
        end
    end
    return mesh
end

-- The same of a model that somebody's own code made.
local function check_few_bits(self)
    for name, t in self.model:named_parameters() do
        if packed.is(t) then
            return refuse_few_bits(self, self.mesh, name .. " is")
        end
    end
end

--- Put the strategies on a model that is loaded and has its adapters. From then on self.layout says which part of each
--- parameter this rank has.
function Methods:parallelize()
    local options = self:section("distributed")
    self.world:together(check_few_bits, self)
    options.pipeline = self:stage_options()
    self:note_costs()
    local before = am.memory(self.ctx.device).live_bytes
    self.layout = distributed.layout(self.model, self.mesh)
    local applied = {}
    for _, strategy in ipairs(STRATEGIES) do
        if self.mesh:size(strategy[1]) > 1 then
            applied[strategy[1]] = strategy[2].apply(self.model, self.mesh, self.layout, options)
        end
    end
    self.pipeline = applied.pp
    self.model_allocated = math.max(0, self.model_allocated + am.memory(self.ctx.device).live_bytes - before)
    local shards = sharding(self, self.mesh)
    self.fsdp = shards and distributed.fsdp(self.model, self.mesh, self.layout, shards) or nil
    self.ctx.named_parameters = self.layout:named_parameters()
    self.ctx.trained_elsewhere = self.pipeline and self.pipeline:trained_elsewhere()
end

--- What this rank computes of a batch: all of it, or its tokens of each row where ranks share rows (cp).
function Methods:own_tokens(batch)
    return self.mesh:size("cp") > 1 and distributed.context_parallel.shard(batch, self.mesh) or batch
end

--- Is any parameter in parts?
function Methods:is_cut()
    for _, name in ipairs(self.layout.names) do
        if self.layout:is_cut(name) then
            return true
        end
    end
    return false
end

-- Raise "usage" where the optimizer needs whole matrices and there are parts of them.
local function check_elementwise(self)
    if self:is_cut() and self.optimizer:needs_whole() then
        err.raise("usage", "%s: optimizer %s sees whole matrices, of which each rank has a part; take an "
                  .. "elementwise one (AdamW), or strategy: ddp without tp_size and ep_size",
                  self.cfg:where("optimizer"), self.optimizer.kind)
    end
end

--- With several ranks, what makes their gradients one.
function Methods:build_sync()
    if self.world.size == 1 then
        return nil
    end
    if self:is_cut() or self.mesh:size("pp") > 1 then
        self.world:together(check_elementwise, self)
        self.optimizer:sum_norms_by(function(squares) return self.layout:sum(squares) end)
    end
    self:check_replicas()
    return distributed.sync(self.optimizer, self.layout, {
        fsdp = self.fsdp, bucket_cap_mb = self.cfg:get("distributed.bucket_cap_mb"),
    })
end

-- Axes whose ranks make the same updates of a parameter, bit for bit, unless it is cut over one of these.
local COPIES = { dp_replicate = { expert_dp = true }, dp_cp = { shard = true, ep = true, expert_dp = true } }

--- Raise "state" where ranks that have the same part of a parameter have other weights.
function Methods:check_copies()
    local squares = self.optimizer:weight_squares()
    for _, axis in ipairs { "dp_replicate", "dp_cp" } do
        local group, sum = self.mesh:group(axis), 0
        for _, name in ipairs(group and self.layout.names or {}) do
            local alike = true
            for _, cut in ipairs(self.layout:get(name).cuts) do
                alike = alike and not COPIES[axis][cut.axis]
            end
            sum = sum + (alike and squares[name] or 0)
        end
        local texts = group and group:gather_texts(("%.17g"):format(sum)) or {}
        for i, text in ipairs(texts) do
            if text ~= texts[1] then
                err.raise("state", "the weights of rank %d and rank %d differ, which must be the same",
                          group:world_rank(0), group:world_rank(i - 1))
            end
        end
    end
end

--- Let go of weights that were gathered: before they change, and when validation ends.
function Methods:release_weights()
    if self.sync then
        self.sync:release()
    end
end

--- Leave the groups that ranks have made.
function Methods:leave_groups()
    if self.sync then
        self.sync:close()
    end
    if self.pipeline then
        self.pipeline:close()
    end
    if self.mesh then
        self.mesh:close()
    end
end

return Methods
