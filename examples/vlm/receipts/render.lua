-- Receipts as a till prints them, with what they say in CORD-v2's form (gt_parse), for make_cord_v2_dataset.
--
--   amlua examples/vlm/receipts/render.lua OUTPUT_DIR COUNT SEED [words]
--
-- Writes COUNT pictures as SVG files and metadata.jsonl, a row of file_name (of the PNG file that rsvg-convert is to
-- make) and ground_truth for each. With "words" a picture is a character, a price or a word of half a line, and the row
-- has its text, for ImageFolder. The same seed gives the same files.
--
-- A receipt has 16 columns and 11 lines of DejaVu Sans Mono in double width, as tills print for cafés: a character is
-- 14 x 14 pixels, the size of a patch of DINOv2. Shop, date, one to three articles of a card of 32, subtotal, tax of
-- 5, 8 or 10 %, total. Prices are drawn at random, so they cannot be known but from the picture. Paper and ink differ
-- in shade from receipt to receipt and line to line, and what is printed is off by up to a pixel.

local json = require("am.utils.json")
local path = require("am.utils.path")

local COLUMNS, LINES, CELL = 16, 11, 14

local SHOPS = { "Luna", "Corner", "Harbour", "Station", "Garden", "Market", "Castle", "Bridge" }
local CARD = {
    "Latte", "Espresso", "Mocha", "Tea", "Lemonade", "Cola", "Water", "Juice", "Beer", "Wine", "Milk", "Muffin",
    "Bagel", "Donut", "Cookie", "Brownie", "Toast", "Cake", "Bread", "Sandwich", "Burger", "Fries", "Salad", "Soup",
    "Pizza", "Pasta", "Omelette", "Pancakes", "Waffle", "Yogurt", "Burrito", "Steak",
}

local out, count, state, as_words = arg[1], tonumber(arg[2]), tonumber(arg[3]), arg[4] == "words"
assert(out and count and state, "usage: amlua examples/vlm/receipts/render.lua OUTPUT_DIR COUNT SEED [words]")

local function below(n) -- a whole number from 0, by Park and Miller's generator: the same on every machine
    state = state * 16807 % 0x7fffffff
    return state % n
end
state = state % 0x7ffffffe + 1
for _ = 1, 8 do below(2) end -- seeds beside each other begin alike

local function one_of(list) return list[below(#list) + 1] end

local function money(cents) return string.format("%d.%02d", math.floor(cents / 100), cents % 100) end

-- Text to the left, text to the right, COLUMNS wide.
local function line(left, right)
    return left .. (" "):rep(COLUMNS - #left - #right) .. right
end

local function middle(text) return (" "):rep(math.floor((COLUMNS - #text) / 2)) .. text end

-- The lines of a receipt and its truth.
local function receipt()
    local lines, menu, sum = {}, {}, 0
    lines[1] = middle("Cafe " .. one_of(SHOPS))
    lines[2] = middle(string.format("20%02d-%02d-%02d", 20 + below(6), 1 + below(12), 1 + below(28)))
    lines[3] = ("-"):rep(COLUMNS)
    for _ = 1, 1 + below(3) do
        local number, name = one_of { 1, 1, 1, 2, 2, 3, 4 }, one_of(CARD)
        local price = number * (50 + 5 * below(150))
        lines[#lines + 1] = line(number .. " " .. name, money(price))
        menu[#menu + 1] = { nm = name, cnt = tostring(number), price = money(price) }
        sum = sum + price
    end
    lines[#lines + 1] = ("-"):rep(COLUMNS)
    local tax = math.floor(sum * one_of { 5, 8, 10 } / 100 + 0.5)
    lines[#lines + 1] = line("Subtotal", money(sum))
    lines[#lines + 1] = line("Tax", money(tax))
    lines[#lines + 1] = line("Total", money(sum + tax))
    return lines, {
        menu = #menu == 1 and menu[1] or json.array(menu), -- as CORD-v2 has a menu of one
        sub_total = { subtotal_price = money(sum), tax_price = money(tax) },
        total = { total_price = money(sum + tax) },
    }
end

local CHARACTERS = "0123456789.ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

-- A line with one thing on it, to the left or to the right, and what it is.
local function word()
    local kind = below(20)
    local text
    if kind < 7 then
        local i = below(#CHARACTERS) + 1
        text = CHARACTERS:sub(i, i)
    elseif kind < 10 then
        text = tostring(below(10))
    elseif kind < 17 then
        text = money(below(kind < 14 and 1000 or 10000))
    else
        text = kind < 19 and one_of(CARD) or one_of { "Subtotal", "Tax", "Total" }
    end
    return { (" "):rep(below(2) * (COLUMNS / 2 - #text)) .. text }, text
end

local function grey(level) return string.format("#%02x%02x%02x", level, level, level) end

local LINE = '<text transform="translate(%d,%d) scale(2,1)" fill="%s" xml:space="preserve">%s</text>\n'
local PAGE = '<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="DejaVu Sans Mono" '
    .. 'font-size="%.4f">\n<rect width="100%%" height="100%%" fill="%s"/>\n%s</svg>\n'

-- A cell is CELL wide; DejaVu Sans Mono's advance is 1233/2048 of its size.
local function svg(lines)
    local width, height = COLUMNS * CELL / (as_words and 2 or 1), (as_words and 1 or LINES) * CELL
    local texts = {}
    for i, text in ipairs(lines) do
        texts[i] = string.format(LINE, below(3) - 1, i * CELL - 3 + below(2), grey(below(80)), text)
    end
    return string.format(PAGE, width, height, CELL / 2 * 2048 / 1233, grey(230 + below(26)), table.concat(texts))
end

path.mkdir_p(out)
local rows = {}
for i = 1, count do
    local name = string.format("%05d", i)
    local lines, truth
    local row = { file_name = name .. ".png" }
    if as_words then
        lines, row.text = word()
    else
        lines, truth = receipt()
        row.ground_truth = json.encode({ gt_parse = truth }, { sort_keys = true })
    end
    path.write_file(path.join(out, name .. ".svg"), svg(lines))
    rows[i] = json.encode(row, { sort_keys = true }) .. "\n"
end
path.write_file(path.join(out, "metadata.jsonl"), table.concat(rows))
print(string.format("%d %s in %s", count, as_words and "words" or "receipts", out))
