from __future__ import annotations

import json
import pickle
from datetime import timedelta
from pathlib import Path

import pytest

from engine.settings import Settings, SettingsError, load, read_duration, show_duration, show_size
from engine.settings_page import page
from tests.cli.conftest import Longwatch


def project(folder: Path, text: str, name: str = "pyproject.toml") -> None:
    (folder / name).write_text(text, encoding="utf-8")


def test_a_flag_wins_over_the_environment_which_wins_over_the_file_which_wins_over_the_default(tmp_path: Path) -> None:
    project(tmp_path, "[tool.longwatch]\nparallelism = 2\nbackend = 'heap'\nslice = '5ms'\n")

    loaded = load(
        {"parallelism": 8}, folder=tmp_path, environment={"LONGWATCH_PARALLELISM": "4", "LONGWATCH_SLICE": "7ms"}
    )

    assert loaded.settings.parallelism == 8
    assert loaded.settings.slice == timedelta(milliseconds=7)
    assert loaded.settings.backend == "heap"
    assert loaded.settings.partitions == 16
    assert loaded.origin["parallelism"] == "flag --parallelism"
    assert loaded.origin["slice"] == "environment LONGWATCH_SLICE"
    assert loaded.origin["backend"] == f"{tmp_path / 'pyproject.toml'} [tool.longwatch]"
    assert loaded.origin["partitions"] == "default"


def test_the_nearest_project_file_upwards_counts_and_its_paths_count_from_it(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    project(tmp_path, "[tool.longwatch]\ndata = 'outer'\n")
    project(tmp_path / "a", "data = 'here'\n", "longwatch.toml")
    project(inner, "[project]\nname = 'x'\n")

    loaded = load(folder=inner, environment={})

    assert loaded.settings.data == tmp_path / "a" / "here"
    assert loaded.root == tmp_path / "a"


def test_without_a_project_the_data_lie_in_the_current_folder(tmp_path: Path) -> None:
    assert load(folder=tmp_path, environment={}).settings.data == tmp_path / ".longwatch"


def test_every_problem_is_told_at_once_with_its_source_its_rule_and_what_is_allowed(tmp_path: Path) -> None:
    project(tmp_path, "[tool.longwatch]\npartitons = 8\nfsync = 'never'\n")

    with pytest.raises(SettingsError) as raised:
        load({"partitions": 12}, folder=tmp_path, environment={"LONGWATCH_SLICE": "soon"})

    words = str(raised.value)
    assert "did you mean 'partitions'?" in words
    assert f"{tmp_path / 'pyproject.toml'} [tool.longwatch]: fsync = 'never' is not allowed" in words
    assert "one of always, everysec" in words
    assert "flag --partitions: partitions = 12 is not allowed: must be a power of two" in words
    assert "environment LONGWATCH_SLICE: slice = 'soon' is not allowed" in words
    assert pickle.loads(pickle.dumps(raised.value)).problems == raised.value.problems


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("500ms", timedelta(milliseconds=500)),
        ("2s", timedelta(seconds=2)),
        ("1.5 h", timedelta(minutes=90)),
        ("7d", timedelta(days=7)),
        (3, timedelta(seconds=3)),
    ],
)
def test_a_length_of_time_is_read_as_people_write_it(text: object, length: timedelta) -> None:
    assert read_duration(text) == length


def test_what_is_shown_is_read_again() -> None:
    for name in ("checkpoint_interval", "early_hold", "retention", "slice", "handler_timeout"):
        value = getattr(Settings(), name)

        assert read_duration(show_duration(value)) == value
    assert show_size(512 << 20) == "512mb"


def test_parallelism_must_divide_the_partitions(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="parallelism 3 does not divide partitions 16"):
        load({"parallelism": 3}, folder=tmp_path, environment={})


def test_options_of_flink_are_a_table(tmp_path: Path) -> None:
    project(tmp_path, "[tool.longwatch.flink]\n'state.backend.type' = 'x'\nrest.flamegraph.enabled = true\n")

    settings = load(folder=tmp_path, environment={}).settings

    assert settings.flink == {"state.backend.type": "x", "rest.flamegraph.enabled": "true"}


def test_every_setting_says_what_it_does() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_the_page_of_settings_is_the_one_that_the_code_makes() -> None:
    written = (Path(__file__).parents[2] / "docs" / "settings.md").read_text(encoding="utf-8")

    assert written == page(), "python -m engine.settings_page > docs/settings.md"


def test_longwatch_settings_prints_value_source_and_meaning(longwatch: Longwatch) -> None:
    answer = longwatch("settings", "--json", LONGWATCH_PARALLELISM="2")

    found = {line["name"]: line for line in map(json.loads, answer.stdout.splitlines())}
    assert answer.returncode == 0
    assert found["parallelism"]["value"] == 2
    assert found["parallelism"]["source"] == "environment LONGWATCH_PARALLELISM"
    assert found["checkpoint_interval"]["value"] == "2s"
    assert all(line["description"] for line in found.values())


def test_a_wrong_setting_is_a_sentence_and_exit_code_2(longwatch: Longwatch) -> None:
    answer = longwatch("settings", LONGWATCH_BACKEND="cloud")

    assert answer.returncode == 2
    assert "LONGWATCH_BACKEND" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_collector_may_be_named_by_the_variables_of_opentelemetry(tmp_path: Path) -> None:
    general = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://far:4318/base/", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}
    exact = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://near:4317", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"}

    assert load(folder=tmp_path, environment=general).settings.otlp == "http://far:4318/base/v1/traces"
    assert load(folder=tmp_path, environment=general).settings.otlp_protocol == "http/protobuf"
    both = load(folder=tmp_path, environment=general | exact)
    assert (both.settings.otlp, both.settings.otlp_protocol) == ("http://near:4317", "grpc")
    assert both.origin["otlp"] == "environment OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
    assert load(folder=tmp_path, environment=general | {"OTEL_TRACES_EXPORTER": "none"}).settings.otlp == ""


def test_a_collector_of_the_project_wins_over_opentelemetrys_and_a_flag_over_both(tmp_path: Path) -> None:
    project(tmp_path, "[tool.longwatch]\notlp = 'http://project:4318'\n")
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://far:4318", "OTEL_SDK_DISABLED": ""}

    assert load(folder=tmp_path, environment=environment).settings.otlp == "http://project:4318"
    assert load({"otlp": "http://flag"}, folder=tmp_path, environment=environment).settings.otlp == "http://flag"


def test_a_disabled_sdk_sends_nothing(tmp_path: Path) -> None:
    loaded = load({"otlp": "http://flag"}, folder=tmp_path, environment={"OTEL_SDK_DISABLED": "True"})

    assert loaded.settings.otlp == ""
    assert loaded.origin["otlp"] == "environment OTEL_SDK_DISABLED"


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("otlp", "localhost:4318", "such as http://localhost:4318"),
        ("otlp_protocol", "http/json", "one of http/protobuf, grpc"),
        ("metrics", "70000", "a port is a number from 1 to 65535"),
        ("metrics", "localhost", "such as 9464"),
    ],
)
def test_where_telemetry_goes_is_checked_at_once(tmp_path: Path, name: str, value: str, rule: str) -> None:
    with pytest.raises(SettingsError, match=rule):
        load({name: value}, folder=tmp_path, environment={})
