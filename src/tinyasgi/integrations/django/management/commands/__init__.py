"""Commands of the Django app, each in a module of its name."""
