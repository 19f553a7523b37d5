// AI SDK 7 with the telemetry class that keeps the `ai.*` attributes of versions 5 and 6.
import { LegacyOpenTelemetry } from '@ai-sdk/otel';
import { run } from './story.mjs';

await run(new LegacyOpenTelemetry());
