-- The page of report.html: its sections, its style, and the script that shows a point's value under the pointer.
-- Holds no curves (report_chart.lua) and no numbers of a run (report.lua).
--
--   page.html(content) -> text
--
-- content: title, status ("running", "finished", …), message, summary = { { name, text }, … },
-- charts = { { title =, note =, series = … }, … },
-- samples = { { prompt =, first = { step =, text = }, last = …, truth = text or nil, images = { data: URI, … } }, … },
-- validations = { { set, step, value }, … }, environment = { { name, text }, … }, config_text, written.
-- Everything in it is text that may come from anywhere, and is escaped. The page loads nothing (pictures are in
-- it as data: URIs), and a browser runs no script in it but its own, whose nonce changes each time: what a data set
-- holds cannot guess it.

local chart = require("am.loggers.report_chart")
local posix = require("am.utils.posix")

local M = {}

local escape = chart.escape

local STYLE = [[
:root { color-scheme: light dark; --bg: #fff; --fg: #1c2024; --soft: #5b6470; --line: #d9dde2; --card: #f6f7f9;
  --c1: #0072b2; --c2: #c2410c; --c3: #00795a; --c4: #a03a8c; --good: #00692f; --bad: #b3001b; }
@media (prefers-color-scheme: dark) { :root { --bg: #15181c; --fg: #e6e9ed; --soft: #a3acb8; --line: #343a43;
  --card: #1d2127; --c1: #5ab4ea; --c2: #ff9a5c; --c3: #3fcf9f; --c4: #e08fd0; --good: #5fd38d; --bad: #ff8080; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1240px; padding: 24px 20px 48px; background: var(--bg); color: var(--fg);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "Liberation Sans", Roboto, sans-serif; }
h1 { font-size: 24px; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 36px 0 12px; }
h3 { font-size: 14px; margin: 0; font-weight: 600; }
p { margin: 4px 0; }
.soft { color: var(--soft); }
.status { font-weight: 600; } .finished { color: var(--good); } .failed, .killed { color: var(--bad); }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(170px, 1fr)); gap: 10px; margin: 16px 0 0; }
.facts div { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: 8px 12px; }
.facts dt { color: var(--soft); font-size: 13px; } .facts dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 440px), 1fr)); gap: 16px; }
figure { margin: 0; border: 1px solid var(--line); border-radius: 6px; padding: 12px 12px 6px; min-width: 0; }
figcaption { display: flex; flex-wrap: wrap; gap: 2px 14px; align-items: baseline; margin-bottom: 6px; }
.key { font-size: 13px; white-space: nowrap; } .key i { display: inline-block; width: 14px; height: 3px;
  vertical-align: middle; margin-right: 5px; border-radius: 2px; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font-size: 12px; font-family: inherit; font-variant-numeric: tabular-nums; }
.grid { stroke: var(--line); } .axis { stroke: var(--soft); }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round; } .band { opacity: .18; stroke: none; }
.line.s1 { stroke: var(--c1); } .line.s2 { stroke: var(--c2); } .line.s3 { stroke: var(--c3); }
.line.s4 { stroke: var(--c4); } .line.s2, .line.s4 { stroke-dasharray: 7 3; }
.band.s1, .dot.s1 { fill: var(--c1); } .band.s2, .dot.s2 { fill: var(--c2); }
.band.s3, .dot.s3 { fill: var(--c3); } .band.s4, .dot.s4 { fill: var(--c4); }
i.s1 { background: var(--c1); } i.s2 { background: var(--c2); } i.s3 { background: var(--c3); }
i.s4 { background: var(--c4); }
.hover line { stroke: var(--soft); stroke-dasharray: 2 3; } .hover text { fill: var(--fg); font-weight: 600; }
.hover rect { fill: var(--bg); stroke: var(--line); }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: 12px; margin: 0;
  font: 13px/1.5 ui-monospace, "Liberation Mono", Consolas, monospace; overflow-x: auto; }
.sample { border: 1px solid var(--line); border-radius: 6px; padding: 12px; margin-bottom: 12px; }
.sample pre { white-space: pre-wrap; overflow-wrap: anywhere; }
.seen { display: flex; flex-wrap: wrap; gap: 16px; }
.seen > div:last-child { flex: 1 1 340px; min-width: 0; }
.pictures { display: flex; flex-wrap: wrap; gap: 8px; align-content: flex-start; max-width: 100%; }
.pictures img { display: block; max-width: 100%; height: auto; background: #fff; border: 1px solid var(--line);
  border-radius: 4px; }
.truth { margin-top: 12px; } .truth pre { border-color: var(--good); }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr)); gap: 12px;
  margin-top: 10px; }
table { border-collapse: collapse; } th, td { text-align: left; padding: 3px 18px 3px 0; vertical-align: top;
  overflow-wrap: anywhere; } th { font-weight: 400; color: var(--soft); }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
details summary { cursor: pointer; margin: 12px 0 8px; color: var(--soft); }
@media print { body { max-width: none; } figure, .sample { break-inside: avoid; } }
]]

-- The point of each curve that is nearest to the pointer, with its step and value, in the chart's own units.
local SCRIPT = [==[
for (const svg of document.querySelectorAll("figure svg")) {
  const d = svg.dataset, hover = svg.querySelector(".hover");
  const [left, right, top, bottom] = d.box.split(" ").map(Number);
  const x0 = +d.x0, x1 = +d.x1, y0 = +d.y0, y1 = +d.y1;
  const lines = [...svg.querySelectorAll("polyline")].map(line => ({ name: line.dataset.name,
    points: line.getAttribute("points").split(" ").map(p => p.split(",").map(Number)) }));
  const shown = v => Math.abs(v) >= 1e6 || (v !== 0 && Math.abs(v) < 1e-3) ? v.toExponential(2) : +v.toPrecision(4);
  const make = (name, attributes) => {
    const e = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const key in attributes) e.setAttribute(key, attributes[key]);
    return hover.appendChild(e);
  };
  svg.addEventListener("pointerleave", () => hover.replaceChildren());
  svg.addEventListener("pointermove", event => {
    hover.replaceChildren();
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse()).x;
    let best = null;
    const near = lines.map(line => {
      const p = line.points.reduce((a, b) => Math.abs(b[0] - at) < Math.abs(a[0] - at) ? b : a);
      if (best === null || Math.abs(p[0] - at) < Math.abs(best - at)) best = p[0];
      return { name: line.name, p };
    }).filter(n => Math.abs(n.p[0] - best) < 8);
    const texts = ["step " + Math.round(x0 + (best - left) / (right - left) * (x1 - x0))].concat(near.map(n =>
      n.name + " " + shown(y1 - (n.p[1] - top) / (bottom - top) * (y1 - y0))));
    make("line", { x1: best, x2: best, y1: top, y2: bottom });
    const box = make("rect", { rx: 3 });
    const x = best > (left + right) / 2 ? best - 8 : best + 8, anchor = best > (left + right) / 2 ? "end" : "start";
    let width = 0;
    texts.forEach((text, i) => {
      const t = make("text", { x, y: top + 14 + 15 * i, "text-anchor": anchor });
      t.textContent = text;
      width = Math.max(width, t.getComputedTextLength());
    });
    const side = anchor === "end" ? x - width : x;
    for (const [key, v] of [["x", side - 5], ["y", top], ["width", width + 10], ["height", 15 * texts.length + 6]])
      box.setAttribute(key, v);
  });
}
]==]

local function nonce()
    local file = posix.open("/dev/urandom", "read")
    local bytes = file and posix.read(file, 16) or tostring(posix.time()) .. posix.getpid()
    return (bytes:gsub(".", function(c) return string.format("%02x", c:byte()) end))
end

local function add(out, fmt, ...)
    out[#out + 1] = string.format(fmt, ...)
end

local function rows(out, list)
    add(out, "<table>")
    for _, item in ipairs(list) do
        add(out, "<tr><th>%s</th><td>%s</td></tr>", escape(item[1]), escape(item[2]))
    end
    add(out, "</table>")
end

local function summary(out, c)
    add(out, '<header><h1>%s</h1><p><span class="status %s">%s</span>%s <span class="soft">· written %s</span></p>',
        escape(c.title), escape(c.status), escape(c.status), c.message and ": " .. escape(c.message) or "",
        escape(c.written))
    add(out, '<dl class="facts">')
    for _, item in ipairs(c.summary) do
        add(out, "<div><dt>%s</dt><dd>%s</dd></div>", escape(item[1]), (escape(item[2]):gsub("/", "/<wbr>")))
    end
    add(out, "</dl></header>")
end

local function charts(out, c)
    add(out, '<section><h2>Curves</h2><div class="charts">')
    local n = 0
    for _, item in ipairs(c.charts) do
        local svg = chart.svg(item)
        if svg then
            n = n + 1
            add(out, "<figure><figcaption><h3>%s</h3>", escape(item.title))
            for _, s in ipairs(#item.series > 1 and item.series or {}) do
                if #s.data:buckets() > 0 then
                    add(out, '<span class="key"><i class="%s"></i>%s</span>', s.class, escape(s.name))
                end
            end
            add(out, '<span class="soft key">%s</span></figcaption>', escape(item.note or ""))
            add(out, "%s", svg)
            add(out, "</figure>")
        end
    end
    add(out, "</div>%s", n == 0 and '<p class="soft">No step is done yet.</p>' or "")
    if #c.validations > 0 then
        add(out, "<details><summary>Validations as numbers</summary><table>")
        add(out, "<tr><th>set</th><th>step</th><th>loss</th></tr>")
        for _, v in ipairs(c.validations) do
            add(out, '<tr><td>%s</td><td class="n">%s</td><td class="n">%s</td></tr>', escape(v[1]), escape(v[2]),
                escape(v[3]))
        end
        add(out, "</table></details>")
    end
    add(out, "</section>")
end

-- A prompt and what was said to it; with pictures, these stand beside it.
local function sample(out, s)
    add(out, '<div class="sample%s">', s.images and " seen" or "")
    if s.images then
        add(out, '<div class="pictures">')
        for i, uri in ipairs(s.images) do
            add(out, '<img src="%s" alt="picture %d of the prompt">', escape(uri), i)
        end
        add(out, "</div><div>")
    end
    add(out, '<h3>Prompt</h3><pre>%s</pre><div class="pair">', escape(s.prompt))
    for _, part in ipairs { s.first, s.last } do
        add(out, "<div><h3>%s, at step %s</h3><pre>%s</pre></div>", part == s.first and "Before" or "After",
            escape(part.step), escape(part.text))
    end
    add(out, "</div>")
    if s.truth then
        add(out, '<div class="truth"><h3>Truth</h3><pre>%s</pre></div>', escape(s.truth))
    end
    add(out, s.images and "</div></div>" or "</div>")
end

local function samples(out, c)
    if #c.samples == 0 then
        return
    end
    add(out, "<section><h2>Samples</h2>")
    for _, s in ipairs(c.samples) do
        sample(out, s)
    end
    add(out, "</section>")
end

--- The whole page.
function M.html(c)
    local own = nonce()
    local out = {}
    add(out, '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">')
    add(out, '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        .. "style-src 'nonce-%s'; script-src 'nonce-%s'\">", own, own)
    add(out, '<meta name="viewport" content="width=device-width, initial-scale=1"><title>%s</title>', escape(c.title))
    add(out, '<style nonce="%s">\n%s</style></head><body>', own, STYLE)
    summary(out, c)
    charts(out, c)
    samples(out, c)
    if c.config_text then
        add(out, "<section><h2>Configuration</h2><pre>%s</pre></section>", escape(c.config_text))
    end
    add(out, "<section><h2>Environment</h2>")
    rows(out, c.environment)
    add(out, "</section>")
    add(out, '<script nonce="%s">\n%s</script></body></html>', own, SCRIPT)
    return table.concat(out, "\n") .. "\n"
end

return M
