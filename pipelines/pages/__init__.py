"""The pages for marketers: made on the server, without scripts, from what the API knows."""
