-- Model configurations: config.json as the hub spells it and as transformers 5 does, read into one
-- form and written back in the hub's. Also generation_config.json. What a GGUF file says: gguf.lua.

local err = require("am.core.error")
local json = require("am.utils.json")
local path = require("am.utils.path")
local strings = require("am.utils.strings")
local fields = require("am.models.config_fields")

local M = {}

---@class am.PretrainedConfig fields are those of config.json
local Config = {}

-- A field that config.json leaves out is the family's default, under the family's name of it (see bind). One that
-- config.json has as null is nil. What a configuration of several parts does not say itself, its text part does.
function Config.__index(self, key)
    local method, family = Config[key], rawget(self, "_family")
    if method ~= nil or not family then
        return method
    end
    local name = family.attribute_map[key] or key
    local value = rawget(self, name)
    if value == nil and not rawget(self, "_nulls")[name] then
        value = family.defaults[name]
    end
    local text = rawget(self, "_text")
    if value == nil and text and key:sub(1, 1) ~= "_" then
        value = text[key]
    end
    return value
end

local MAX_BYTES = 16 * 1024 * 1024

local function read_json(file)
    local text, why = path.read_file(file, MAX_BYTES)
    if not text then
        err.raise("io", "%s", why)
    end
    local value, msg = json.decode(text, { ordered = true })
    if type(value) ~= "table" or value == json.null or json.is_array(value) then
        err.raise("format", "%s is not a JSON object%s", file, msg and ": " .. msg or "")
    end
    return value
end

local function is_object(value)
    return type(value) == "table" and value ~= json.null and not json.is_array(value)
end

-- rope_parameters, or a kind of layer's in it, must be an object.
local function check_object(c, value, name)
    if value ~= nil and value ~= json.null and not is_object(value) then
        err.raise("format", "%s: \"%s\" must be an object", c._name_or_path or "config.json", name)
    end
end

-- transformers 5's rope_parameters, of one kind of layer, as the hub's fields.
local function respell_rope(c, rope)
    c.rope_theta = rope.rope_theta or c.rope_theta
    c.partial_rotary_factor = rope.partial_rotary_factor or c.partial_rotary_factor
    local scaling = {}
    for k, v in pairs(rope) do
        if k ~= "rope_theta" and k ~= "partial_rotary_factor" then
            scaling[k] = v
        end
    end
    c.rope_scaling = scaling
end

-- One spelling inside: torch_dtype, rope_theta, rope_scaling{rope_type}, and for layers with a window of their own
-- rope_local_base_freq.
local function respell(c)
    if c.dtype and c.dtype ~= json.null and not c.torch_dtype then
        c.torch_dtype = c.dtype
    end
    c.dtype = nil
    local rope = c.rope_parameters
    check_object(c, rope, "rope_parameters")
    if is_object(rope) then
        local all, near = rope.full_attention, rope.sliding_attention
        check_object(c, all, "rope_parameters.full_attention")
        check_object(c, near, "rope_parameters.sliding_attention")
        if is_object(near) then
            c.rope_local_base_freq = near.rope_theta or c.rope_local_base_freq
            if near.rope_type and near.rope_type ~= "default" then
                err.raise("unsupported", "%s: \"rope_parameters.sliding_attention\" of type \"%s\": only the default "
                          .. "type is known there", c._name_or_path or "config.json", tostring(near.rope_type))
            end
        end
        respell_rope(c, is_object(all) and all or is_object(near) and {} or rope)
        c.rope_parameters = nil
    end
    local scaling = c.rope_scaling
    if type(scaling) == "table" and scaling ~= json.null then
        scaling.rope_type = scaling.rope_type or scaling.type
        scaling.type = nil
        if scaling.rope_type == "mrope" then -- what it meant is said by mrope_section
            scaling.rope_type = "default"
        end
        if scaling.rope_type == "default" and not scaling.mrope_section then
            c.rope_scaling = json.null
        end
    end
    return c
end

local function drop_nulls(c)
    local nulls = rawget(c, "_nulls")
    for k, v in pairs(c) do
        if v == json.null then
            c[k] = nil
        end
        if nulls and k:sub(1, 1) ~= "_" then
            nulls[k] = v == json.null or nil
        end
    end
    return c
end

local function copy(value)
    if type(value) ~= "table" or value == json.null then
        return value
    end
    local out = {}
    for k, v in pairs(value) do
        if k ~= "_family" and k ~= "_text" then -- which come with the model
            out[k] = copy(v)
        end
    end
    return setmetatable(out, getmetatable(value))
end

-- Objects are merged, null takes a value away, all else replaces.
local function merge(into, values)
    for k, v in pairs(values) do
        if is_object(v) and is_object(into[k]) then
            merge(into[k], v)
        else
            into[k] = v
        end
    end
    if is_object(into.rope_scaling) then
        drop_nulls(into.rope_scaling)
    end
    return drop_nulls(into)
end

--- A configuration with a copy of config.json's fields, given as a table or another configuration.
function M.new(values)
    if type(values) ~= "table" then
        err.raise("argument", "a configuration is a table of config.json's fields, not a %s", type(values))
    end
    return merge(setmetatable({ _nulls = {} }, Config), respell(copy(values)))
end

--- Give the configuration its family's defaults and names of fields, {defaults =, attribute_map =}, as
--- transformers' configuration class has them; padding = false where pad_token_id names no row of the embeddings.
function Config:bind(family)
    self._family = { defaults = family.defaults or {}, attribute_map = family.attribute_map or {},
                     padding = family.padding }
    for common, name in pairs(self._family.attribute_map) do
        local value = rawget(self, common)
        if value ~= nil then -- the last word of config_overrides, or transformers 5's
            self[common] = nil
            self[name] = value
        end
    end
    return self
end

--- A part of a configuration, the object `key` in it, as a configuration with its family's defaults; values: in place
--- of that object. What messages call it names file and part.
function Config:part(key, family, values)
    values = values or self[key]
    if values == nil then
        values = {}
    elseif not is_object(values) and (type(values) ~= "table" or next(values) ~= nil) then
        err.raise("format", "%s: \"%s\" must be an object", self._name_or_path or "config.json", key)
    end
    local part = M.new(values)
    part._name_or_path = string.format("%s, %s", self._name_or_path or "config.json", key)
    return part:bind(family):check()
end

--- The part that is about text (see part) answers for fields that this one does not have.
function Config:answer_by(text)
    self._text = text
end

--- Put other values in place of this configuration's: objects are merged, null takes a value away. A
--- name that looks like a mistyped one is a "usage" error.
function Config:override(values)
    if type(values) ~= "table" then
        err.raise("argument", "config_overrides is a table of config.json's fields, not a %s", type(values))
    end
    values = respell(copy(values))
    local known = {}
    for _, set in ipairs { self, fields.kinds } do
        for key in pairs(set) do
            known[#known + 1] = key
        end
    end
    for _, key in ipairs(fields.sizes) do
        known[#known + 1] = key
    end
    for key in pairs(values) do
        local near = strings.nearest(key, known)
        if near and near ~= key and self[key] == nil and not fields.kinds[key] then
            err.raise("usage", "config_overrides.%s: the model's configuration has no such field (did you mean "
                      .. "\"%s\"?)", key, near)
        end
    end
    return merge(self, values)
end

--- A field's name as the family's files have it.
function Config:spelling(key)
    local family = rawget(self, "_family")
    return family and family.attribute_map[key] or key
end

local function shown(v)
    return v == json.null and "null" or type(v) == "table" and "a list or object" or tostring(v)
end

--- A field that must be a positive integer of at most `max` (2^31); the error names the file.
function Config:integer(key, default, max)
    local v = self[key]
    if v == nil then
        v = default
    end
    if type(v) ~= "number" or v < 1 or v ~= math.floor(v) or v > (max or 2 ^ 31) then
        err.raise("format", "%s: \"%s\" must be a positive integer%s, not %s", self._name_or_path or "config.json",
                  self:spelling(key), max and string.format(" of at most %d", max) or "", shown(v))
    end
    return v
end

local function check_field(self, key, v, kind, least, most)
    local same = type(v) == (kind == "object" and "table" or kind)
        or kind == "list" and type(v) == "table" and (json.is_array(v) or next(v) == nil)
        or kind == "integer" and type(v) == "number" and v % 1 == 0
    if not same or type(v) == "number" and not (v >= (least or -math.huge) and v <= (most or math.huge)) then
        local range = (least and " of at least " .. least or "") .. (most and " and at most " .. most or "")
        err.raise("format", "%s: \"%s\" must be %s %s%s, not %s", self._name_or_path or "config.json",
                  self:spelling(key), kind:find("^[io]") and "an" or "a", kind, range, shown(v))
    end
end

--- Raise a "format" error naming file and field unless the fields have the types that models read.
function Config:check()
    for key, kind in pairs(fields.kinds) do
        if self[key] ~= nil then
            check_field(self, key, self[key], unpack(kind))
        end
    end
    local family = rawget(self, "_family")
    for key in pairs(family and family.defaults or {}) do
        local kind = fields.kinds[key]
        if kind and kind[1] ~= "boolean" and self[key] == nil and not fields.nullable[key] then
            check_field(self, key, json.null, unpack(kind))
        end
    end
    if self.pad_token_id ~= nil then
        check_field(self, "pad_token_id", self.pad_token_id, "integer", -1,
                    not (family and family.padding == false) and self:integer("vocab_size") - 1 or nil)
    end
    for key, v in pairs(self.rope_scaling or {}) do
        if key == "rope_type" then
            check_field(self, "rope_scaling.rope_type", v, "string")
        elseif type(v) ~= "table" and type(v) ~= "boolean" then
            check_field(self, "rope_scaling." .. tostring(key), v, "number", 0)
        end
    end
    return self
end

--- An error object about a field of this configuration.
function Config:unsupported(key, e)
    error(err.new("unsupported", string.format("%s: \"%s\": %s", self._name_or_path or "config.json",
                                               self:spelling(key), tostring(e))), 0)
end

--- Fields as a plain table in the hub's spelling, for config.json.
function Config:to_table()
    local out = {}
    for k, v in pairs(self) do
        if k:sub(1, 1) ~= "_" then
            out[k] = v
        end
    end
    local family = rawget(self, "_family")
    for k in pairs(family and self._nulls or {}) do
        if family.defaults[k] ~= nil then -- left out, it would be the default
            out[k] = k == "rope_scaling" and { rope_type = "default" } or json.null
        end
    end
    return out
end

-- A copy in which fields that transformers takes as floats only are such, also those of parts.
local function with_floats(values)
    local out = setmetatable({}, getmetatable(values))
    for key, value in pairs(values) do
        out[key] = is_object(value) and key:find("_config$") and with_floats(value) or value
    end
    for _, key in ipairs(fields.floats) do
        if type(out[key]) == "number" then
            out[key] = json.float(out[key])
        end
    end
    return out
end

--- Write config.json into a directory.
function Config:save(dir)
    local out = with_floats(self:to_table())
    path.write_file(path.join(dir, "config.json"), json.encode(out, { indent = 2, sort_keys = true }) .. "\n")
end

--- Read DIR/config.json (or the file itself).
function M.from_pretrained(dir)
    local file = dir:match("%.json$") and dir or path.join(dir, "config.json")
    if not path.is_file(file) then
        local inner = path.folder_with(dir, "config.json",
                                      { "consolidated", "model/consolidated", "LATEST/model/consolidated" })
        err.raise("io", "%s has no config.json, so it is no model directory%s", dir,
            inner and "; the model is in " .. inner or path.is_file(path.join(dir, "adapter_config.json"))
                and "; it has an adapter, which goes on the model that it was made of" or "")
    end
    local values = read_json(file)
    values._name_or_path = file
    return M.new(values)
end

--- DIR/generation_config.json as a table, or nil.
function M.generation_config(dir)
    local file = path.join(dir, "generation_config.json")
    return path.is_file(file) and read_json(file) or nil
end

return M
