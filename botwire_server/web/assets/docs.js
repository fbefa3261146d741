"use strict";
const here = new URL(".", location.href).href;
fetch("openapi.json")
  .then((answer) => answer.json())
  .then((spec) => {
    // What is tried on this page goes where the page came from: through the same proxy, under the
    // same prefix. Other servers stay to be chosen, and to be read.
    const servers = spec.servers || [];
    if (!servers.some((server) => here.startsWith(server.url + "/"))) {
      spec.servers = [{ url: here.replace(/\/$/, "") }, ...servers];
    }
    SwaggerUIBundle({
      spec,
      dom_id: "#docs",
      presets: [SwaggerUIBundle.presets.apis],
      layout: "BaseLayout",
      deepLinking: true,
      displayRequestDuration: true,
      docExpansion: "list",
      defaultModelsExpandDepth: -1,
      persistAuthorization: false,
      requestSnippetsEnabled: false,
      validatorUrl: null,
    });
  })
  .catch(() => {
    document.getElementById("docs").textContent = "openapi.json cannot be read: try again.";
  });
