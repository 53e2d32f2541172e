// Making and changing what is on the page. All text enters it through here, as text.
const byId = (id) => document.getElementById(id);
const known = (value) => value !== null && value !== undefined;

function fill(made, style, attributes, children) {
  if (style) made.setAttribute("class", style);
  for (const [name, value] of Object.entries(attributes || {})) made.setAttribute(name, value);
  made.append(...[children ?? []].flat());
  return made;
}

const element = (tag, style, children, attributes) => fill(document.createElement(tag), style, attributes, children);

const drawn = (tag, style, attributes, children) =>
  fill(document.createElementNS("http:" + "//www.w3.org/2000/svg", tag), style, attributes, children);

const picture = (width, height, attributes, children) =>
  drawn("svg", "", { viewBox: "0 0 " + width + " " + height, width, height, ...attributes }, children);

// Makes an element's children like the fresh ones and keeps those that are alike: focus, and what is unfolded, stay.
function renew(place, fresh) {
  const old = [...place.childNodes];
  fresh.forEach((node, index) => {
    if (index >= old.length) place.append(node);
    else if (!alike(old[index], node)) old[index].replaceWith(node);
    else if (node.nodeType === Node.TEXT_NODE) {
      if (old[index].data !== node.data) old[index].data = node.data;
    } else {
      renewAttributes(old[index], node);
      renew(old[index], [...node.childNodes]);
    }
  });
  old.slice(fresh.length).forEach((node) => node.remove());
}

function alike(old, fresh) {
  return old.nodeName === fresh.nodeName
    && (old.nodeType !== Node.ELEMENT_NODE || old.getAttribute("data-key") === fresh.getAttribute("data-key"));
}

function renewAttributes(old, fresh) {
  for (const { name } of [...old.attributes]) {
    // A person unfolds it, not the status.
    if (name !== "open" && !fresh.hasAttribute(name)) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
}

function row(term, value, style) {
  const cell = value instanceof Node ? element("dd", style, [value]) : element("dd", style, [String(value)]);
  return [element("dt", "", [term]), cell];
}

function gauge(text, value, limit, style) {
  const high = { min: 0, max: Math.max(limit, 1e-9), high: limit * 0.8, optimum: 0, value: Math.min(value, limit) };
  return element("div", style, [text, element("meter", "", [], { ...high, "aria-label": text })]);
}
