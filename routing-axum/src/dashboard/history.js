// What was seen, second by second, by the server's clock. It is kept by this page alone.
const WINDOW = 300;
const samples = [];

function remember(status) {
  const nodes = new Map();
  for (const node of status.nodes) {
    const count = (access) => node.decisions.filter((one) => one.access === access).reduce((sum, one) => sum + one.count, 0);
    nodes.set(node.name, {
      lag: node.is_primary ? null : node.lag_seconds,
      staleness: node.is_primary ? null : node.staleness_seconds,
      read: count("read"),
      write: count("write"),
      serving: node.serving,
    });
  }
  // A clock that was set back would fold the lines over.
  while (samples.length && samples.at(-1).at >= status.unix_millis) samples.pop();
  samples.push({ at: status.unix_millis, nodes });
  while (samples[0].at < status.unix_millis - WINDOW * 1000) samples.shift();
}

// How many reads and writes a node was given between two samples; one that joined again counts from nothing.
function given(name, first, last) {
  const after = last.nodes.get(name), before = first.nodes.get(name) || { read: 0, write: 0 };
  const more = (access) => (after[access] >= before[access] ? after[access] - before[access] : after[access]);
  return { read: more("read"), write: more("write") };
}

const seenAt = (millis) => samples.findLast((sample) => sample.at <= millis) || samples[0];
