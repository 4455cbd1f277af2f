"""The failure forecast: features, models, and the choice of the model that is served."""
