//! Tool results that report a failure of the tool inside of themselves, while the call as such went well.

use crate::json::{Kind, Member, Value};

/// How deep a result may lie inside of what carries it.
const MAX_DEPTH: usize = 6;

/// Items of a list that are looked at.
const MAX_ITEMS: usize = 64;

/// Members that carry a result or a part of it: those of LangChain's messages, LangGraph's updates and MCP.
const CARRIERS: [&str; 9] =
    ["data", "kwargs", "output", "result", "response", "content", "messages", "update", "message"];

/// Whether a tool's result says that the tool failed: `isError` of MCP, `is_error` of Anthropic's API, or `status: "error"` of
/// LangChain's tool messages. `result` is JSON, or what Python prints for such an object.
pub fn is_failed_tool_result(result: &str) -> bool {
    // Every form contains this, so most results are done after one search.
    if memchr::memmem::find(result.as_bytes(), b"rror").is_none() {
        return false;
    }
    match Value::parse(result) {
        Ok(value) => is_failed(value, 0),
        Err(_) => is_failed_in_python(result),
    }
}

fn is_failed(value: Value<'_>, depth: usize) -> bool {
    if depth > MAX_DEPTH {
        return false;
    }
    match value.kind() {
        Kind::Object => is_failed_object(&value.members().unwrap_or_default(), depth),
        Kind::Array => {
            let items = value.elements().unwrap_or_default();
            items.iter().take(MAX_ITEMS).any(|item| is_failed(*item, depth + 1))
        }
        Kind::String => {
            let text = value.as_str_lossy().unwrap_or_default();
            text.contains("rror")
                && Value::parse(&text)
                    .map_or_else(|_| is_failed_in_python(&text), |inner| is_failed(inner, depth + 1))
        }
        _ => false,
    }
}

fn is_failed_object(members: &[Member<'_>], depth: usize) -> bool {
    let text_is = |value: &Value<'_>, word: &str| {
        value.kind() == Kind::String && value.as_str_lossy().is_some_and(|text| text == word)
    };
    let is_flagged = |Member { key, value }: &Member<'_>| {
        matches!(key.as_ref(), "isError" | "is_error")
            && (value.as_bool() == Some(true) || text_is(value, "true"))
    };
    if members.iter().any(is_flagged) {
        return true;
    }
    // A tool's own data may have a status too; only that of a message to the model is about the call.
    let is_message = members.iter().any(|Member { key, value }| match key.as_ref() {
        "tool_call_id" | "tool_use_id" | "toolCallId" => true,
        "type" => ["tool", "ToolMessage", "tool_result"].iter().any(|kind| text_is(value, kind)),
        _ => false,
    });
    let has_failed = |member: &Member<'_>| member.key == "status" && text_is(&member.value, "error");
    if is_message && members.iter().any(has_failed) {
        return true;
    }
    let carried = members.iter().filter(|member| CARRIERS.contains(&member.key.as_ref()));
    carried.into_iter().any(|member| is_failed(member.value, depth + 1))
}

fn is_failed_in_python(text: &str) -> bool {
    (text.contains("tool_call_id=") && text.contains("status='error'"))
        || (text.contains("content=[") && text.contains("isError=True"))
        || (text.contains("'content': [") && text.contains("'isError': True"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_that_report_a_failure_are_known() {
        for (result, expected) in [
            (r#"{"content":[{"type":"text","text":"FAILED"}],"isError":true}"#, true),
            (r#"{"content":[{"type":"text","text":"no error"}],"isError":false}"#, false),
            (r#"{"content":[{"type":"text","text":"{\"isError\":true}"}]}"#, false),
            (r#"{"type":"tool_result","tool_use_id":"t","is_error":true,"content":"x"}"#, true),
            (r#"[{"type":"tool_result","tool_use_id":"t","is_error":true}]"#, true),
            (r#"{"type":"tool","content":"x","status":"error","tool_call_id":"c"}"#, true),
            (r#"{"type":"tool","data":{"content":"x","status":"error","tool_call_id":"c"}}"#, true),
            (r#"{"lc":1,"kwargs":{"content":"x","status":"error","type":"tool"}}"#, true),
            (r#"{"output":{"kwargs":{"content":"an error","status":"success","type":"tool"}}}"#, false),
            (r#"{"messages":[{"type":"tool","status":"error"}]}"#, true),
            (r#""{\"isError\":true}""#, true),
            (r#"{"status":"error","count":3}"#, false),
            (r#"{"errors":[]}"#, false),
            ("content='x' name='t' tool_call_id='c' status='error'", true),
            ("meta=None content=[TextContent(text='x')] isError=True", true),
            ("Error: it failed", false),
            ("", false),
        ] {
            assert_eq!(is_failed_tool_result(result), expected, "{result}");
        }
        assert!(!is_failed_tool_result(
            &(r#"{"data":"#.repeat(200) + r#"{"isError":true}"# + &"}".repeat(200))
        ));
    }
}
