// Every operation with everything about it, one after another.

function section(api, { path, verb, operation }) {
  const parts = [element("h3", { id: operation.operationId }, element(`span.verb.${verb}`, {}, verb.toUpperCase()),
    element("span.path", {}, path)), element("p", {}, operation.summary)];
  if (operation.parameters) {
    const query = { properties: {}, required: [] };
    for (const parameter of operation.parameters) {
      query.properties[parameter.name] = { ...parameter.schema, description: parameter.description };
      if (parameter.required) query.required.push(parameter.name);
    }
    parts.push(element("p.quiet", {}, "Query"), fields(api, query));
  }
  if (operation.requestBody) {
    const content = operation.requestBody.content["application/json"];
    parts.push(element("p.quiet", {}, "Body"), fields(api, content.schema),
      element("pre", {}, JSON.stringify(content.example, null, 2)));
  }
  for (const [status, reference] of Object.entries(operation.responses)) {
    if (reference.$ref) continue;
    const [type, content] = Object.entries(reference.content)[0];
    parts.push(element("p.quiet", {}, "Answer ", element("code", {}, status), `, ${type}. ${reference.description}`));
    if (!content.schema.$ref) parts.push(fields(api, content.schema));
  }
  return parts;
}

// What any operation may answer, said once.
function common(api) {
  const rows = Object.entries(api.components.responses).map(([name, response]) =>
    element("tr", {}, element("td", {}, name), element("td", {}, response.description)));
  return [element("h2", {}, "Errors"), element("p", {}, "Any operation may answer these; their body is:"),
    fields(api, { $ref: "#/components/schemas/Error" }), element("p.quiet", {}, "Which they are"),
    element("table", {}, element("tbody", {}, ...rows)),
    element("p.quiet", {}, "Each problem of a body or a query that does not validate (422)"),
    fields(api, api.components.schemas.ValidationError.properties.detail.items)];
}

render((api) => [heading(api, "/docs", "Try it"), ...operations(api).flatMap(({ tag, operations }) => [
  element("h2", {}, tag.name), element("p", {}, tag.description), ...operations.flatMap((one) => section(api, one))]),
  ...common(api)]);
