-- Modules that are trained whole beside an adapter, as PEFT's modules_to_save: the head of a classifier, or
-- embeddings of new tokens. Also what is done about weights that two modules share.

local err = require("am.core.error")
local packed = require("am.core.packed")
local scope = require("am.core.scope")

local M = {}

-- PEFT trains these with every adapter of these tasks.
local heads = { SEQ_CLS = { "classifier", "score" }, TOKEN_CLS = { "classifier", "score" } }

--- The names to be trained whole: those given (a name, a list or nil), and the heads of the task.
function M.names(given, task)
    local names, seen = {}, {}
    for _, list in ipairs { type(given) == "table" and given or { given }, heads[task] or {} } do
        for _, name in ipairs(list) do
            if type(name) ~= "string" or name == "" then
                err.raise("usage", "peft.modules_to_save: %s is a %s, not a module's name", tostring(name), type(name))
            end
            names[#names + 1] = not seen[name] and name or nil
            seen[name] = true
        end
    end
    return names
end

local function is_named(path, name)
    return path == name or path:sub(-#name - 1) == "." .. name
end

--- A function (path) -> boolean: is the module, or one above it, among names (last names or ends of paths)?
function M.covers(names)
    return function(path)
        repeat
            for _, name in ipairs(names) do
                if is_named(path, name) then
                    return true
                end
            end
            path = path:match("^(.*)%.[^.]+$")
        until not path
        return false
    end
end

--- The parameters that are trained whole, in order, as an array of { name, module, slot }.
function M.parameters(model, names)
    local covers, list = M.covers(names), {}
    for name, module, slot in model:parameter_slots() do
        if covers(name:match("^(.*)%.[^.]+$") or "") then
            list[#list + 1] = { name, module, slot }
        end
    end
    return list
end

--- Refuse a name of modules_to_save that no module has. Heads that M.names added may be missing.
function M.check(model, given)
    for _, name in ipairs(type(given) == "table" and given or { given }) do
        local found = false
        for path in model:named_modules() do
            found = found or is_named(path, name)
        end
        if not found then
            err.raise("usage", "peft.modules_to_save: the model has no module %s", name)
        end
    end
end

--- Give modules that share a weight (an embedding and its head) one each, as PEFT does when only one of them is
--- trained or merged. copy: the weight that is shared now; without it, the owner has got a new one.
function M.untie(model, copy)
    for name in pairs(model.tied or {}) do
        local module, key = model:get(name:match("^(.*)%.")), name:match("[^.]+$")
        if copy then
            module[key] = scope.escape(module[key]:detach():clone())
        end
        for _, slot in ipairs(module._parameters) do
            slot.shared = slot.name ~= key and slot.shared or nil
        end
    end
    model.tied, model.config.tie_word_embeddings = {}, false
    if type(model.config.text_config) == "table" then -- some families' files say it there
        model.config.text_config.tie_word_embeddings = false
    end
end

--- Do names cover one of two modules that share a weight?
function M.is_tied(model, names)
    local covers = M.covers(names)
    for name, of in pairs(model.tied or {}) do
        if covers(name:match("^(.*)%.")) or covers(of:match("^(.*)%.")) then
            return true
        end
    end
    return false
end

--- Have the modules of these names trained; values (name -> tensor of the weight's shape) replace what they hold.
--- Ties are cut, so that only the named one of two learns. The names are then in model.modules_to_save.
function M.train(model, names, values)
    model.modules_to_save = names
    if M.is_tied(model, names) then
        M.untie(model, true)
    end
    for _, item in ipairs(M.parameters(model, names)) do
        local name, module, slot = unpack(item)
        if packed.is(module[slot.name]) then
            err.raise("usage", "peft.modules_to_save: %s is in few bits and cannot be trained; name its module in "
                      .. "quantization.llm_int8_skip_modules, too", name)
        end
        local value = values and values[name]
        if value then
            module[slot.name] = scope.escape(value:to(module[slot.name]:dtype()):clone())
        end
        module[slot.name].requires_grad = true
    end
end

return M
