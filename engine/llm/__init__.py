"""Steps that ask language models: what a workflow is written with, and the loop that runs them.

`model`, `step`, `bounds`, `tools` and `mcp` are what a definition needs; they import no client. The loop (`agent`) and
the clients (`connections`) need the extra `longwatch[model]` and are imported when the first step asks a model.
"""
