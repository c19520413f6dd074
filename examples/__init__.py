"""Small applications, one idea each, to read and to run with tinyasgi."""
