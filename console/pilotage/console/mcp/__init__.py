"""The look-ups and the handing-in of proposals for other agents, over the Model Context Protocol."""
