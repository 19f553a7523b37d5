"""OpenAI's client, instrumented by Logfire itself, which exports to our endpoint and not to its own cloud."""

import story

story.configure_environment()

import logfire


def call_tool(call_id, arguments):
    names = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": story.TOOL_NAME, "gen_ai.tool.call.id": call_id}
    with logfire.span(f"execute_tool {story.TOOL_NAME}", **names) as span:
        result = story.get_weather(**arguments)
        span.set_attribute("gen_ai.tool.call.arguments", arguments)
        span.set_attribute("gen_ai.tool.call.result", result)
    return result


def main():
    logfire.configure(
        send_to_logfire=False,
        service_name=story.SERVICE,
        service_version="1.2.3",
        environment=story.ENVIRONMENT,
        console=False,
        inspect_arguments=False,
    )
    client = story.openai_client()
    logfire.instrument_openai(client)
    agent = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": story.AGENT}
    # Logfire copies baggage to every span, which is its means to name the session and the user.
    with logfire.set_baggage(**{"session.id": story.SESSION_ID, "user.id": story.USER_ID}):
        with logfire.span(f"invoke_agent {story.AGENT}", **agent):
            story.openai_tool_chat(client, call_tool)
            story.openai_streamed_chat(client)
            story.openai_responses(client)
            story.openai_streamed_responses(client)
            story.openai_embedding(client)
            story.openai_refused_chat(client)
    logfire.shutdown()


main()
