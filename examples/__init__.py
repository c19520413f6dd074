"""Small applications for tinyasgi. Each of them shows one idea."""
