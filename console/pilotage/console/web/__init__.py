"""The console over HTTP: the API, the event stream and the page. Skins over the engine; no decision is made here."""
