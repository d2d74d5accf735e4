-- Builds the syntax tree of a template from the lexer's tokens: statements here, expressions in
-- expression_parser.lua. The grammar is that of jinja2 3.1 with the tags transformers adds.
--
-- Statement nodes are {kind = …, line = …, fields…} with the kinds data, print, if, for, set, set_block,
-- macro, call_block, filter_block, with, generation, break, continue. What is assigned to is a name, a
-- tuple of these, or an nsref (namespace.attribute).

local err = require "am.core.error"
local Parser = require "am.chat.expression_parser"
local lexer = require "am.chat.lexer"

local M = {}

-- assignment targets ----------------------------------------------------------------------------------

function Parser:check_target(target)
    if target.kind == "tuple" then
        for _, item in ipairs(target.items) do self:check_target(item) end
    elseif target.kind ~= "name" and target.kind ~= "nsref" then
        self:fail("cannot assign to " .. target.kind, target.line)
    end
    return target
end

function Parser:target(opts)
    opts = opts or {}
    opts.targets = true
    return self:check_target(self:tuple(opts))
end

function Parser:target_name()
    local token = self:expect("name")
    if Parser.constants[token.value] ~= nil then self:fail("cannot assign to " .. token.value, token.line) end
    return token.value
end

-- statements ----------------------------------------------------------------------------------------

-- The statements up to a tag named in `ends` (not consumed, `{%` before it is).
function Parser:body(ends)
    self:skip_if(":")
    self:expect("block_end")
    local nodes = self:nested(self.statements, ends)
    if self:is("eof") then
        self:fail("the template ends here; expected '" .. table.concat(ends, "' or '") .. "'")
    end
    return nodes
end

-- The body of a block with one closing tag, which is consumed.
function Parser:closed_body(stop)
    local nodes = self:body { stop }
    self:next()
    return nodes
end

-- A body that runs as a function of its own: break and continue do not reach out of it.
function Parser:function_body(stop)
    local loops = self.loops
    self.loops = 0
    local nodes = self:closed_body(stop)
    self.loops = loops
    return nodes
end

local statements = {}

statements["if"] = function(self, line)
    local node = { kind = "if", line = line, branches = {} }
    local word
    repeat
        local test = self:tuple { without_conditional = true }
        local body = self:body { "elif", "else", "endif" }
        node.branches[#node.branches + 1] = { test = test, body = body }
        word = self:next().value
    until word ~= "elif"
    if word == "else" then node.otherwise = self:closed_body("endif") end
    return node
end

statements["for"] = function(self, line)
    local node = { kind = "for", line = line, target = self:target { stop = "in" } }
    self:expect_name("in")
    node.iterable = self:tuple { without_conditional = true, stop = "recursive" }
    if self:skip_name("if") then node.test = self:expression() end
    node.recursive = self:skip_name("recursive") ~= nil
    self.loops = self.loops + 1
    node.body = self:body { "endfor", "else" }
    self.loops = self.loops - 1
    if self:next().value == "else" then node.otherwise = self:closed_body("endfor") end
    return node
end

local function loop_control(self, line, kind)
    if self.loops == 0 then self:fail("'" .. kind .. "' outside a loop", line) end
    return { kind = kind, line = line }
end

statements["break"] = function(self, line) return loop_control(self, line, "break") end
statements["continue"] = function(self, line) return loop_control(self, line, "continue") end

function statements.set(self, line)
    local target = self:target { nsref = true }
    if self:skip_if("=") then
        return { kind = "set", line = line, target = target, value = self:tuple {} }
    end
    local filter
    while self:skip_if("|") do filter = self:filter(filter) end
    return { kind = "set_block", line = line, target = target, filter = filter, body = self:closed_body("endset") }
end

function Parser:signature()
    local parameters, has_default = {}, false
    self:expect("(")
    while not self:is(")") do
        if #parameters > 0 then self:expect(",") end
        local parameter = { name = self:target_name() }
        if self:skip_if("=") then
            parameter.default = self:expression()
            has_default = true
        elseif has_default then
            self:fail("a parameter without default follows one with a default")
        end
        parameters[#parameters + 1] = parameter
    end
    self:expect(")")
    return parameters
end

function statements.macro(self, line)
    local name = self:target_name()
    local parameters = self:signature()
    return { kind = "macro", line = line, name = name, parameters = parameters, body = self:function_body("endmacro") }
end

function statements.call(self, line)
    local parameters = self:is("(") and self:signature() or {}
    local call = self:expression()
    if call.kind ~= "call" then self:fail("expected a call", line) end
    return { kind = "call_block", line = line, parameters = parameters, call = call,
        body = self:function_body("endcall") }
end

function statements.filter(self, line)
    local filter = self:filter(nil)
    while self:skip_if("|") do filter = self:filter(filter) end
    return { kind = "filter_block", line = line, filter = filter, body = self:closed_body("endfilter") }
end

statements["with"] = function(self, line)
    local node = { kind = "with", line = line, targets = {}, values = {} }
    while not self:is("block_end") do
        if #node.targets > 0 then self:expect(",") end
        node.targets[#node.targets + 1] = self:target()
        self:expect("=")
        node.values[#node.values + 1] = self:expression()
    end
    node.body = self:closed_body("endwith")
    return node
end

function statements.generation(self, line)
    return { kind = "generation", line = line, body = self:function_body("endgeneration") }
end

function statements.print(self, line)
    local nodes = {}
    while not self:is("block_end") do
        if #nodes > 0 then self:expect(",") end
        nodes[#nodes + 1] = { kind = "print", line = line, value = self:expression() }
    end
    return nodes
end

-- Tags of Jinja that need other templates or HTML escaping, which chat templates have no use for.
local unsupported = { block = true, extends = true, include = true, import = true, from = true, autoescape = true }

function Parser:statement()
    local token = self:expect("name")
    local parse = statements[token.value]
    if parse then return parse(self, token.line) end
    if unsupported[token.value] then
        err.raise("unsupported", "chat template, line %d: the tag '%s' is not supported", token.line, token.value)
    end
    self:fail("unknown tag '" .. token.value .. "'", token.line)
end

function Parser:statements(ends)
    local nodes = {}
    while not self:is("eof") do
        local token = self:next()
        if token.type == "data" then
            nodes[#nodes + 1] = { kind = "data", line = token.line, text = token.value }
        elseif token.type == "variable_begin" then
            nodes[#nodes + 1] = { kind = "print", line = token.line, value = self:tuple {} }
            self:expect("variable_end")
        else
            for _, word in ipairs(ends or {}) do
                if self:is_name(word) then return nodes end
            end
            local node = self:statement()
            if node.kind then
                nodes[#nodes + 1] = node
            else
                for _, part in ipairs(node) do nodes[#nodes + 1] = part end
            end
            self:expect("block_end")
        end
    end
    return nodes
end

--- The syntax tree of a template: an array of statement nodes. Raises "format" with the line for a
--- template that Jinja would refuse, "unsupported" for tags named above.
function M.parse(source)
    return Parser.new(lexer.tokenize(source)):statements()
end

return M
