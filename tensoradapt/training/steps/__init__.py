"""Rules of steps that hold factors to a form, and what such rules ask of an optimizer."""
