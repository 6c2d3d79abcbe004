// The document is this gateway's own; nothing is asked of anybody else, not even whether it is valid.
SwaggerUIBundle({ url: "/openapi.json", dom_id: "#api", deepLinking: true, validatorUrl: null });
