"""The configuration of the Django app."""

from typing import Any

from django.apps import AppConfig, apps
from django.core import checks


class TinyASGIConfig(AppConfig):
    """Django app with the label `tinyasgi`."""

    name = "tinyasgi.integrations.django"
    label = verbose_name = "tinyasgi"

    def ready(self) -> None:
        checks.register(check_order, checks.Tags.staticfiles)


def check_order(app_configs: Any, **_: Any) -> list[checks.Error]:
    """Check that the command of this app is found before the one of staticfiles."""
    names = [each.name for each in apps.get_app_configs()]
    later = names[names.index(TinyASGIConfig.name) :]
    if "django.contrib.staticfiles" in {*names} - {*later}:
        text = "{} must come before django.contrib.staticfiles in INSTALLED_APPS."
        return [checks.Error(text.format(TinyASGIConfig.name), id="tinyasgi.E001")]
    return []
