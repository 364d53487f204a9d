"""Problems of alerts and feedback that no single key shows."""

from collections.abc import Iterator

from router.config.config import Config
from router.config.problems import Finding, Known, nowhere


def check_feedback(config: Config) -> Iterator[Finding]:
    given = config.feedback
    for shorter, longer, why in (
        ("maturity", "window", "labels that mature after the window never count"),
        ("window", "retention", "labels would be deleted before they are late"),
    ):
        if getattr(given, shorter) > getattr(given, longer):
            yield Finding(
                ("feedback", shorter),
                f"longer than {longer}: {why}",
                f"{getattr(given, shorter):g} s",
                f"at most {getattr(given, longer):g} s, or make {longer} longer",
            )


def check_alerts(config: Config, known: Known) -> Iterator[Finding]:
    alerts = config.alerts
    channels = [channel.name for channel in alerts.channels]
    for at, channel in enumerate(alerts.channels):
        place = ("alerts", "channels", at)
        if channel.name in channels[:at]:
            yield Finding((*place, "name"), "this name is taken", repr(channel.name))
        if (channel.url is None) == (channel.url_env is None):
            yield Finding(place, "needs one address", "", "write either url or url_env")
    for at, rule in enumerate(alerts.rules):
        for index, name in enumerate(rule.to):
            if name not in channels:
                path = ("alerts", "rules", at, "to", index)
                yield nowhere(path, "channel", name, channels)
    models = {model.name for model in config.models} | known.models
    names = [slo.name for slo in alerts.slos]
    for at, slo in enumerate(alerts.slos):
        if slo.name in names[:at]:
            yield Finding(
                ("alerts", "slos", at, "name"), "this name is taken", repr(slo.name)
            )
        if slo.model not in models:
            yield nowhere(("alerts", "slos", at, "model"), "model", slo.model, models)
