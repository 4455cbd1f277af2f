"""The actions that can be proposed: their types, their forms, and the resolution of their targets."""
