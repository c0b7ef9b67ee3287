"""Stands in for Apache Beam in the Python inside Flink's JVM, and says that it is not there.

PyFlink imports Beam when its worker starts, and Beam imports pandas, pyarrow, pymongo and Google's clients: 1,200
modules, 3.5 seconds of CPU and 160 MB at every start of the engine. Only PyFlink's *process* mode speaks Beam's
protocol. Thread mode, the only one used here, needs nothing of it, and PyFlink takes a missing Beam well
(`pyflink/fn_execution/__init__.py` catches the ImportError). This folder is on the JVM's PYTHONPATH before
site-packages, and nowhere else; it is no package.
"""

raise ImportError(
    "Apache Beam is left out inside Flink's JVM: PyFlink in thread mode does not need it"
    " (see engine/flink/embedded/apache_beam.py)."
)
