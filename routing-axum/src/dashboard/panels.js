// Lists of figures: the cluster, who was given what and why, each node, what happened.
function drawSummary(status) {
  const config = status.config, late = status.monitor_age_seconds > Math.max(2, 10 * config.probe_interval_seconds);
  const serving = status.nodes.filter((node) => node.serving).length;
  const missing = status.primary_missing;
  const primary = status.primary ? status.primary + (missing ? " (" + missing + ")" : "") : "none: " + (missing || "unknown");
  const discovery = status.discovery;
  const rows = [
    row("Primary", primary, missing ? "bad" : "good"),
    row("Timeline", known(status.highest_timeline) ? status.highest_timeline : "unknown"),
    row("Accepted", status.epoch + (status.epoch === 1 ? " time" : " times") + " a node or timeline as the primary"),
    row("Nodes", serving + " of " + status.nodes.length + " may serve", serving === status.nodes.length ? "" : "warn"),
    row("Monitor", "updated " + seconds(status.monitor_age_seconds) + " ago" + (late ? ": it stands still" : ""), late ? "bad" : ""),
    row("Discovery", discoveryText(discovery), discovery && (discovery.error || discovery.frozen) ? "warn" : ""),
    row("Reads", status.reads_from_primary_only ? "by the primary alone, as an operator wants" : "by replicas", status.reads_from_primary_only ? "warn" : ""),
    row("For lost replicas", cap(status.fallback_in_use, config.fallback_no_replica, "reads on the primary")),
    row("Ahead of replicas", cap(status.fallback_behind_token_in_use, config.fallback_behind_token, "reads on the primary")),
    row("Waiting writes", cap(status.waiting_writes, config.write_waiters, "for a primary")),
  ];
  renew(byId("summary"), rows.flat());
}

const cap = (used, limit, what) => gauge(used + " of " + limit + " " + what, used, limit, used > 0 ? "warn" : "");

function discoveryText(discovery) {
  if (!discovery) return "a fixed list";
  const parts = [discovery.kind];
  parts.push(known(discovery.age_seconds) ? "answered " + seconds(discovery.age_seconds) + " ago" : "no answer yet");
  if (discovery.leader) parts.push("leader " + discovery.leader);
  if (discovery.frozen) parts.push("its lists are left aside");
  if (discovery.error) parts.push("fails: " + discovery.error);
  return parts.join(", ");
}

function bar(title, text, part, key) {
  const label = title + ": " + text;
  const line = element("div", "", [element("span", "", [title]), element("span", "soft", [text])]);
  return element("li", "", [line, element("progress", "", [], { max: 1, value: part, "aria-label": label })], { "data-key": key });
}

// Over the last minute, or as long as the page is open.
function drawShare(status) {
  const last = samples.at(-1), first = seenAt(last.at - 60000);
  const span = (last.at - first.at) / 1000;
  const shares = status.nodes.map((node) => ({ name: node.name, ...given(node.name, first, last) }));
  const all = shares.reduce((sum, share) => sum + share.read + share.write, 0);
  byId("share-window").textContent = span > 0 ? "Over the last " + seconds(span) + ": " + all + " decisions." : "Measuring …";
  renew(byId("share"), shares.map((share) => {
    const part = all > 0 ? (share.read + share.write) / all : 0;
    const per = (count) => rate(span > 0 ? count / span : 0);
    const text = Math.round(part * 100) + " %, reads " + per(share.read) + ", writes " + per(share.write);
    return bar(share.name, text, part, share.name);
  }));
}

function drawReasons(status) {
  const reasons = new Map();
  for (const node of status.nodes) {
    for (const { access, reason, count } of node.decisions) {
      const key = spaced(reason) + " (" + access + ")";
      if (!reasons.has(key)) reasons.set(key, { total: 0, nodes: [] });
      reasons.get(key).total += count;
      reasons.get(key).nodes.push(node.name + " " + count);
    }
  }
  const all = [...reasons.values()].reduce((sum, one) => sum + one.total, 0);
  const sorted = [...reasons].sort(([, a], [, b]) => b.total - a.total);
  const bars = sorted.map(([key, one]) => bar(key, one.total + ": " + one.nodes.join(", "), one.total / all, key));
  renew(byId("reasons"), bars.length ? bars : [element("li", "soft", ["none yet"])]);
}

function staleness(value, limit) {
  const text = seconds(value) + " of " + seconds(limit) + " allowed";
  if (!known(value)) return element("div", "bad", [text]);
  return gauge(text, value, limit, value > limit ? "bad" : "");
}

function recent(node) {
  const lines = node.recent.map((one) =>
    element("li", "", [seconds(one.seconds_ago) + " ago: " + one.access + ", " + spaced(one.reason)]));
  const title = element("summary", "", ["Last decisions (" + lines.length + ")"]);
  return element("details", "", [title, element("ol", "soft", lines.length ? lines : [element("li", "", ["none yet"])])]);
}

function lastAnswer(node) {
  if (known(node.down_seconds)) return "none for " + seconds(node.down_seconds);
  return known(node.probe_age_seconds) ? seconds(node.probe_age_seconds) + " ago" : "none yet";
}

function drawNode(node, config) {
  const lag = seconds(node.lag_seconds) + (known(node.lag_bytes) ? " (" + bytes(node.lag_bytes) + ")" : "");
  const follows = node.is_primary ? [] : [
    row("Lag", lag),
    row("Staleness", staleness(node.staleness_seconds, config.max_staleness_seconds)),
  ];
  const rows = [
    row("Address", node.address),
    row("Position", (node.lsn || "unknown") + (known(node.timeline) ? ", timeline " + node.timeline : "")),
    ...follows,
    row("Breaker", breakerOf(node), node.breaker === "closed" ? "" : "warn"),
    row("In flight", node.in_flight),
    row("Latency", seconds(node.latency_seconds)),
    row("Read pool", pool(node.read_pool)),
    row("Write pool", pool(node.write_pool)),
    row("Weight", node.weight + (node.draining ? ", draining" : ""), node.draining ? "warn" : ""),
    row("Last reason", node.last_reason ? spaced(node.last_reason) : "none yet"),
    row("Last answer", lastAnswer(node), known(node.down_seconds) ? "bad" : ""),
  ];
  const head = element("div", "head", [element("h3", "", [node.name]), element("span", "soft", [roleOf(node)])]);
  const state = element("p", "state", [stateOf(node)]);
  const body = [head, state, element("dl", "", rows.flat()), recent(node)];
  const style = "card node " + (node.serving ? "serving" : "refused");
  return element("li", style, body, { "data-key": node.name, "data-node": node.name });
}

const SERIOUS = ["ambiguous", "primary_lost", "primary_read_only", "refused", "stale"];

function drawEvents(status) {
  const lines = status.events.toReversed().map((event) => {
    const style = SERIOUS.includes(event.kind) ? "warn" : "soft";
    const kind = element("span", style, ["#" + event.number + " " + spaced(event.kind) + (event.node ? ", " + event.node : "")]);
    const when = element("time", "", [clock(event.unix_millis)], { datetime: new Date(event.unix_millis).toISOString() });
    return element("li", "", [when, element("div", "", [kind, element("div", "", [event.message])])], { "data-key": event.number });
  });
  renew(byId("events"), lines.length ? lines : [element("li", "soft", ["none since the router started"])]);
}
