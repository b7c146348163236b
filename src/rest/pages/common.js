"use strict";
// What both pages share. Text goes into the page as text nodes only, never as markup.

// element("a.quiet", {href: "/"}, "text", child): an element with its class, attributes and children.
function element(kind, attributes, ...children) {
  const [name, ...classes] = kind.split(".");
  const made = document.createElement(name);
  made.className = classes.join(" ");
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null));
  return made;
}

// Follows a reference inside of the description.
function resolve(api, value) {
  while (value && value.$ref) {
    value = value.$ref.slice(2).split("/").reduce((found, step) => found[step], api);
  }
  return value;
}

// Every operation in the order of the tags: {tag, path, verb, operation}.
function operations(api) {
  const all = [];
  for (const [path, verbs] of Object.entries(api.paths)) {
    for (const [verb, operation] of Object.entries(verbs)) {
      all.push({ tag: operation.tags[0], path, verb, operation });
    }
  }
  return api.tags.map((tag) => ({ tag, operations: all.filter((one) => one.tag === tag.name) }));
}

// A schema's type and range in words.
function words(schema) {
  if (!schema.type) return "any JSON";
  let text = [].concat(schema.type).join(" or ");
  if (schema.enum) text = schema.enum.map((choice) => JSON.stringify(choice)).join(", ");
  if (schema.minimum !== undefined && schema.maximum !== undefined) text += `, ${schema.minimum} to ${schema.maximum}`;
  if (schema.maxLength !== undefined) text += `, ${schema.minLength} to ${schema.maxLength} bytes`;
  if (schema.default !== undefined) text += `, default ${schema.default}`;
  return text;
}

// The fields of an object schema as a table.
function fields(api, schema) {
  schema = resolve(api, schema);
  if (!schema.properties) return element("p.quiet", {}, words(schema));
  const rows = Object.entries(schema.properties).map(([name, property]) => {
    const needed = (schema.required || []).includes(name) ? "" : " (optional)";
    return element("tr", {}, element("td", {}, element("code", {}, name), needed), element("td", {}, words(property)),
      element("td", {}, property.description || ""));
  });
  return element("table", {}, element("tbody", {}, ...rows));
}

function heading(api, other, text) {
  return element("header", {}, element("h1", {}, `${api.info.title} ${api.info.version}`),
    element("p", {}, api.info.summary, " ", api.info.description),
    element("p", {}, element("a", { href: other }, text), " · ", element("a", { href: "/openapi.json" }, "openapi.json")));
}

async function render(build) {
  const page = document.getElementById("page");
  try {
    const answer = await fetch("/openapi.json");
    page.replaceChildren(...build(await answer.json()));
  } catch (error) {
    page.replaceChildren(element("p.bad", {}, `The description cannot be read: ${error}`));
  }
}
