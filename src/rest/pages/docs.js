// Each operation as a form that sends it.

function form(path, verb, operation) {
  const inputs = new Map();
  const rows = (operation.parameters || []).map((parameter) => {
    const input = element("input", { placeholder: words(parameter.schema) });
    input.required = parameter.required;
    inputs.set(parameter.name, input);
    return element("label", {}, element("code", {}, parameter.name), ` ${parameter.description}`, element("br"), input);
  });
  const content = operation.requestBody && operation.requestBody.content["application/json"];
  const body = content && element("textarea", { "aria-label": "body", spellcheck: "false" });
  if (body) body.value = JSON.stringify(content.example, null, 2);
  const outcome = element("div", { "aria-live": "polite" });
  const button = element("button", { type: "submit" }, "Send");
  const made = element("form", {}, ...rows, body || null, button, outcome);
  made.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    await send(path, verb, inputs, body, outcome);
    button.disabled = false;
  });
  return made;
}

async function send(path, verb, inputs, body, outcome) {
  const query = new URLSearchParams();
  for (const [name, input] of inputs) if (input.value !== "") query.set(name, input.value);
  const target = query.size ? `${path}?${query}` : path;
  const options = { method: verb.toUpperCase(), cache: "no-store", redirect: "follow" };
  if (body) Object.assign(options, { body: body.value, headers: { "Content-Type": "application/json" } });
  const started = performance.now();
  try {
    const answer = await fetch(target, options);
    const text = await answer.text();
    const took = (performance.now() - started).toFixed(1);
    outcome.replaceChildren(
      element(answer.ok ? "p.good" : "p.bad", {}, `${answer.status} ${answer.statusText} in ${took} ms`),
      element("pre", {}, indent(text, answer.headers.get("content-type"))), element("p.quiet", {}, "The same with curl:"),
      element("pre", {}, command(target, verb, body)));
  } catch (error) {
    outcome.replaceChildren(element("p.bad", {}, `No answer: ${error}`));
  }
}

// Reading a number of 64 bits would round it, so only answers without one are laid out anew.
function indent(text, type) {
  if (!(type || "").startsWith("application/json") || /\d{16}/.test(text)) return text;
  try { return JSON.stringify(JSON.parse(text), null, 2); } catch { return text; }
}

function command(target, verb, body) {
  const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const rest = body ? ` -H 'Content-Type: application/json' -d ${quote(body.value)}` : "";
  return `curl${verb === "get" ? "" : " -X POST"} ${quote(location.origin + target)}${rest}`;
}

function answers(api, operation) {
  return Object.entries(operation.responses).map(([status, response]) =>
    element("tr", {}, element("td", {}, element("code", {}, status)), element("td", {}, resolve(api, response).description)));
}

render((api) => [heading(api, "/redoc", "All of it to read"), ...operations(api).flatMap(({ tag, operations }) => [
  element("h2", {}, tag.name), element("p", {}, tag.description),
  ...operations.map(({ path, verb, operation }) => element("details", { id: operation.operationId },
    element("summary", {}, element(`span.verb.${verb}`, {}, verb.toUpperCase()), element("span.path", {}, path), operation.summary),
    element("div", {}, form(path, verb, operation), element("h3", {}, "Answers"),
      element("table", {}, element("tbody", {}, ...answers(api, operation))))))])]);
