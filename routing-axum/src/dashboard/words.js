// Figures and names as a person reads them.
function seconds(value) {
  if (!known(value)) return "unknown";
  if (value < 0.0005) return "0";
  if (value < 1) return (value * 1000).toFixed(value < 0.01 ? 1 : 0) + " ms";
  if (value < 120) return value.toFixed(1) + " s";
  return value < 7200 ? (value / 60).toFixed(1) + " min" : (value / 3600).toFixed(1) + " h";
}

function bytes(value) {
  if (!known(value)) return "unknown";
  if (value < 1024) return value + " B";
  const units = ["KiB", "MiB", "GiB", "TiB"];
  let unit = -1;
  do { value /= 1024; unit += 1; } while (value >= 1024 && unit < units.length - 1);
  return value.toFixed(1) + " " + units[unit];
}

const spaced = (name) => String(name).replaceAll("_", " ");
const clock = (millis) => new Date(millis).toLocaleTimeString([], { hour12: false });
const rate = (value) => (value < 10 ? value.toFixed(1) : Math.round(value)) + "/s";
const roleOf = (node) => (node.is_primary ? "primary" : node.role);
const shortened = (text, letters) => (text.length > letters ? text.slice(0, Math.max(1, letters - 1)) + "…" : text);

// `serving`, or why not, and since when.
function stateOf(node) {
  if (node.serving) return node.is_primary ? "serving writes, and reads when no replica can" : "serving reads";
  const since = known(node.down_seconds) ? " (for " + seconds(node.down_seconds) + ")" : "";
  return "not serving: " + (node.refused || "unknown") + since;
}

function pool(figures) {
  const used = Math.max(0, figures.open - figures.idle);
  const waiting = figures.waiting > 0 ? ", " + figures.waiting + " waiting" : "";
  const text = used + " used, " + figures.idle + " idle of " + figures.max + waiting;
  return gauge(text, used, figures.max, figures.waiting > 0 ? "warn" : "");
}

function breakerOf(node) {
  const name = String(node.breaker).replace("_", "-");
  return known(node.breaker_open_seconds) ? name + " for " + seconds(node.breaker_open_seconds) + " more" : name;
}
