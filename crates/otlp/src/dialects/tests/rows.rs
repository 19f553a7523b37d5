//! The mapping table, row by row: each field under the key of each dialect.

use agentlens_domain::cost::ServiceTier;
use agentlens_domain::spans::SpanKind;
use serde_json::{Value as Json, json};

use super::super::present;
use super::{arrival_of, event_of, read_spans, slim, span};

/// Each row: a key, its value, and the resulting arrival. `kind` makes the span a model call.
fn check(field: &str, rows: &[(Json, Json)]) {
    for (attributes, expected) in rows {
        let mut attributes = attributes.clone();
        let is_kind = attributes
            .as_object()
            .unwrap()
            .keys()
            .any(|key| key.contains("kind") || key.contains("type") || key.contains("operation"));
        if !is_kind {
            attributes["gen_ai.operation.name"] = json!("chat");
        }
        assert_eq!(slim(&arrival_of(&attributes))[field], *expected, "{field}: {attributes}");
    }
}

fn view(attributes: &Json) -> Json {
    Json::Object(present(&[&event_of(attributes).payload]))
}

#[test]
fn provider() {
    check(
        "provider",
        &[
            (json!({"gen_ai.provider.name": "openai"}), json!("openai")),
            (json!({"gen_ai.system": "az.ai.openai"}), json!("azure")),
            (json!({"llm.provider": "azure", "llm.system": "openai"}), json!("azure")),
            (json!({"llm.system": "mistralai"}), json!("mistral")),
            (json!({"ai.model.provider": "openai.chat"}), json!("openai")),
            (json!({"langfuse.observation.model.name": "claude-sonnet-4-5"}), json!("anthropic")),
            (json!({"gen_ai.request.model": "gemini-2.5-pro"}), json!("google")),
        ],
    );
}

#[test]
fn model() {
    check(
        "model",
        &[
            (json!({"gen_ai.request.model": "a", "gen_ai.response.model": "b"}), json!("b")),
            (json!({"gen_ai.request.model": "a"}), json!("a")),
            (json!({"llm.request.model_name": "a", "llm.response.model_name": "b"}), json!("b")),
            (json!({"llm.model_name": "a"}), json!("a")),
            (json!({"model_name": "a"}), json!("a")),
            (json!({"ai.model.id": "a", "ai.response.model": "b"}), json!("b")),
            (json!({"langfuse.observation.model.name": "a"}), json!("a")),
            (
                json!({"output.value": "{\"id\":\"chatcmpl-1\",\"model\":\"b\"}", "llm.model_name": "a"}),
                json!("b"),
            ),
        ],
    );
}

#[test]
fn tokens() {
    for (row, cells) in [
        (
            "input",
            vec![
                "gen_ai.usage.input_tokens",
                "gen_ai.usage.prompt_tokens",
                "llm.token_count.prompt",
                "ai.usage.inputTokens",
                "ai.usage.promptTokens",
            ],
        ),
        (
            "output",
            vec![
                "gen_ai.usage.output_tokens",
                "gen_ai.usage.completion_tokens",
                "llm.token_count.completion",
                "ai.usage.outputTokens",
            ],
        ),
    ] {
        for key in cells {
            assert_eq!(slim(&arrival_of(&json!({key: 5})))["usage"], json!({row: 5}), "{key}");
        }
    }
    for (row, cells) in [
        (
            "cache_read",
            vec![
                "gen_ai.usage.cache_read.input_tokens",
                "llm.token_count.prompt_details.cache_read",
                "gen_ai.usage.cache_read_input_tokens",
                "gen_ai.usage.details.cache_read_tokens",
                "ai.usage.cachedInputTokens",
            ],
        ),
        (
            "cache_write_5m",
            vec![
                "gen_ai.usage.cache_write.input_tokens",
                "gen_ai.usage.cache_creation.input_tokens",
                "llm.token_count.prompt_details.cache_write",
                "gen_ai.usage.cache_creation_input_tokens",
                "gen_ai.usage.details.cache_write_tokens",
                "ai.usage.inputTokenDetails.cacheWriteTokens",
            ],
        ),
    ] {
        for key in cells {
            let usage = slim(&arrival_of(&json!({"gen_ai.usage.input_tokens": 9, key: 5})))["usage"].clone();
            assert_eq!(usage, json!({"input": 9, row: 5}), "{key}");
        }
    }
    for key in [
        "gen_ai.usage.reasoning.output_tokens",
        "llm.token_count.completion_details.reasoning",
        "gen_ai.usage.reasoning_tokens",
        "gen_ai.usage.details.reasoning_tokens",
        "ai.usage.reasoningTokens",
        "ai.usage.outputTokenDetails.reasoningTokens",
    ] {
        let usage = slim(&arrival_of(&json!({"gen_ai.usage.output_tokens": 9, key: 5})))["usage"].clone();
        assert_eq!(usage, json!({"output": 9, "reasoning": 5}), "{key}");
    }
}

#[test]
fn cost() {
    check(
        "reported_cost_nanos",
        &[
            (json!({"gen_ai.usage.cost": 0.5}), json!(500_000_000)),
            (json!({"llm.cost.total": 0.5}), json!(500_000_000)),
            (json!({"llm.cost.prompt": 0.25, "llm.cost.completion": 0.5}), json!(750_000_000)),
            (json!({"operation.cost": 3.775e-05}), json!(37_750)),
            (
                json!({"langfuse.observation.cost_details": "{\"input\":0.25,\"total\":0.5}"}),
                json!(500_000_000),
            ),
            (
                json!({"langfuse.observation.cost_details": "{\"input\":0.25,\"output\":0.5}"}),
                json!(750_000_000),
            ),
            (
                json!({"langfuse.observation.cost_details":
                    "{\"input\":0.001,\"input_cache_read\":0.0005,\"output\":0.002}"}),
                json!(3_500_000),
            ),
            (json!({"gen_ai.usage.cost": -1}), Json::Null),
        ],
    );
}

#[test]
fn tools() {
    for attributes in [
        json!({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "t", "gen_ai.tool.call.id": "c",
            "gen_ai.tool.call.arguments": "{\"a\":1}", "gen_ai.tool.call.result": "r"}),
        json!({"openinference.span.kind": "TOOL", "tool.name": "t", "tool.id": "c", "input.value": "{\"a\":1}", "output.value": "r"}),
        json!({"traceloop.span.kind": "tool", "traceloop.entity.name": "t", "gen_ai.tool.call.id": "c",
            "traceloop.entity.input": "{\"args\":[],\"kwargs\":{\"a\":1}}", "traceloop.entity.output": "\"r\""}),
        json!({"gen_ai.tool.name": "t", "gen_ai.tool.call.id": "c", "tool_arguments": "{\"a\":1}", "tool_response": "r"}),
        json!({"ai.operationId": "ai.toolCall", "ai.toolCall.name": "t", "ai.toolCall.id": "c", "ai.toolCall.args": "{\"a\":1}", "ai.toolCall.result": "\"r\""}),
        json!({"langfuse.observation.type": "tool", "gen_ai.tool.name": "t", "gen_ai.tool.call.id": "c",
            "langfuse.observation.input": "{\"args\":[],\"kwargs\":{\"a\":1}}", "langfuse.observation.output": "r"}),
        json!({"gen_ai.tool.name": "t", "gen_ai.tool.call.id": "c", "gcp.vertex.agent.tool_call_args": "{\"a\":1}", "gcp.vertex.agent.tool_response": "r"}),
    ] {
        let view = view(&attributes);
        let seen = json!([view["kind"], view["toolName"], view["callId"], view["arguments"], view["result"]]);
        assert_eq!(seen, json!(["tool", "t", "c", {"a": 1}, "r"]), "{attributes}");
    }
    let names = |name: &str| {
        let short = json!({"name": name, "attributes": {"openinference.span.kind": "TOOL"}});
        read_spans(vec![span(&short)]).events[0].span.as_deref().unwrap().tool_name.clone().unwrap()
    };
    assert_eq!(
        (names("get_weather"), names("execute_tool t"), names("t.tool")),
        ("get_weather".into(), "t".into(), "t".into())
    );
}

#[test]
fn sessions_by_rank() {
    let claim = |attributes: &Json| arrival_of(attributes).session.map(|claim| (claim.rank, claim.id));
    for (rank, keys) in [
        (
            0,
            vec![
                "session.id",
                "langfuse.session.id",
                "traceloop.association.properties.session_id",
                "ai.telemetry.metadata.sessionId",
                "ai.settings.context.sessionId",
                "langsmith.trace.session_id",
                "gen_ai.session.id",
                "mlflow.trace.session",
            ],
        ),
        (
            1,
            vec![
                "langsmith.metadata.thread_id",
                "ai.telemetry.metadata.chatId",
                "gcp.vertex.agent.session_id",
            ],
        ),
        (2, vec!["gen_ai.conversation.id"]),
    ] {
        for key in keys {
            assert_eq!(claim(&json!({key: "s"})), Some((rank, "s".to_owned())), "{key}");
            assert_eq!(claim(&json!({key: 7})), Some((rank, "7".to_owned())), "{key}");
            assert_eq!(claim(&json!({key: ""})), None, "{key}");
        }
    }
    assert_eq!(
        claim(&json!({"gen_ai.conversation.id": "auto", "session.id": "own"})),
        Some((0, "own".to_owned()))
    );
    // Of two keys of the same rank, the first one in the table wins, whatever their order in the span.
    let first = Some((0, "first".to_owned()));
    assert_eq!(claim(&json!({"session.id": "first", "langfuse.session.id": "second"})), first);
    assert_eq!(claim(&json!({"langfuse.session.id": "second", "session.id": "first"})), first);
    assert_eq!(claim(&json!({"session.id": "x".repeat(300)})).unwrap().1.len(), 256);
    assert_eq!(claim(&json!({"session.id": "a\u{0}b"})).unwrap().1, "a?b");
    assert_eq!(event_of(&json!({"session.id": "s"})).session_id, "s");
    assert_eq!(event_of(&json!({})).session_id, "0a".repeat(16));
}

#[test]
fn users_agents_and_environments() {
    for key in [
        "user.id",
        "enduser.id",
        "langfuse.user.id",
        "traceloop.association.properties.user_id",
        "gen_ai.user",
        "ai.telemetry.metadata.userId",
        "ai.settings.context.userId",
        "langsmith.metadata.user_id",
    ] {
        let event = event_of(&json!({key: "u"}));
        assert_eq!(
            (event.facts.user_id.as_deref(), event.span.unwrap().user_id.as_deref()),
            (Some("u"), Some("u")),
            "{key}"
        );
    }
    for (attributes, id, name) in [
        (json!({"gen_ai.agent.id": "a1", "gen_ai.agent.name": "Anna"}), "a1", "Anna"),
        (json!({"agent.name": "Anna"}), "Anna", "Anna"),
        (json!({"traceloop.span.kind": "agent", "traceloop.entity.name": "Anna"}), "Anna", "Anna"),
        (json!({"ai.telemetry.functionId": "Anna"}), "Anna", "Anna"),
        (json!({"langfuse.observation.type": "agent"}), "span", "span"),
        (json!({"openinference.span.kind": "AGENT", "graph.node.id": "n"}), "n", "n"),
    ] {
        let event = event_of(&attributes);
        assert_eq!(
            (event.agent_id.as_str(), event.span.unwrap().agent_name.as_deref()),
            (id, Some(name)),
            "{attributes}"
        );
    }
    assert_eq!(event_of(&json!({})).agent_id, "unknown");
    for key in ["gen_ai.workflow.name", "traceloop.workflow.name"] {
        let event = event_of(&json!({key: "wf"}));
        assert_eq!((event.agent_id.as_str(), event.span.unwrap().agent_id), ("wf", None), "{key}");
    }
    check(
        "environment",
        &[
            (json!({"langfuse.environment": "prod"}), json!("prod")),
            (
                json!({"deployment.environment.name": "bedrock-agentcore:default"}),
                json!("bedrock-agentcore:default"),
            ),
            (json!({"deployment.environment": " dev "}), json!("dev")),
            (json!({"langfuse.environment": "default"}), Json::Null),
        ],
    );
}

#[test]
fn errors() {
    let is_error = |short: &Json| read_spans(vec![span(short)]).events[0].span.as_deref().unwrap().is_error;
    let exception = json!([{"name": "exception", "attributes": {"exception.type": "E"}}]);
    assert!(is_error(&json!({"status": {"code": "ERROR"}})));
    assert!(is_error(&json!({"attributes": {"error.type": "timeout"}})));
    assert!(is_error(&json!({"events": exception})));
    assert!(is_error(&json!({"attributes": {"langfuse.observation.level": "ERROR"}})));
    assert!(!is_error(&json!({"attributes": {"langfuse.observation.level": "DEFAULT"}})));
    assert!(!is_error(&json!({"events": exception, "status": {"code": "OK"}})));
    assert!(!is_error(&json!({"attributes": {"error.type": ""}})));
    let tool = json!({"status": {"code": "ERROR"}, "attributes": {"openinference.span.kind": "TOOL"}});
    assert_eq!(read_spans(vec![span(&tool)]).events[0].event_type.as_str(), "tool_error");
}

#[test]
fn first_tokens() {
    check(
        "first_token_us",
        &[
            (json!({"gen_ai.response.time_to_first_chunk": 0.25}), json!(250_000)),
            (json!({"gen_ai.client.operation.time_to_first_chunk": 0.25}), json!(250_000)),
            (json!({"ai.response.msToFirstChunk": 250}), json!(250_000)),
            (json!({"ai.stream.msToFirstChunk": 250.5}), json!(250_500)),
            (json!({"llm.time_to_first_token_us": 250}), json!(250)),
            (
                json!({"langfuse.observation.completion_start_time": "\"2026-09-21T14:13:20.250Z\""}),
                json!(250_000),
            ),
            (
                json!({"langfuse.observation.completion_start_time": "2026-09-21T14:13:20.250Z"}),
                json!(250_000),
            ),
            (json!({"langfuse.observation.completion_start_time": "2026-09-21T14:13:19Z"}), Json::Null),
            (json!({"gen_ai.response.time_to_first_chunk": -1}), Json::Null),
        ],
    );
    for name in ["First Token Stream Event", "gen_ai.content.completion.chunk", "ai.stream.firstChunk"] {
        let short = json!({"events": [{"name": name, "ms": 300}, {"name": name, "ms": 250}]});
        let arrival = read_spans(vec![span(&short)]).events.remove(0).span.unwrap();
        assert_eq!(arrival.first_token_us, Some(250_000), "{name}");
    }
}

#[test]
fn caches_and_batches() {
    for (attributes, hit) in [
        (json!({"gen_ai.response.cache_hit": true}), true),
        (json!({"litellm.cache_hit": "True"}), true),
        (json!({"cache_hit": 1}), true),
        (json!({"cache_hit": false}), false),
        (json!({"hidden_params": "{\"cache_hit\": true}"}), true),
        (json!({"metadata": {"cache_hit": true}}), true),
        (json!({"llm.is_cache_hit": true}), false),
    ] {
        let mut attributes = attributes;
        attributes["gen_ai.operation.name"] = json!("chat");
        assert_eq!(arrival_of(&attributes).is_cache_hit, hit, "{attributes}");
        attributes["gen_ai.operation.name"] = json!("execute_tool");
        assert!(!arrival_of(&attributes).is_cache_hit, "{attributes}");
    }
    for (attributes, tier) in [
        (json!({"gen_ai.request.batch": true}), Some(ServiceTier::Batch)),
        (json!({"gen_ai.request.batch": "True"}), Some(ServiceTier::Batch)),
        (json!({"gen_ai.request.batch": false}), None),
        (json!({"openai.response.service_tier": "batch"}), Some(ServiceTier::Batch)),
        (json!({"openai.response.service_tier": "default"}), Some(ServiceTier::Standard)),
        (json!({"openai.request.service_tier": "flex"}), Some(ServiceTier::Flex)),
        (json!({"gen_ai.openai.request.service_tier": "priority"}), Some(ServiceTier::Priority)),
        (
            json!({"openai.request.service_tier": "priority", "openai.response.service_tier": "default"}),
            Some(ServiceTier::Standard),
        ),
        (json!({"openai.response.service_tier": "scale"}), Some(ServiceTier::Other)),
        (json!({"llm.invocation_parameters": "{\"service_tier\": \"flex\"}"}), Some(ServiceTier::Flex)),
        (json!({"llm.invocation_parameters": "{\"temperature\": 1}"}), None),
    ] {
        let mut attributes = attributes;
        attributes["gen_ai.operation.name"] = json!("chat");
        assert_eq!(arrival_of(&attributes).service_tier, tier, "{attributes}");
    }
}

#[test]
fn kinds() {
    for (attributes, kind) in [
        (json!({"langfuse.observation.type": "generation", "openinference.span.kind": "TOOL"}), "llm"),
        (json!({"langfuse.observation.type": "span", "gen_ai.operation.name": "chat"}), "llm"),
        (json!({"langfuse.observation.type": "span"}), "chain"),
        (json!({"openinference.span.kind": "RERANKER"}), "rerank"),
        (json!({"openinference.span.kind": "UNKNOWN"}), "other"),
        (json!({"gen_ai.operation.name": "invoke_workflow"}), "workflow"),
        (json!({"gen_ai.operation.name": "plan"}), "step"),
        (json!({"gen_ai.operation.name": "search_memory"}), "memory"),
        (json!({"gen_ai.operation.name": "run_guardrail"}), "guardrail"),
        (json!({"langsmith.span.kind": "parser"}), "chain"),
        (json!({"langsmith.span.kind": "prompt", "gen_ai.operation.name": "chat"}), "prompt"),
        (json!({"langsmith.span.kind": "retriever", "gen_ai.operation.name": "embeddings"}), "retriever"),
        (json!({"traceloop.span.kind": "task"}), "step"),
        (json!({"traceloop.span.kind": "unknown", "llm.request.type": "rerank"}), "rerank"),
        (json!({"mcp.method.name": "tools/call"}), "tool"),
        (json!({"mcp.method.name": "initialize"}), "other"),
        (json!({"ai.operationId": "ai.embed.doEmbed"}), "embedding"),
        (json!({"ai.operationId": "ai.embed"}), "chain"),
        (json!({"genkit:metadata:subtype": "model"}), "llm"),
        (json!({"gen_ai.span.kind": "RETRIEVER"}), "retriever"),
        (json!({"gen_ai.tool.name": "t"}), "tool"),
        (json!({"gen_ai.request.model": "m", "gen_ai.usage.input_tokens": 1}), "llm"),
        (json!({"gen_ai.request.model": "m"}), "other"),
        (json!({"retrieval.documents.0.document.content": "d"}), "retriever"),
        (json!({"http.request.method": "GET"}), "http"),
        (json!({}), "other"),
    ] {
        assert_eq!(arrival_of(&attributes).kind.unwrap().as_str(), kind, "{attributes}");
    }
}

#[test]
fn only_calls_of_models_count_as_events_with_usage() {
    let agent = event_of(&json!({"gen_ai.operation.name": "invoke_agent", "gen_ai.usage.input_tokens": 5}));
    assert!(agent.facts.usage.is_none() && agent.span.unwrap().usage.is_some());
    let call = event_of(&json!({"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 5}));
    assert_eq!(call.facts.usage.unwrap().input, 5);
    assert_eq!(call.facts.duration_us, Some(1_000_000));
}

#[test]
fn what_a_client_encodes_as_json_is_undone_for_every_field() {
    let attributes = json!({
        "mlflow.spanType": "\"CHAT_MODEL\"", "session.id": "\"conv-77\"", "user.id": "\"mary\"",
        "mlflow.llm.model": "\"gpt-4o\"", "mlflow.llm.provider": "\"openai\"", "gen_ai.agent.name": "\"helper\"",
        "gen_ai.agent.id": "\"a-1\"", "gen_ai.response.id": "\"resp-1\"", "gen_ai.tool.call.id": "\"c-1\"",
        "environment": "\"staging\"", "langfuse.observation.level": "\"ERROR\"", "cache_hit": "\"true\"",
        "mlflow.chat.tokenUsage": "\"{\\\"input_tokens\\\": 1000, \\\"output_tokens\\\": 100}\"",
        "gen_ai.workflow.name": "\"\"",
    });
    let event = event_of(&attributes);
    let arrival = event.span.as_deref().unwrap();
    assert_eq!(event.session_id, "conv-77");
    let found = [
        &arrival.user_id,
        &arrival.model,
        &arrival.provider,
        &arrival.agent_name,
        &arrival.agent_id,
        &arrival.response_id,
        &arrival.call_id,
        &arrival.environment,
    ];
    let expected = ["mary", "gpt-4o", "openai", "helper", "a-1", "resp-1", "c-1", "staging"];
    assert_eq!(found.map(|text| text.as_deref().unwrap_or("")), expected);
    assert_eq!(arrival.usage.map(|usage| (usage.input, usage.output)), Some((1000, 100)));
    assert!(arrival.is_error && arrival.is_cache_hit);
    assert_eq!(arrival.service, None, "an empty text in quotes says nothing");
    let view = view(&attributes);
    assert_eq!((&view["sessionId"], &view["model"]), (&json!("conv-77"), &json!("gpt-4o")));
}

#[test]
fn a_tool_that_reports_its_failure_in_its_result_has_failed() {
    for (attributes, expected) in [
        (
            json!({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.call.result": "{\"isError\":true}"}),
            true,
        ),
        (
            json!({"mcp.method.name": "tools/call", "gen_ai.tool.call.result": {"isError": true, "content": []}}),
            true,
        ),
        (json!({"mcp.method.name": "tools/call", "gen_ai.tool.call.result": {"isError": false}}), false),
        (
            json!({"openinference.span.kind": "TOOL",
                "output.value": "{\"type\":\"tool\",\"status\":\"error\",\"tool_call_id\":\"c\"}"}),
            true,
        ),
        (
            json!({"traceloop.span.kind": "tool",
                "traceloop.entity.output": "{\"output\":{\"kwargs\":{\"status\":\"error\",\"type\":\"tool\"}}}"}),
            true,
        ),
        (json!({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.status": "error"}), true),
        (json!({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.status": "success"}), false),
        (json!({"openinference.span.kind": "CHAIN", "output.value": "{\"isError\":true}"}), false),
        (json!({"openinference.span.kind": "TOOL", "output.value": "{\"status\":\"error\"}"}), false),
    ] {
        let event = event_of(&attributes);
        assert_eq!(event.span.as_ref().unwrap().is_error, expected, "{attributes}");
        assert_eq!(event.event_type == agentlens_domain::events::EventType::ToolError, expected);
    }
    let failed = json!({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.call.result":
        {"isError": true, "content": [{"type": "text", "text": "command FAILED"}]}});
    assert_eq!(view(&failed)["error"], json!({"type": "tool_error", "message": "command FAILED"}));
    let succeeded = span(&json!({"status": {"code": "OK"}, "attributes": failed}));
    assert!(read_spans(vec![succeeded]).events[0].span.as_ref().unwrap().is_error);
}

#[test]
fn the_requested_model_stands_in_where_no_other_is_known() {
    for (attributes, expected) in [
        (
            json!({"openinference.span.kind": "LLM", "llm.invocation_parameters": "{\"model\": \"gpt-4o\"}"}),
            Some("gpt-4o"),
        ),
        (json!({"openinference.span.kind": "LLM", "input.value": "{\"model\": \"gpt-4o\"}"}), Some("gpt-4o")),
        (
            json!({"openinference.span.kind": "LLM", "llm.invocation_parameters": "{'model_name': 'gpt-4o'}"}),
            Some("gpt-4o"),
        ),
        (
            json!({"openinference.span.kind": "LLM", "llm.model_name": "b",
                "llm.invocation_parameters": "{\"model\": \"a\"}"}),
            Some("b"),
        ),
        (json!({"openinference.span.kind": "CHAIN", "input.value": "{\"model\": \"gpt-4o\"}"}), None),
        (json!({"openinference.span.kind": "LLM", "input.value": "which model?"}), None),
    ] {
        let mut short = json!({"attributes": attributes, "status": {"code": "ERROR"}});
        assert_eq!(read_spans(vec![span(&short)]).events[0].facts.model.as_deref(), expected, "{attributes}");
        short["status"] = json!({"code": "UNSET"});
        assert_eq!(read_spans(vec![span(&short)]).events[0].facts.model.as_deref(), expected, "{attributes}");
    }
}

#[test]
fn what_a_client_holds_back_names_nothing() {
    for placeholder in ["[Scrubbed due to 'session']", "[redacted]", "[REDACTED]", "[Filtered]"] {
        let attributes =
            json!({"session.id": placeholder, "user.id": placeholder, "gen_ai.conversation.id": "c1"});
        let event = event_of(&attributes);
        assert_eq!((event.session_id.as_str(), &event.facts.user_id), ("c1", &None), "{placeholder}");
    }
}

#[test]
fn the_request_of_a_stream_is_no_call_where_another_span_tells_the_answer() {
    let request =
        json!({"gen_ai.operation.name": "chat", "gen_ai.request.model": "m", "gen_ai.input.messages": "[]"});
    let mut answer = request.clone();
    answer["gen_ai.usage.output_tokens"] = json!(1);
    for (scope, attributes, status, kind) in [
        ("logfire.openai", &request, "UNSET", "chain"),
        ("logfire.openai", &request, "ERROR", "llm"),
        ("logfire.openai", &answer, "UNSET", "llm"),
        ("other", &request, "UNSET", "llm"),
    ] {
        let spans = vec![span(&json!({"attributes": attributes, "status": {"code": status}}))];
        let request = super::trace_request(spans, &json!({"scope": {"name": scope}}));
        let event = super::events_of_traces(&request, &super::CONTEXT).events.remove(0);
        let arrival = event.span.as_deref().unwrap();
        assert_eq!(arrival.kind.unwrap().as_str(), kind, "{scope} {attributes} {status}");
        assert_eq!(present(&[&event.payload])["kind"], kind);
    }
}

#[test]
fn a_framework_is_no_provider_and_a_wait_ends_before_the_span() {
    let attributes = json!({"gen_ai.operation.name": "chat", "gen_ai.system": "strands-agents",
        "gen_ai.request.model": "us.anthropic.claude-sonnet-4-5", "gen_ai.server.time_to_first_token": 107});
    let arrival = arrival_of(&attributes);
    assert_eq!((arrival.provider.as_deref(), arrival.first_token_us), (Some("bedrock"), Some(107_000)));
    let in_seconds = json!({"gen_ai.operation.name": "chat", "gen_ai.server.time_to_first_token": 0.107});
    assert_eq!(arrival_of(&in_seconds).first_token_us, Some(107_000));
}

/// Bug: LlamaIndex's span that only prepares the request of a call was counted as a call.
#[test]
fn a_span_that_prepares_a_request_is_no_call() {
    let kind = |name: &str, more: &Json| {
        let mut attributes =
            super::object(&json!({"openinference.span.kind": "LLM", "llm.model_name": "gpt-4o-mini",
            "input.value": "{\"tools\": []}", "output.value": "{\"messages\": [], \"tools\": []}"}));
        attributes.extend(super::object(more));
        let mut normalised =
            super::read_spans(vec![super::span(&json!({"name": name, "attributes": attributes}))]);
        normalised.events.remove(0).span.unwrap().kind
    };
    for (name, more, expected) in [
        ("OpenAI._prepare_chat_with_tools", json!({}), SpanKind::Chain),
        ("Anthropic._prepare_chat_with_tools", json!({"error.type": "ValueError"}), SpanKind::Chain),
        ("OpenAI._prepare_chat_with_tools", json!({"llm.token_count.prompt": 5}), SpanKind::Llm),
        ("OpenAI.chat", json!({}), SpanKind::Llm),
    ] {
        assert_eq!(kind(name, &more), Some(expected), "{name} {more}");
    }
}
