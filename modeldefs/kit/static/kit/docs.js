/* Shows the document that the page names. A file of its own, so that no script need be inline. */
"use strict";
const place = document.getElementById("docs");
SwaggerUIBundle({
  url: place.dataset.document,
  domNode: place,
  deepLinking: true,
  layout: "BaseLayout",
  presets: [SwaggerUIBundle.presets.apis],
  validatorUrl: null,
  // A session of the admin acts where one tries a call of the control API; Django asks for this.
  requestInterceptor: (request) => {
    const cookie = document.cookie.split("; ").find((each) => each.startsWith("csrftoken="));
    const isOurs = new URL(request.url, location.href).origin === location.origin;
    if (cookie && isOurs) request.headers["X-CSRFToken"] = cookie.slice("csrftoken=".length);
    return request;
  },
});
