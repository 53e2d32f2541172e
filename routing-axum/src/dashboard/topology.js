// Who is primary, who follows, and how far behind.
const BOX = { width: 210, height: 66, gap: 16 };

function box(x, y, width, style, lines, key) {
  const texts = lines.map(([text, kind], index) => {
    const shown = shortened(text, Math.floor((width - 20) / (index === 0 ? 8.6 : 7)));
    return drawn("text", kind, { x: x + 10, y: y + 21 + index * 18 }, [shown]);
  });
  const title = drawn("title", "", {}, [lines.map(([text]) => text).join(", ")]);
  const frame = drawn("rect", "box " + style, { x, y, width, height: BOX.height, rx: 8 });
  return drawn("g", "", { "data-node": key }, [title, frame, ...texts]);
}

function nodeBox(node, x, y, width) {
  const kind = node.serving ? "good" : "bad";
  const state = node.serving ? "serving" : "not serving: " + (node.refused || "unknown");
  const place = known(node.timeline) ? "timeline " + node.timeline + ", " + (node.lsn || "unknown") : node.address;
  const lines = [[node.name + " (" + roleOf(node) + ")", "name"], [state, kind], [place, "soft"]];
  return box(x, y, width, node.serving ? "serving" : "refused", lines, node.name);
}

function arrow(points, style) {
  const [x, y] = points.at(-1);
  const head = drawn("path", "head " + style, { d: "M" + x + "," + y + "l-9,-5v10z" });
  const line = points.slice(0, -1).concat([[x - 8, y]]).map((point) => point.join(",")).join(" ");
  return [drawn("polyline", "arrow " + style, { points: line }), head];
}

function drawTopology(status) {
  const place = byId("topology");
  const width = Math.max(260, place.clientWidth || 320), narrow = width < 520;
  const primary = status.nodes.find((node) => node.is_primary);
  const others = status.nodes.filter((node) => !node.is_primary);
  const rows = Math.max(1, others.length + (narrow ? 1 : 0));
  const height = rows * (BOX.height + BOX.gap) + BOX.gap;
  const left = narrow ? width - 2 : Math.min(BOX.width, width * 0.4);
  const right = narrow ? 44 : width - left - 2;
  const top = narrow ? 2 : (height - BOX.height) / 2;
  const shapes = [primary
    ? nodeBox(primary, 2, top, left - 2)
    : box(2, top, left - 2, "refused", [["no primary", "name"], [status.primary_missing || "unknown", "bad"]], "")];
  others.forEach((node, index) => {
    const y = BOX.gap + (index + (narrow ? 1 : 0)) * (BOX.height + BOX.gap);
    const style = node.serving ? "serving" : "refused";
    const middle = y + BOX.height / 2, turn = narrow ? 20 : (left + right) / 2 - 14;
    const from = narrow ? [turn, top + BOX.height] : [left, top + BOX.height / 2];
    shapes.push(nodeBox(node, right, y, narrow ? width - right - 2 : left - 2));
    // One that is out of recovery beside the primary follows nobody.
    if (!primary || node.role === "primary") return;
    shapes.push(...arrow([from, [turn, from[1]], [turn, middle], [right - 3, middle]], style));
    if (!narrow) {
      const behind = known(node.lag_seconds) ? seconds(node.lag_seconds) + " behind" : "lag unknown";
      shapes.push(drawn("text", "soft", { x: turn + 5, y: middle - 6 }, [behind]));
    }
  });
  const text = status.nodes.map((node) => node.name + ", " + roleOf(node) + ": " + stateOf(node)).join("; ");
  const label = (primary ? "" : "No primary. ") + text;
  renew(place, [picture(width, height, { role: "img", "aria-label": label }, shapes)]);
}
