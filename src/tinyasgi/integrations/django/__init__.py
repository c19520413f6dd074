"""A Django app whose command `runserver` serves with tinyasgi.

Put it first into the settings: `INSTALLED_APPS = ["tinyasgi.integrations.django", …]`.
"""
