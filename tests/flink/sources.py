"""Flink sources for tests/flink/test_intake.py: run inside the job."""

from __future__ import annotations

import os

from pyflink.common import Duration, WatermarkStrategy
from pyflink.datastream import DataStream, StreamExecutionEnvironment
from pyflink.datastream.connectors.file_system import FileSource, StreamFormat

FOLDER = "INTAKE_TEST_FOLDER"


def files(env: StreamExecutionEnvironment) -> DataStream:
    """Every line of every file that comes to a folder."""
    lines = FileSource.for_record_stream_format(StreamFormat.text_line_format(), f"file://{os.environ[FOLDER]}")
    source = lines.monitor_continuously(Duration.of_millis(200)).build()
    return env.from_source(source, WatermarkStrategy.no_watermarks(), "files")
