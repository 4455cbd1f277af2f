"""An example of what a package adds to pilotage: an action, its lever, a detector, a playbook and failure rules."""
