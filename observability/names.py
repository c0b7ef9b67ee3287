"""Every name that spans carry, once.

Sources: OpenTelemetry semantic conventions. GenAI (`gen_ai.*`, span names `chat {model}`, `execute_tool {tool}`,
`invoke_agent {agent}`, `invoke_workflow {workflow}`): v1.41, the last version of them that was published. Messaging
(`messaging.*`, span names `{operation} {destination}`): v1.44. `error.type`: v1.44. What has no convention is under
`workflow.` and `event.`, and is ours.
"""

from __future__ import annotations

from typing import Final

SERVICE: Final = "longwatch"
SCOPE: Final = "longwatch"
SCHEMA: Final = "https://opentelemetry.io/schemas/1.44.0"

# The resource -----------------------------------------------------------------------------------------------------

SERVICE_NAME: Final = "service.name"
LOG_ID: Final = "longwatch.log_id"
CLOCK: Final = "host.id"
"""All times are the log's, so to a server that mends the clocks of hosts the log is the host."""

# On every span ----------------------------------------------------------------------------------------------------

WORKFLOW: Final = "workflow.name"
KEY: Final = "workflow.key"
RUN: Final = "workflow.run_id"
VERSION: Final = "workflow.version"
STATE: Final = "workflow.state"
"""Where the run is after it; on a visit the state that was visited."""
SEQ: Final = "workflow.seq"
"""Of the record that the span was made from: `longwatch history` shows the same number."""
EVENT_ID: Final = "event.id"
EVENT_TYPE: Final = "event.type"
FIELD: Final = "workflow.field."
"""Before the name of a field that is marked `Searchable`."""

# What a span is about ---------------------------------------------------------------------------------------------

CAUSE: Final = "workflow.cause"
"""What was applied, in words: `event ReviewDecided`, `result fetch_policy`."""
IGNORED: Final = "workflow.ignored"
"""Why it changed nothing."""
FROM: Final = "workflow.state.from"
TO: Final = "workflow.state.to"
VISIT: Final = "workflow.visit"
SOURCE: Final = "event.source"
WHO: Final = "workflow.who"
WHY: Final = "workflow.why"
STATUS: Final = "workflow.status"
HALTED: Final = "workflow.halted"
HALTED_AT: Final = "workflow.halted.where"
LATE: Final = "workflow.timer.late_ms"
TRACEPARENT: Final = "workflow.traceparent"
"""As it came, where it is broken."""
WAITS_FOR: Final = "workflow.waits_for"
WAITS_UNTIL: Final = "workflow.waits_until"
LINK: Final = "workflow.link."
"""Before the reason of a link; the value is `trace/span`. Jaeger does not show the attributes of links."""
REASON: Final = "workflow.link.reason"

STEP: Final = "workflow.step"
CALL: Final = "workflow.call"
ATTEMPT: Final = "workflow.attempt"
TOOK: Final = "workflow.took_ms"
"""Wall time, whatever the log's time is."""
PART: Final = "workflow.part"
"""Of a call: what its result is kept under."""
AGAIN: Final = "workflow.again"
ASKS: Final = "workflow.asks"
OUTCOME: Final = "workflow.outcome"
COST: Final = "workflow.cost_eur"
UNPRICED: Final = "workflow.unpriced"
ERROR_TYPE: Final = "error.type"
CONTENT: Final = "workflow.content"
"""What a step, or a part of it, gave back: only in a workflow that asks for it, as all content."""
EVENT_DATA: Final = "event.data"
LEFT_BY: Final = "workflow.left_by"
FIRST: Final = "workflow.episode.first_seq"
"""Number of the episode's first record: `longwatch trace KEY --episode` takes it."""
TO_KEY: Final = "event.key"
LIBRARY: Final = "otel.scope.name"
"""Who made a span inside a step; Jaeger and others know it by this name."""
MISSING: Final = "workflow.spans.missing"
"""Spans inside the step that are not here: there were too many."""

# GenAI, v1.41 -----------------------------------------------------------------------------------------------------

OPERATION: Final = "gen_ai.operation.name"
CHAT: Final = "chat"
EXECUTE_TOOL: Final = "execute_tool"
INVOKE_AGENT: Final = "invoke_agent"
INVOKE_WORKFLOW: Final = "invoke_workflow"
PROVIDER: Final = "gen_ai.provider.name"
MODEL_ASKED: Final = "gen_ai.request.model"
MODEL_ANSWERED: Final = "gen_ai.response.model"
RESPONSE_ID: Final = "gen_ai.response.id"
FINISH: Final = "gen_ai.response.finish_reasons"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHED_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
THOUGHT_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
AGENT: Final = "gen_ai.agent.name"
AI_WORKFLOW: Final = "gen_ai.workflow.name"
TOOL: Final = "gen_ai.tool.name"
TOOL_TYPE: Final = "gen_ai.tool.type"
TOOL_RESULT: Final = "gen_ai.tool.call.result"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"

# Messaging, v1.44 -------------------------------------------------------------------------------------------------

MESSAGING: Final = "messaging.system"
MESSAGE_ID: Final = "messaging.message.id"
DESTINATION: Final = "messaging.destination.name"
MESSAGING_NAME: Final = "messaging.operation.name"
MESSAGING_TYPE: Final = "messaging.operation.type"
PROCESS: Final = "process"
PUBLISH: Final = "publish"
SEND: Final = "send"

STEADY: Final = frozenset(
    {
        WORKFLOW,
        STATE,
        EVENT_TYPE,
        CAUSE,
        FROM,
        TO,
        SOURCE,
        STATUS,
        LEFT_BY,
        STEP,
        PART,
        OUTCOME,
        OPERATION,
        PROVIDER,
        MODEL_ASKED,
        MODEL_ANSWERED,
        AI_WORKFLOW,
        TOOL,
        TOOL_TYPE,
        MESSAGING,
        DESTINATION,
        MESSAGING_NAME,
        MESSAGING_TYPE,
        LIBRARY,
    }
)
"""Names whose values are few: an encoder may keep them."""


def of_cause(cause: str, name: str) -> str:
    """`timer HumanReview.expire`; a retry is called `retry fetch_policy`."""
    return name if cause == "timer" and name.startswith("retry ") else f"{cause} {name}".rstrip()
