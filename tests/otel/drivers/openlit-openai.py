"""OpenAI's client, instrumented by OpenLIT. Agent and tool are the application's."""

import story

story.configure_environment()

import openlit
from opentelemetry import trace


def main():
    # No prices: they would come from the network.
    openlit.init(
        application_name=story.SERVICE,
        environment=story.ENVIRONMENT,
        otlp_endpoint=story.OTLP_URL,
        otlp_headers=f"Authorization=Bearer%20{story.API_KEY}",
        disabled_instrumentors=["httpx", "requests", "urllib", "urllib3"],
        pricing_json="/dev/null",
    )
    tracer = trace.get_tracer("weather-service", "1.2.3")

    def call_tool(call_id, arguments):
        names = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": story.TOOL_NAME, "gen_ai.tool.call.id": call_id}
        with tracer.start_as_current_span(f"execute_tool {story.TOOL_NAME}", attributes=names) as span:
            result = story.get_weather(**arguments)
            span.set_attribute("gen_ai.tool.call.arguments", story.json.dumps(arguments))
            span.set_attribute("gen_ai.tool.call.result", result)
        return result

    client = story.openai_client()
    names = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": story.AGENT}
    with openlit.using_attributes({"session.id": story.SESSION_ID, "user.id": story.USER_ID}):
        with tracer.start_as_current_span(f"invoke_agent {story.AGENT}", attributes=names):
            story.openai_tool_chat(client, call_tool)
            story.openai_streamed_chat(client)
            story.openai_responses(client)
            story.openai_streamed_responses(client)
            story.openai_embedding(client)
            story.openai_refused_chat(client)
    trace.get_tracer_provider().shutdown()


main()
