"""Several serving processes under a supervisor."""
