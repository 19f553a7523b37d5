//! Tokens of every convention become inclusive totals.

use agentlens_domain::usage::Usage;
use serde_json::{Value as Json, json};

use super::arrival_of;

/// Input, output, cache read, cache write, reasoning.
type Counts = (i64, i64, i64, i64, i64);

fn counts(usage: &Usage) -> Counts {
    (
        usage.input,
        usage.output,
        usage.cache_read,
        usage.cache_write_5m + usage.cache_write_1h,
        usage.reasoning,
    )
}

fn check(cases: &[(&str, Json, Option<Counts>)]) {
    for (name, attributes, expected) in cases {
        let found = arrival_of(attributes).usage;
        assert_eq!(found.as_ref().map(counts), *expected, "{name}: {attributes}");
    }
}

#[test]
fn attributes_are_inclusive_unless_they_cannot_be() {
    check(&[
        ("nothing said", json!({"gen_ai.operation.name": "chat"}), None),
        ("zero said", json!({"gen_ai.usage.input_tokens": 0}), Some((0, 0, 0, 0, 0))),
        (
            "inclusive",
            json!({"gen_ai.usage.input_tokens": 307, "gen_ai.usage.output_tokens": 20,
                "gen_ai.usage.cache_read.input_tokens": 200, "gen_ai.usage.cache_creation.input_tokens": 100}),
            Some((307, 20, 200, 100, 0)),
        ),
        (
            "more cached than input",
            json!({"gen_ai.usage.input_tokens": 7, "gen_ai.usage.output_tokens": 20,
                "gen_ai.usage.cache_read_input_tokens": 200, "gen_ai.usage.cache_creation_input_tokens": 100}),
            Some((307, 20, 200, 100, 0)),
        ),
        (
            "the total is the sum with cached tokens",
            json!({"gen_ai.usage.input_tokens": 500, "gen_ai.usage.output_tokens": 20,
                "gen_ai.usage.cache_read_input_tokens": 200, "gen_ai.usage.total_tokens": 720}),
            Some((700, 20, 200, 0, 0)),
        ),
        (
            "the total is the sum without",
            json!({"gen_ai.usage.input_tokens": 500, "gen_ai.usage.output_tokens": 20,
                "gen_ai.usage.cache_read_input_tokens": 200, "gen_ai.usage.total_tokens": 520}),
            Some((500, 20, 200, 0, 0)),
        ),
        (
            "reasoning beside the output",
            json!({"gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 20,
                "gen_ai.usage.reasoning_tokens": 15, "gen_ai.usage.total_tokens": 45}),
            Some((10, 35, 0, 0, 15)),
        ),
        (
            "numbers in texts",
            json!({"gen_ai.usage.input_tokens": "12", "gen_ai.usage.output_tokens": "3.0"}),
            Some((12, 3, 0, 0, 0)),
        ),
        (
            "no numbers",
            json!({"gen_ai.usage.input_tokens": -5, "gen_ai.usage.output_tokens": 3}),
            Some((0, 3, 0, 0, 0)),
        ),
        (
            "the new name is better than the old one",
            json!({"gen_ai.usage.prompt_tokens": 1, "gen_ai.usage.input_tokens": 2}),
            Some((2, 0, 0, 0, 0)),
        ),
    ]);
}

#[test]
fn langchain_names_parts_of_inclusive_totals() {
    let with = |input: &str, output: &str| {
        json!({"langsmith.span.kind": "llm", "gen_ai.usage.input_tokens": 307, "gen_ai.usage.output_tokens": 50,
            "gen_ai.usage.total_tokens": 357, "gen_ai.usage.input_token_details": input,
            "gen_ai.usage.output_token_details": output})
    };
    check(&[
        (
            "JSON",
            with(r#"{"cache_read": 100, "cache_creation": 200}"#, r#"{"reasoning": 20}"#),
            Some((307, 50, 100, 200, 20)),
        ),
        (
            "Python",
            with(
                "{'cache_read': 100, 'cache_creation': 0, 'ephemeral_5m_input_tokens': 200}",
                "{'reasoning': 20}",
            ),
            Some((307, 50, 100, 200, 20)),
        ),
        ("neither", with("many", "{'reasoning'"), Some((307, 50, 0, 0, 0))),
    ]);
    let usage = arrival_of(&with("{'audio': 30, 'ephemeral_1h_input_tokens': 60}", r#"{"audio": 10}"#))
        .usage
        .unwrap();
    assert_eq!((usage.audio_input, usage.audio_output), (30, 10));
    assert_eq!((usage.cache_write_5m, usage.cache_write_1h), (0, 60));
}

#[test]
fn a_part_that_was_left_out_is_the_rest_of_the_total() {
    check(&[
        ("output", json!({"llm.token_count.prompt": 5, "llm.token_count.total": 7}), Some((5, 2, 0, 0, 0))),
        (
            "input",
            json!({"llm.token_count.completion": 2, "llm.token_count.total": 7}),
            Some((5, 2, 0, 0, 0)),
        ),
        ("a total alone tells nothing", json!({"llm.token_count.total": 7}), None),
        (
            "but for an embedding",
            json!({"openinference.span.kind": "EMBEDDING", "llm.token_count.total": 7}),
            Some((7, 0, 0, 0, 0)),
        ),
    ]);
}

#[test]
fn some_spans_never_have_tokens() {
    check(&[
        ("fetched", json!({"gen_ai.operation.name": "fetch_response", "gen_ai.usage.input_tokens": 5}), None),
        (
            "aggregated",
            json!({"gen_ai.operation.name": "invoke_agent", "gen_ai.aggregated_usage.input_tokens": 5}),
            None,
        ),
    ]);
}

fn vercel(provider: &str, more: &Json) -> Json {
    let mut attributes = json!({"ai.operationId": "ai.generateText.doGenerate", "ai.model.provider": provider,
        "ai.model.id": "m", "ai.usage.inputTokens": 500, "ai.usage.outputTokens": 20});
    attributes.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    attributes
}

fn metadata(value: &Json) -> Json {
    json!({"ai.response.providerMetadata": value.to_string()})
}

#[test]
fn vercel_follows_the_provider_until_it_says_otherwise() {
    check(&[
        (
            "openai",
            vercel("openai.chat", &json!({"ai.usage.cachedInputTokens": 200})),
            Some((500, 20, 200, 0, 0)),
        ),
        (
            "anthropic in 5",
            vercel(
                "anthropic.messages",
                &json!({"ai.usage.cachedInputTokens": 200, "ai.usage.totalTokens": 520}),
            ),
            Some((700, 20, 200, 0, 0)),
        ),
        (
            "anthropic in 4: only in the metadata",
            vercel(
                "anthropic.messages",
                &metadata(
                    &json!({"anthropic": {"cacheCreationInputTokens": 100, "cacheReadInputTokens": 200}}),
                ),
            ),
            Some((800, 20, 200, 100, 0)),
        ),
        (
            "anthropic in 6",
            vercel(
                "anthropic.messages",
                &json!({"ai.usage.inputTokenDetails.noCacheTokens": 300, "ai.usage.inputTokenDetails.cacheReadTokens": 200}),
            ),
            Some((500, 20, 200, 0, 0)),
        ),
        (
            "the raw usage settles it",
            vercel(
                "anthropic.messages",
                &metadata(
                    &json!({"anthropic": {"usage": {"input_tokens": 300, "cache_read_input_tokens": 150,
                    "cache_creation_input_tokens": 50, "cache_creation": {"ephemeral_1h_input_tokens": 50}}}}),
                ),
            ),
            Some((500, 20, 150, 50, 0)),
        ),
        (
            "openai's reasoning in the metadata",
            vercel(
                "openai.chat",
                &metadata(&json!({"openai": {"reasoningTokens": 5, "cachedPromptTokens": 200}})),
            ),
            Some((500, 20, 200, 0, 5)),
        ),
        (
            "gemini's thoughts beside the output",
            vercel(
                "google.generative-ai",
                &json!({"ai.usage.reasoningTokens": 30, "ai.usage.totalTokens": 550}),
            ),
            Some((500, 50, 0, 0, 30)),
        ),
    ]);
}

#[test]
fn vercel_names_more_than_one_provider() {
    check(&[(
        "a gateway before the provider",
        vercel(
            "openai.chat",
            &metadata(
                &json!({"gateway": {"cost": "0.1"}, "openai": {"reasoningTokens": 5, "cachedPromptTokens": 200}}),
            ),
        ),
        Some((500, 20, 200, 0, 5)),
    )]);
}

fn langfuse(usage: &Json) -> Json {
    json!({"langfuse.observation.type": "generation", "langfuse.observation.usage_details": usage.to_string()})
}

#[test]
fn usage_objects_tell_their_convention_by_their_shape() {
    check(&[
        (
            "chat completions",
            langfuse(&json!({"prompt_tokens": 42, "completion_tokens": 17, "total_tokens": 59,
                "prompt_tokens_details": {"cached_tokens": 30}, "completion_tokens_details": {"reasoning_tokens": 5}})),
            Some((42, 17, 30, 0, 5)),
        ),
        (
            "responses",
            langfuse(
                &json!({"input_tokens": 46, "input_tokens_details": {"cached_tokens": 30}, "output_tokens": 21,
                "output_tokens_details": {"reasoning_tokens": 9}, "total_tokens": 67}),
            ),
            Some((46, 21, 30, 0, 9)),
        ),
        (
            "anthropic",
            langfuse(
                &json!({"input_tokens": 7, "cache_read_input_tokens": 3, "cache_creation_input_tokens": 2, "output_tokens": 20}),
            ),
            Some((12, 20, 3, 2, 0)),
        ),
        (
            "anthropic made inclusive, with a total",
            langfuse(
                &json!({"input_tokens": 12, "cache_read_input_tokens": 3, "output_tokens": 20, "total_tokens": 32}),
            ),
            Some((12, 20, 3, 0, 0)),
        ),
        (
            "gemini",
            langfuse(&json!({"promptTokenCount": 40, "candidatesTokenCount": 10, "thoughtsTokenCount": 30,
                "cachedContentTokenCount": 8, "totalTokenCount": 80})),
            Some((40, 40, 8, 0, 30)),
        ),
        (
            "bedrock",
            langfuse(
                &json!({"inputTokens": 7, "outputTokens": 20, "cacheReadInputTokens": 3, "totalTokens": 30}),
            ),
            Some((10, 20, 3, 0, 0)),
        ),
        ("nothing in it", langfuse(&json!({})), None),
        ("no object", json!({"langfuse.observation.usage_details": "many"}), None),
        (
            "a structure",
            json!({"mlflow.chat.tokenUsage": {"input_tokens": 5, "output_tokens": 2}}),
            Some((5, 2, 0, 0, 0)),
        ),
    ]);
}

#[test]
fn langfuses_parts_lie_beside_each_other_unless_the_total_says_otherwise() {
    check(&[
        ("langfuse", langfuse(&json!({"input": 4})), Some((4, 0, 0, 0, 0))),
        (
            "langfuse's own parts",
            langfuse(
                &json!({"input": 12, "input_cached_tokens": 30, "output": 12, "output_reasoning_tokens": 5, "total": 59}),
            ),
            Some((42, 17, 30, 0, 5)),
        ),
        (
            "langfuse's parts of an inclusive total",
            langfuse(
                &json!({"input": 42, "input_cached_tokens": 30, "output": 17, "output_reasoning_tokens": 5, "total": 59}),
            ),
            Some((42, 17, 30, 0, 5)),
        ),
        (
            "langfuse's parts after LangChain",
            langfuse(&json!({"input": 7, "input_cache_read": 100, "input_cache_creation": 0,
                "input_ephemeral_5m_input_tokens": 200, "output": 50, "total": 357})),
            Some((307, 50, 100, 200, 0)),
        ),
        (
            "writes named in all and by their lifetime",
            langfuse(&json!({"input": 0, "input_cache_read": 100, "input_cache_creation": 200,
                "input_ephemeral_5m_input_tokens": 200, "output": 50, "total": 357})),
            Some((307, 50, 100, 200, 0)),
        ),
        (
            "a part that no figure holds",
            langfuse(&json!({"input": 50, "input_audio": 30, "output": 20, "total": 100})),
            Some((80, 20, 0, 0, 0)),
        ),
        (
            "an unknown part of the output, and reasoning inside it",
            langfuse(
                &json!({"input": 50, "output": 20, "output_reasoning": 5, "output_new": 7, "total": 82}),
            ),
            Some((50, 32, 0, 0, 5)),
        ),
        (
            "parts inside the input and beside the output",
            langfuse(
                &json!({"input": 50, "input_cached": 30, "output": 20, "output_reasoning": 5, "total": 75}),
            ),
            Some((50, 25, 30, 0, 5)),
        ),
        (
            "parts without a total are beside each other",
            langfuse(&json!({"input": 50, "input_cached": 30, "output": 20, "output_reasoning": 5})),
            Some((80, 25, 30, 0, 5)),
        ),
        (
            "langfuse's sides with a provider's parts",
            langfuse(
                &json!({"input": 7, "cache_read_input_tokens": 100, "output": 50, "reasoning_tokens": 5}),
            ),
            Some((107, 55, 100, 0, 5)),
        ),
        (
            "a total that nothing explains",
            langfuse(&json!({"input": 4, "output": 2, "total": 100})),
            Some((4, 2, 0, 0, 0)),
        ),
        ("the output is the rest", langfuse(&json!({"input": 4, "total": 6})), Some((4, 2, 0, 0, 0))),
    ]);
}

#[test]
fn usage_that_arrives_only_as_text_is_read() {
    let in_answer = |usage: &str| format!("{{\"id\":\"chatcmpl-1\",\"choices\":[],\"usage\":{usage}}}");
    let openai = r#"{"prompt_tokens":42,"completion_tokens":17,"prompt_tokens_details":{"cached_tokens":30},"completion_tokens_details":{"reasoning_tokens":5}}"#;
    let printed = "{'prompt_tokens': 42, 'completion_tokens': 17, 'prompt_tokens_details': {'cached_tokens': 30}, \
        'completion_tokens_details': {'reasoning_tokens': 5, 'audio_tokens': None}}";
    let by_class = "CompletionUsage(completion_tokens=17, prompt_tokens=42, total_tokens=59, \
        completion_tokens_details=CompletionTokensDetails(reasoning_tokens=5), \
        prompt_tokens_details=PromptTokensDetails(audio_tokens=None, cached_tokens=30))";
    let langchain =
        format!("{{\"generations\":[[{{\"text\":\"hi\"}}]],\"llm_output\":{{\"token_usage\":{openai}}}}}");
    let anthropic = "{'input_tokens': 7, 'output_tokens': 50, 'cache_read_input_tokens': 100, \
        'cache_creation_input_tokens': 200}";
    let expected = Some((42, 17, 30, 0, 5));
    let call = |key: &str, value: &str| json!({"gen_ai.operation.name": "chat", "gen_ai.request.model": "m", key: value});
    check(&[
        ("JSON", call("gen_ai.usage", openai), expected),
        ("a Python literal", call("gen_ai.usage", printed), expected),
        ("a Python object", call("llm.usage", by_class), expected),
        ("Anthropic's, printed", call("usage", anthropic), Some((307, 50, 100, 200, 0))),
        ("an answer", call("output.value", &in_answer(openai)), expected),
        ("a printed answer", call("output.value", &format!("{{'id': 'x', 'usage': {printed}}}")), expected),
        (
            "an answer with printed usage",
            call("output.value", &in_answer(&json!(printed).to_string())),
            expected,
        ),
        ("LangChain's result", call("output.value", &langchain), expected),
        ("nothing", call("output.value", "{\"tokens\": \"many\"}"), None),
    ]);
    let chain = json!({"openinference.span.kind": "CHAIN", "output.value": in_answer(openai)});
    check(&[("a chain's output is no usage", chain, None)]);
}

/// Bug: of Haystack's answers only the totals were read. Its cached and reasoning tokens are in a text inside the output.
#[test]
fn tokens_in_the_texts_of_replies_are_read() {
    let usage = "{'completion_tokens': 21, 'prompt_tokens': 107, 'total_tokens': 128, 'completion_tokens_details': \
        {'audio_tokens': None, 'reasoning_tokens': 6}, 'prompt_tokens_details': {'audio_tokens': None, 'cached_tokens': 41}}";
    let printed = format!(
        "ChatMessage(_role=<ChatRole.ASSISTANT: 'assistant'>, _content=[TextContent(text='It\\'s (\"sunny\")\\n')], \
        _name=None, _meta={{'model': 'gpt-4o-mini', 'index': 0, 'finish_reason': 'stop', 'usage': {usage}}})"
    );
    let object = json!({"prompt_tokens": 107, "completion_tokens": 21, "prompt_tokens_details": {"cached_tokens": 41},
        "completion_tokens_details": {"reasoning_tokens": 6}});
    let without = json!({"prompt_tokens": 107, "completion_tokens": 21, "cache_read_input_tokens": 41});
    let named = |output: &Json| {
        json!({"openinference.span.kind": "LLM", "llm.model_name": "gpt-4o-mini", "llm.token_count.prompt": 107,
            "llm.token_count.completion": 21, "llm.token_count.total": 128, "output.value": output.to_string()})
    };
    let unnamed = |output: &Json| json!({"openinference.span.kind": "LLM", "llm.model_name": "gpt-4o-mini", "output.value": output.to_string()});
    let text = json!({"replies": [printed]});
    let objects = json!({"replies": [{"content": "hi", "meta": {"usage": object}}]});
    let beside = json!({"replies": ["hi"], "meta": [{"usage": object}]});
    let expected = Some((107, 21, 41, 0, 6));
    check(&[
        ("a text", named(&text), expected),
        ("an object", named(&objects), expected),
        ("beside the replies", named(&beside), expected),
        ("a text alone", unnamed(&text), expected),
        ("an object alone", unnamed(&objects), expected),
        ("no usage", named(&json!({"replies": ["cached_tokens: 41"]})), Some((107, 21, 0, 0, 0))),
        (
            "of another convention",
            named(&json!({"replies": [{"meta": {"usage": without}}]})),
            Some((107, 21, 0, 0, 0)),
        ),
    ]);
}

#[test]
fn clients_that_leave_cached_tokens_out_are_known_by_their_scope() {
    let attributes = json!({"gen_ai.operation.name": "chat", "gen_ai.system": "aws.bedrock",
        "gen_ai.usage.input_tokens": 300, "gen_ai.usage.output_tokens": 50, "gen_ai.usage.total_tokens": 350,
        "gen_ai.usage.cache_read.input_tokens": 100, "gen_ai.usage.cache_creation.input_tokens": 20});
    for (scope, input) in [
        ("opentelemetry.instrumentation.botocore.bedrock-runtime", 420),
        ("openlit.instrumentation.bedrock", 420),
        ("strands.telemetry.tracer", 420),
        ("mine", 300),
    ] {
        let spans = vec![super::span(&json!({"attributes": attributes}))];
        let request = super::trace_request(spans, &json!({"scope": {"name": scope}}));
        let event = super::events_of_traces(&request, &super::CONTEXT).events.remove(0);
        assert_eq!(event.facts.usage.map(|usage| usage.input), Some(input), "{scope}");
        let view = super::super::present(&[&event.payload]);
        assert_eq!(view["usage"]["inputTokens"], input, "{scope}");
    }
}

#[test]
fn parts_that_only_the_providers_object_names_are_added() {
    let raw = "{\"completion_tokens\":17,\"prompt_tokens\":42,\"completion_tokens_details\":{\"reasoning_tokens\":5},\
        \"prompt_tokens_details\":{\"cached_tokens\":30}}";
    let attributes = json!({"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 42,
        "gen_ai.usage.output_tokens": 17, "gen_ai.usage.raw": raw});
    let printed = "{'completion_tokens': 17, 'prompt_tokens': 42, 'completion_tokens_details': {'reasoning_tokens': 5, \
        'audio_tokens': None}, 'prompt_tokens_details': {'cached_tokens': 30}}";
    let litellm = json!({"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 42,
        "gen_ai.usage.output_tokens": 17, "metadata.usage_object": printed});
    let expected = Some((42, 17, 30, 0, 5));
    let mlflow = json!({"mlflow.spanType": "\"CHAT_MODEL\"", "mlflow.chat.tokenUsage":
        "{\"input_tokens\": 42, \"output_tokens\": 17, \"total_tokens\": 59, \"cache_read_input_tokens\": 30}",
        "mlflow.spanOutputs": format!("{{\"id\":\"chatcmpl-1\",\"usage\":{raw}}}")});
    check(&[("Logfire", attributes, expected), ("LiteLLM", litellm, expected), ("MLflow", mlflow, expected)]);
}

/// As OpenLLMetry and Mistral's own library report one call, side by side.
#[test]
fn a_librarys_own_span_says_the_same_as_the_instrumentations_around_it() {
    let read = |scope: &str, attributes: &Json| {
        let request = super::trace_request(
            vec![super::span(&json!({"attributes": attributes}))],
            &json!({"scope": {"name": scope}}),
        );
        *super::events_of_traces(&request, &super::CONTEXT).events.remove(0).span.unwrap()
    };
    let outer = json!({"gen_ai.system": "MistralAI", "llm.request.type": "chat",
        "gen_ai.request.model": "mistral-large-latest", "gen_ai.response.model": "mistral-large-latest",
        "gen_ai.response.id": "chatcmpl-1", "llm.usage.total_tokens": 248, "gen_ai.usage.output_tokens": 36,
        "gen_ai.usage.input_tokens": 212, "gen_ai.usage.cache_read.input_tokens": 56});
    let own = json!({"http.request.method": "POST", "gen_ai.request.model": "mistral-large-latest",
        "mistral_ai.operation.id": "chat_completion_v1_chat_completions_post", "gen_ai.provider.name": "mistral_ai",
        "gen_ai.usage.prompt_tokens": 212, "gen_ai.usage.output_tokens": 36, "mistral_ai.request.total_tokens": 248});
    let (outer, own) =
        (read("opentelemetry.instrumentation.mistralai", &outer), read("mistralai_sdk_tracer", &own));
    let same = |arrival: &super::Arrival| {
        let usage = arrival.usage.unwrap();
        (arrival.kind, arrival.provider.clone(), arrival.model.clone(), usage.input, usage.output)
    };
    assert_eq!(same(&own), same(&outer));
    assert_eq!((outer.is_of_library, own.is_of_library, own.response_id), (false, true, None));
}
