// Lines over time, with their threshold and what happened meanwhile.
const MARGIN = { left: 46, right: 8, top: 18, bottom: 22 };
const HEIGHT = 170;
// A pause longer than this is a gap, not a line.
const GAP = 5000;

function ticks(most) {
  const rough = most / 4, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough);
  const all = [];
  for (let value = 0; value <= most; value += step) all.push(value);
  return all;
}

const seriesStyle = (index) => "series s" + (index % 6) + " d" + (Math.floor(index / 2) % 3);

function lineOf(name, figure, x, y) {
  let path = "", before = null;
  for (const sample of samples) {
    const value = sample.nodes.get(name)?.[figure];
    if (known(value)) {
      path += (before !== null && sample.at - before <= GAP ? "L" : "M") + x(sample.at).toFixed(1) + "," + y(value).toFixed(1);
      before = sample.at;
    } else before = null;
  }
  return path;
}

function drawChart(figure, status, cursor) {
  const place = byId(figure);
  const width = Math.max(260, place.clientWidth || 320), now = status.unix_millis;
  const limit = status.config.max_staleness_seconds;
  const values = samples.flatMap((sample) => [...sample.nodes.values()].map((node) => node[figure] ?? 0));
  const most = Math.max(limit * 1.25, ...values) || 1;
  const x = (at) => MARGIN.left + (1 - (now - at) / (WINDOW * 1000)) * (width - MARGIN.left - MARGIN.right);
  const y = (value) => HEIGHT - MARGIN.bottom - (value / most) * (HEIGHT - MARGIN.top - MARGIN.bottom);
  const edges = { x1: MARGIN.left, x2: width - MARGIN.right };
  const shapes = [];
  for (const value of ticks(most)) {
    shapes.push(drawn("line", "grid", { ...edges, y1: y(value), y2: y(value) }));
    shapes.push(drawn("text", "soft", { x: MARGIN.left - 6, y: y(value) + 4, "text-anchor": "end" }, [Number(value.toFixed(3)) + " s"]));
  }
  for (const minutes of [5, 4, 3, 2, 1, 0]) {
    const anchor = minutes === 5 ? "start" : minutes === 0 ? "end" : "middle";
    const word = minutes === 0 ? "now" : "-" + minutes + (width > 500 ? " min" : "");
    shapes.push(drawn("text", "soft", { x: x(now - minutes * 60000), y: HEIGHT - 5, "text-anchor": anchor }, [word]));
  }
  let free = -Infinity;
  for (const event of status.events.filter((event) => event.unix_millis > now - WINDOW * 1000)) {
    const at = x(event.unix_millis);
    const title = drawn("title", "", {}, [clock(event.unix_millis) + " " + event.message]);
    shapes.push(drawn("line", "mark", { x1: at, x2: at, y1: MARGIN.top - 4, y2: HEIGHT - MARGIN.bottom }, [title]));
    // Numbers that would cover each other are left out; the list has all.
    if (at < free) continue;
    shapes.push(drawn("text", "soft", { x: Math.min(at, width - 16), y: 11, "text-anchor": "middle" }, ["#" + event.number]));
    free = at + 34;
  }
  shapes.push(drawn("line", "limit", { ...edges, y1: y(limit), y2: y(limit) }));
  shapes.push(drawn("text", "warn", { x: MARGIN.left + 6, y: y(limit) - 5 }, ["max_staleness " + seconds(limit)]));
  status.nodes.forEach((node, index) => {
    shapes.push(drawn("path", seriesStyle(index), { d: lineOf(node.name, figure, x, y), "data-node": node.name }));
  });
  if (cursor < 0) {
    const at = x(now + cursor * 1000);
    shapes.push(drawn("line", "cursor", { x1: at, x2: at, y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }));
  }
  const newest = status.nodes.filter((node) => !node.is_primary)
    .map((node) => node.name + " " + seconds(node[figure + "_seconds"])).join(", ");
  const label = figure + " of each replica over five minutes; threshold " + seconds(limit) + "; now: " + (newest || "no replica");
  renew(place, [picture(width, HEIGHT, { role: "img", "aria-label": label }, shapes)]);
}

function drawLegend(status) {
  const entries = status.nodes.map((node, index) => ({ node, index })).filter(({ node }) => !node.is_primary);
  renew(byId("legend"), entries.map(({ node, index }) => {
    const line = drawn("line", seriesStyle(index), { x1: 2, x2: 32, y1: 6, y2: 6 });
    const text = node.name + ": lag " + seconds(node.lag_seconds) + ", stale at most " + seconds(node.staleness_seconds);
    return element("li", "", [picture(34, 12, { "aria-hidden": "true" }, [line]), element("span", "", [text])]);
  }));
}

// The figures under the cursor, for those who do not see lines, and for those who want them exactly.
function drawReadout(status, cursor) {
  const sample = cursor < 0 ? seenAt(status.unix_millis + cursor * 1000) : samples.at(-1);
  const nodes = [...sample.nodes].map(([name, seen]) => {
    const figures = known(seen.lag) || known(seen.staleness) ? "lag " + seconds(seen.lag) + ", stale at most " + seconds(seen.staleness) + ", " : "";
    return name + ": " + figures + (seen.serving ? "serving" : "not serving");
  });
  const text = clock(sample.at) + (cursor < 0 ? "" : " (now)") + " · " + nodes.join(" · ");
  const place = byId("readout");
  // Read out on demand, not every second.
  place.setAttribute("aria-live", cursor < 0 ? "polite" : "off");
  if (place.textContent !== text) place.textContent = text;
}
