"""When things run and where everything is wired: the app, the flows, the command line, the demo."""
