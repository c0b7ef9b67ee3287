"""`docs/settings.md`, made from `Settings`: `python -m engine.settings_page > docs/settings.md`."""

from __future__ import annotations

import sys

from engine.settings import Settings, rule, show, variable

_HEAD = """\
# Settings

Each has a default that serves. Four sources, later ones win:

1. the default; for what is sent to a collector, OpenTelemetry's own variables (`OTEL_EXPORTER_OTLP_ENDPOINT` and the
   like) come before it;
2. the project file: the nearest `longwatch.toml`, or `pyproject.toml` with a table `[tool.longwatch]`, upwards from the
   current folder;
3. the environment: `LONGWATCH_` and the name in capitals;
4. the flag of a command, where it has one.

Lengths of time are written `500ms`, `2s`, `10m`, `1h`, `7d` (a bare number is seconds), sizes `512mb` or `2gb`. Paths
in a project file count from that file, others from the current folder. `longwatch settings` prints every setting with
its value and where that came from; `--json` one object a line. A name that is not known or a value that no rule
allows is refused with its source, the rule, and what is allowed.

```toml
[tool.longwatch]
app = "my_shop:app"
backend = "heap"
checkpoint_interval = "5s"

[tool.longwatch.flink]
"rest.flamegraph.enabled" = true
```

`partitions` and `lapse` are fixed when the log is made. Afterwards they may be left out; another value is refused.
`parallelism` may change from one start to the next, after a clean stop.

| setting | default | may be | environment | what it does |
| --- | --- | --- | --- | --- |
"""


def page() -> str:
    """The whole page."""
    return _HEAD + "".join(_row(name) for name in Settings.model_fields)


def _row(name: str) -> str:
    field = Settings.model_fields[name]
    default = show(field.get_default(), name)
    written = {True: "true", False: "false"}.get(default, str(default)) if isinstance(default, bool) else str(default)
    cells = (
        f"`{name}`",
        f"`{written}`" if default not in ("", {}, [], ".") else "",
        rule(name),
        f"`{variable(name)}`",
        field.description,
    )
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |\n"


if __name__ == "__main__":
    sys.stdout.write(page())
