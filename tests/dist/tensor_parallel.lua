-- Tensor parallel of every family against the whole model: logits, loss and gradients, on all ranks that run this; a
-- failure ends them all.
--
--   mpirun -n N amlua tests/dist/tensor_parallel.lua [sequence] [lora|dora] [checkpoint] [dropout] [family …]
--
-- Each rank computes the whole model, too, and compares its part. With dropout, whose numbers are others on several
-- ranks, gradients are compared with how much the loss changes along some direction, in f64.

local am = require("am")
local comm = require("am.distributed.comm")
local json = require("am.utils.json")
local Layout = require("am.distributed.layout")
local Mesh = require("am.distributed.mesh")
local path = require("am.utils.path")
local tensor_parallel = require("am.distributed.tensor_parallel")

local FOLDERS = { "tests/parity/models/golden", "tests/parity/vlm/golden" }

-- Of f32 sums in another order, as parts of the largest of a tensor; of a gradient that is small beside the others'
-- (FLOOR) a part of those.
local LOGITS, LOSS, GRADIENT, FLOOR = 5e-5, 1e-6, 1e-4, 1e-3

-- Of a slope in f64 by a difference, whose error is the square of its step.
local STEP, SLOPE = 1e-6, 1e-5

local WORDS = { sequence = true, lora = true, dora = true, checkpoint = true, dropout = true }
local words, families = {}, {}
for _, word in ipairs(arg) do
    if WORDS[word] then
        words[word] = true
    else
        families[#families + 1] = word
    end
end

local group = comm.open("mpi", { timeout = 60 })
local world = { rank = group:rank(), size = group:size(), group = group }
function world.gather(_, text) return group:gather_texts(text) end
function world.reduce(_, list) return group:reduce_numbers(list) end
local mesh = Mesh.new(world, { tp = world.size })

-- ---- the model ----------------------------------------------------------------------------------

-- Heads that ranks can share, widths that they cannot share evenly, and nothing that is dropped by chance.
local function changed(values)
    values.multi_query = values.multi_query and false
    values.initializer_range = 0.2 -- with less attention sees all alike
    values.vocab_size = values.vocab_size and values.vocab_size - 1
    if values.intermediate_size and values.model_type ~= "gpt_oss" then
        values.intermediate_size = values.intermediate_size + 1
    end
    for key, value in pairs(values) do
        if key == "text_config" then
            changed(value)
        elseif key:find("^num_.*heads$") or key == "n_head" then
            values[key] = value % world.size == 0 and value or world.size
        elseif type(value) == "number" and (key:find("dropout") or key:find("pdrop") or key:find("jitter")) then
            values[key] = words.dropout and 0.2 or 0
        end
    end
    return values
end

local function config_of(folder)
    local file = assert(io.open(folder .. "/config.json"))
    local values = json.decode(file:read("*a"))
    file:close()
    return changed(values)
end

local function build(values)
    am.manual_seed(3)
    values.torch_dtype = words.dropout and "float64" or "float32"
    values.dtype = values.torch_dtype
    local class = values.text_config and am.AutoModelForImageTextToText or am.AutoModelForCausalLM
    local model = class.from_config(values)
    if words.lora or words.dora then
        am.peft.apply(model, { match_all_linear = true, dim = 3, alpha = 5, dropout = words.dropout and 0.2 or 0,
                               use_dora = words.dora
                               and not model.config.num_experts_per_tok })
        am.manual_seed(4)
        for name, t in model:named_parameters() do
            if name:find("lora_B") then
                t:normal_(0, 0.1)
            end
        end
    end
    for name, t in model:named_parameters() do -- zeros and ones show no mistake
        if t:dim() == 1 then
            am.manual_seed(#name)
            t:uniform_(0.5, 1.5)
        end
    end
    model.model.activation_checkpointing = words.checkpoint
    return model
end

-- ---- what it computes -----------------------------------------------------------------------------

-- Two samples in a row and one that is padded, of 11 tokens: no number of ranks divides them.
local function inputs(vocab)
    local ids, positions, labels = { {}, {} }, { {}, {} }, {}
    for i = 0, 21 do
        local row = i < 11 and 1 or 2
        local at = i % 11
        ids[row][at + 1] = (7 * i + 3) % 37 -- no picture's
        positions[row][at + 1] = row == 1 and at >= 5 and at - 5 or at
        labels[i + 1] = (i % 4 == 0 or at == 10) and -100 or (5 * i + 1) % vocab
    end
    return { input_ids = ids, position_ids = positions }, am.tensor(labels, { dtype = "int32" })
end

local function run(model, args, labels)
    args.logits_to_keep = false
    local hidden = model:forward(args).hidden_states
    local logits = am.no_grad(model.head, model, hidden)
    local loss = am.loss.MaskedCrossEntropy {}(hidden:reshape(labels:numel(), -1), labels, model:head_context())
    loss:backward()
    local balance = model:forward { input_ids = args.input_ids, output_router_logits = true }.aux_loss
    return logits, loss:item(), balance and balance:item()
end

-- ---- comparing ------------------------------------------------------------------------------------

local function largest(t)
    return t:numel() > 0 and t:abs():max():item() or 0
end

local function near(what, a, b, tolerance, scale)
    local have, want = table.concat(a:size(), " "), table.concat(b:size(), " ")
    assert(have == want, ("%s: [%s] and not [%s]"):format(what, have, want))
    local far = a:numel() > 0 and largest(a - b) or 0
    assert(far <= tolerance * scale, ("%s: %.3g from what one rank has, of %.3g"):format(what, far, scale))
end

local function compare_gradients(layout, whole, model)
    local want, top, n = {}, 0, 0
    for name, t in whole:named_parameters() do
        want[name] = t.grad
        top = math.max(top, t.grad and largest(t.grad) or 0)
    end
    for name, t in model:named_parameters() do
        local entry, grad = layout:get(name), t.grad
        assert((grad ~= nil) == (want[name] ~= nil), name .. ": has a gradient, or has none")
        for _, axis in ipairs(grad and entry.partial or {}) do
            grad = mesh:group(axis):all_reduce(grad:clone()):wait()
        end
        if grad then
            n = n + 1
            near("gradient of " .. name, grad, layout:part(name, want[name]), GRADIENT,
                 math.max(largest(want[name]), FLOOR * top))
            if #entry.cuts == 0 then -- all ranks go on alike
                local low, high = grad:clone(), grad:clone()
                group:all_reduce(low, "min"):wait()
                group:all_reduce(high, "max"):wait()
                near("ranks' gradients of " .. name, low, high, 0, 1)
            end
        end
    end
    return n
end

-- ---- with dropout -----------------------------------------------------------------------------------

-- The loss and, with `backward`, the sum of squares of gradients' products with directions.
local function slope(layout, model, args, labels)
    local directions = {}
    local function move(by)
        for name, t in model:named_parameters() do
            t:add_(directions[name], by)
        end
    end
    for name, t in model:named_parameters() do
        am.manual_seed(#name)
        local whole = am.randn(layout:get(name).shape, { dtype = t:dtype() })
        directions[name] = layout:part(name, whole) * (t.requires_grad and 1 or 0)
    end
    local function loss()
        am.manual_seed(9)
        args.logits_to_keep = false
        local hidden = model:forward(args).hidden_states
        return am.loss.MaskedCrossEntropy {}(hidden:reshape(labels:numel(), -1), labels, model:head_context())
    end
    local at = loss()
    at:backward()
    local products = {}
    for name, t in model:named_parameters() do
        local grad = t.grad
        for _, axis in ipairs(grad and layout:get(name).partial or {}) do
            grad = mesh:group(axis):all_reduce(grad:clone()):wait()
        end
        products[name] = grad and (grad * directions[name]):sum():item() or nil
    end
    move(STEP)
    local up = am.no_grad(loss):item()
    move(-2 * STEP)
    local down = am.no_grad(loss):item()
    move(STEP)
    return at:item(), layout:sum(products), (up - down) / (2 * STEP)
end

local function check_slope(folder)
    local values = config_of(folder)
    local args, labels = inputs((values.text_config or values).vocab_size or values.vocab_size)
    local model = build(values)
    local layout = Layout.new(model, mesh)
    tensor_parallel.apply(model, mesh, layout, { sequence_parallel = words.sequence })
    model:train()
    local loss, along, difference = slope(layout, model, args, labels)
    for i, other in ipairs(world:gather(("%.17g"):format(loss))) do
        assert(tonumber(other) == loss, "the loss of rank " .. i - 1)
    end
    assert(math.abs(along - difference) <= SLOPE * math.abs(difference),
           ("the slope is %.10g, by difference %.10g"):format(along, difference))
    local n = #layout.names
    model:close()
    return n, n
end

local function check(folder)
    local values = config_of(folder)
    local args, labels = inputs((values.text_config or values).vocab_size or values.vocab_size)
    local whole, model = build(values), build(values)
    local layout = Layout.new(model, mesh)
    tensor_parallel.apply(model, mesh, layout, { sequence_parallel = words.sequence })
    local logits, loss, balance = run(whole, args, labels)
    local own, own_loss, own_balance = run(model, args, labels)
    near("logits", own, logits, LOGITS, largest(logits))
    assert(math.abs(loss - own_loss) <= LOSS * loss, ("loss: %.9g and not %.9g"):format(own_loss, loss))
    assert((balance == nil) == (own_balance == nil) and math.abs((balance or 0) - (own_balance or 0)) < 1e-5,
           "what balances experts")
    local some = { 7, 3, 5 }
    local wanted, made = whole:generate(some, { max_new_tokens = 4 }), model:generate(some, { max_new_tokens = 4 })
    assert(table.concat(wanted, " ") == table.concat(made, " "), "what is generated")
    local cut = 0
    for _, name in ipairs(layout.names) do
        cut = cut + (layout:is_cut(name) and 1 or 0)
    end
    local n = compare_gradients(layout, whole, model)
    whole:close()
    model:close()
    return cut, n
end

local checked = 0
for _, root in ipairs(FOLDERS) do
    for _, name in ipairs(path.list_dir(root)) do
        local wanted = #families == 0
        for _, family in ipairs(families) do
            wanted = wanted or family == name
        end
        if wanted and path.is_file(root .. "/" .. name .. "/config.json") then
            local ok, cut, n = pcall(am.scope, words.dropout and check_slope or check, root .. "/" .. name)
            if not ok then
                io.stderr:write(("%s on rank %d: %s\n"):format(name, world.rank, tostring(cut)))
                group:abort(1, name)
            end
            checked = checked + 1
            if world.rank == 0 then
                print(("%s: %d parameters cut, %d gradients"):format(name, cut, n))
            end
        end
    end
end
mesh:close()
group:close()
print(("%d families are as one rank has them, on rank %d"):format(checked, world.rank))
