"""The terminal: a screen of panes, a plain line prompt, and one question in a pipe."""
