// Asking again and again, and saying so when there is no answer.
const INTERVAL = 1000, PATIENCE = 3000;
let paused = false, timer = null, shown = null, answered = null, failing = null;

function draw(status) {
  shown = status;
  drawSummary(status);
  drawTopology(status);
  drawLegend(status);
  drawOverTime();
  drawShare(status);
  drawReasons(status);
  renew(byId("nodes"), status.nodes.map((node) => drawNode(node, status.config)));
  drawEvents(status);
}

function drawOverTime() {
  if (!shown) return;
  const cursor = Number(byId("cursor").value);
  byId("cursor").setAttribute("aria-valuetext", cursor < 0 ? seconds(-cursor) + " ago" : "now");
  drawChart("lag", shown, cursor);
  drawChart("staleness", shown, cursor);
  drawReadout(shown, cursor);
}

function alarm(why) {
  failing = why ? failing || Date.now() : null;
  const old = why ? (answered ? " What is shown is from " + clock(answered) + "." : " Nothing has been shown yet.") : "";
  const text = why ? "The server has not answered since " + clock(failing) + " (" + why + ")." + old + " Trying again every second." : "";
  const place = byId("alert");
  // A screen reader is told only of what is new.
  if (place.textContent !== text) place.textContent = text;
  place.hidden = text === "";
  byId("figures").classList.toggle("old", text !== "");
}

function tell() {
  const place = byId("connection");
  const text = paused ? "Paused; as of " : failing ? "No answer for " + seconds((Date.now() - failing) / 1000) + "; as of " : "Live; as of ";
  place.textContent = text + (answered ? clock(answered) : "never");
  place.className = failing ? "bad" : paused ? "warn" : "soft";
}

async function refresh() {
  const abort = new AbortController();
  const limit = setTimeout(() => abort.abort(), PATIENCE);
  try {
    const response = await fetch("../routing", { cache: "no-store", signal: abort.signal });
    if (!response.ok) throw new Error("status " + response.status);
    const status = await response.json();
    remember(status);
    draw(status);
    answered = Date.now();
    alarm(null);
  } catch (error) {
    alarm(error.name === "AbortError" ? "no answer within " + PATIENCE / 1000 + " s" : error.message);
  } finally {
    clearTimeout(limit);
  }
  tell();
  clearTimeout(timer);
  if (!paused) timer = setTimeout(refresh, INTERVAL);
}

byId("pause").addEventListener("click", () => {
  paused = !paused;
  clearTimeout(timer);
  byId("pause").textContent = paused ? "Resume" : "Pause";
  byId("pause").setAttribute("aria-pressed", String(paused));
  tell();
  if (!paused) refresh();
});
byId("cursor").addEventListener("input", drawOverTime);
addEventListener("resize", () => shown && draw(shown));
refresh();
