// AI SDK 7 with the telemetry class that follows OpenTelemetry's conventions.
import { OpenTelemetry } from '@ai-sdk/otel';
import { run } from './story.mjs';

await run(new OpenTelemetry({ runtimeContext: true }));
