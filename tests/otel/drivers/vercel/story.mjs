// The story as told with Vercel's AI SDK: a tool-calling chat, a streamed answer (Responses API), an embedding and a
// refusal, in one trace. Which telemetry class observes it is the caller's choice.

import { createOpenAI } from '@ai-sdk/openai';
import { context, trace } from '@opentelemetry/api';
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http';
import { defaultResource, resourceFromAttributes } from '@opentelemetry/resources';
import { BatchSpanProcessor, TracerProvider } from '@opentelemetry/sdk-trace';
import { embed, generateText, isStepCount, registerTelemetry, streamText, tool } from 'ai';
import { z } from 'zod';

// A stack trace names files of the machine; message and type are what a reader of the corpus needs.
Error.stackTraceLimit = 0;

const AGENT = 'weather';
const SYSTEM = 'You are a weather assistant.';
const MODEL = 'gpt-5-mini';

function environment(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set`);
  return value;
}

function startTracing() {
  const root = process.env.AGENTLENS_OTLP_URL ?? environment('OTEL_EXPORTER_OTLP_ENDPOINT');
  const exporter = new OTLPTraceExporter({
    url: `${root.replace(/\/$/, '')}/v1/traces`,
    headers: { Authorization: `Bearer ${environment('AGENTLENS_API_KEY')}` },
  });
  const resource = defaultResource().merge(
    resourceFromAttributes({
      'service.name': 'weather-service',
      'service.version': '1.2.3',
      'deployment.environment.name': 'staging',
    }),
  );
  const provider = new TracerProvider({ resource, spanProcessors: [new BatchSpanProcessor({ exporter })] });
  context.setGlobalContextManager(new AsyncLocalStorageContextManager());
  trace.setGlobalTracerProvider(provider);
  return provider;
}

async function tell(openai, common) {
  await generateText({
    ...common,
    model: openai.chat(MODEL),
    instructions: SYSTEM,
    prompt: 'What is the weather in Paris?',
    tools: {
      get_weather: tool({
        description: 'The weather in a city, now.',
        inputSchema: z.object({ city: z.string() }),
        execute: async ({ city }) => `18 degrees and sunny in ${city}`,
      }),
    },
    stopWhen: isStepCount(3),
  });
  const streamed = streamText({
    ...common,
    model: openai.responses(MODEL),
    instructions: SYSTEM,
    prompt: 'Tell me a joke about the rain.',
  });
  for await (const _text of streamed.textStream);
  await embed({ ...common, model: openai.embedding('text-embedding-3-small'), value: 'Rain in Paris' });
  try {
    await generateText({ ...common, model: openai.chat('gpt-fail'), prompt: 'Will it rain tomorrow?' });
  } catch (error) {
    if (error.statusCode === 400) return;
    throw error;
  }
  throw new Error('the stub did not refuse');
}

export async function run(integration) {
  const provider = startTracing();
  registerTelemetry(integration);
  const openai = createOpenAI({ baseURL: `${environment('STUB_URL').replace(/\/$/, '')}/v1`, apiKey: 'sk-stub' });
  const common = {
    maxRetries: 0,
    // The SDK has no session and no user of its own: they travel in the runtime context, named for inclusion.
    runtimeContext: { sessionId: environment('SESSION_ID'), userId: environment('USER_ID') },
    telemetry: { functionId: AGENT, includeRuntimeContext: { sessionId: true, userId: true } },
  };
  const tracer = trace.getTracer('weather-service', '1.2.3');
  await tracer.startActiveSpan('weather story', async (span) => {
    await tell(openai, common);
    span.end();
  });
  await provider.shutdown();
}
